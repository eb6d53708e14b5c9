"""Prepare more text than one machine should: the same steps as a datatrove pipeline.

For example:

python prepare/cluster.py jsonl /shared/code --out /shared/data --executor local

python prepare/cluster.py stack-v2 --out /shared/data --executor slurm --partition cpu

python prepare/cluster.py hub NAME --out /shared/data --executor ray

Each shard of the source is a task: cleaned and tokenized as prepare/run.py does it, then signed.
datatrove's MinHash stages find near duplicates across all shards, and a last task writes the data
directory, the same that prepare/run.py writes. All machines must see --out under the same path.
What an unfinished run has done is not done again when the same command is repeated.

Needs `pip install -r prepare/cluster-requirements.txt` (and Ray for --executor ray).
"""

from __future__ import annotations

import hashlib
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import numpy as np
import tyro

try:
    from datatrove.data import Document as Text
    from datatrove.data import DocumentsPipeline
    from datatrove.executor import LocalPipelineExecutor, SlurmPipelineExecutor
    from datatrove.pipeline.base import PipelineStep
    from datatrove.pipeline.dedup import (
        MinhashDedupBuckets,
        MinhashDedupCluster,
        MinhashDedupSignature,
    )
    from datatrove.pipeline.dedup.minhash import MinhashConfig
    from datatrove.utils.hashing import HashConfig
    from datatrove.utils.text import TextNormConfig
    from datatrove.utils.word_tokenizers import WordTokenizer
except ImportError:
    sys.exit(
        "error: datatrove is not installed: pip install -r prepare/cluster-requirements.txt, or "
        "use prepare/run.py on one machine."
    )

from prepare import build, near
from prepare.build import Plan, work_directory
from prepare.cleaning.benchmarks import Benchmarks
from prepare.cleaning.clean import Cleaner
from prepare.cleaning.rules import Rules
from prepare.selection import Index
from prepare.shards import ShardFiles, clean_shard, shard_files
from prepare.sources import Source, hub, stack_v2, tables
from prepare.split import VAL_FRACTION
from ptx.corpus import DTYPES, dtype_for, require_replaceable
from ptx.errors import UserError, report_errors
from ptx.tokenizer import get_tokenizer

# Found with a probability of one half at a similarity of 0.7 and of nine tenths at 0.8: datatrove
# compares bands alone, so more of them would take away what is not alike.
MINHASH = MinhashConfig(
    n_grams=near.RUN,
    num_buckets=14,
    hashes_per_bucket=8,
    norm_config=TextNormConfig(False, False, False, False, False),
    hash_config=HashConfig(
        hash_fc="sha1"
    ),  # xxhash 4 no longer takes text, which datatrove gives it
)


LOGS = "logs"  # of each stage, in which datatrove looks for what is done


class Spaces(WordTokenizer):
    """The documents that are signed are token ids with spaces between them."""

    def word_tokenize(self, text: str) -> list[str]:
        return text.split()

    def sent_tokenize(self, text: str) -> list[str]:
        return [text]

    def span_tokenize(self, text: str) -> list[tuple[int, int]]:
        return [(0, len(text))]


class CleanShard(PipelineStep):
    """A task cleans the shard of its number and passes on the tokens of what it kept."""

    name = "clean and tokenize"
    type = "P-Transformer"

    def __init__(self, source: Source, work: Path, plan: Plan) -> None:
        super().__init__()
        self.source, self.work, self.plan = source, work, plan

    def run(
        self, data: DocumentsPipeline = None, rank: int = 0, world_size: int = 1
    ) -> Iterator[Text]:
        tokenizer = get_tokenizer(self.plan.tokenizer)
        files, dtype = files_of(self.source, self.work, self.plan)[rank], dtype_for(tokenizer)
        if not files.done:
            cleaner = Cleaner(self.plan.steps, tokenizer)
            clean_shard(self.source.shards[rank], files, cleaner, DTYPES[dtype], lambda size: None)
        tokens, start = np.fromfile(files.file("tokens"), DTYPES[dtype]), 0
        for i, size in enumerate(files.rows(["tokens"])["tokens"].to_pylist()):
            ids = tokens[start : start + size].tolist()
            start += size
            self.stat_update("documents")
            yield Text(" ".join(map(str, ids)), f"{rank}-{i}")


class Assemble(PipelineStep):
    """One task selects from all cleaned shards and writes the data directory."""

    name = "write the data directory"
    type = "P-Transformer"

    def __init__(self, source: Source, place: Path, target: Path, plan: Plan) -> None:
        super().__init__()
        self.source, self.place, self.target, self.plan = source, place, target, plan

    def run(
        self, data: DocumentsPipeline = None, rank: int = 0, world_size: int = 1
    ) -> DocumentsPipeline:
        shards = files_of(self.source, self.place.parent, self.plan)
        clusters = Clusters(self.place / "clusters")
        build.assemble(self.source, shards, self.target, self.plan, clusters.twins)
        for path in (*self.place.parent.iterdir(), *self.place.iterdir()):
            if path.is_file():
                path.unlink()
            elif path not in (self.place, self.place / LOGS):  # which are being written
                shutil.rmtree(path)
        return data


@dataclass(frozen=True)
class Clusters:
    """What datatrove's last stage wrote: for each shard, (row, number of its cluster) pairs."""

    directory: Path

    def twins(self, index: Index, members: np.ndarray) -> np.ndarray:
        """As `near.twins`: for each of some documents, in the order of preference, the one of them
        that is kept in its stead."""
        cluster = np.full(len(index), -1, dtype=np.int64)
        for number in range(len(index.shards)):
            file = self.directory / f"{number:06d}.clusters"
            if file.is_file():
                pairs = np.fromfile(file, dtype="<u4").reshape(-1, 2)
                first = int(np.searchsorted(index.shard, number))
                cluster[first + pairs[:, 0]] = pairs[:, 1]
        kept = np.arange(len(members))
        mine = cluster[members]
        clustered = np.flatnonzero(mine >= 0)
        _, first, which = np.unique(mine[clustered], return_index=True, return_inverse=True)
        kept[clustered] = clustered[first[which]]
        return kept


def files_of(source: Source, work: Path, plan: Plan) -> list[ShardFiles]:
    told = build.cleaning_of(plan)
    return [shard_files(work, i, shard, told) for i, shard in enumerate(source.shards)]


def place_of(source: Source, work: Path, plan: Plan) -> Path:
    """Where the stages of a plan keep what they did: other data or options are another plan."""
    keys = [files.key for files in files_of(source, work, plan)]
    told = f"{plan!r} {source.name!r} {source.provenance!r} {keys}"
    return work / hashlib.sha256(told.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def is_assembled(place: Path) -> bool:
    """Whether the last task of a plan has ended well."""
    return (place / LOGS / "assemble" / "completions" / "00000").is_file()


@dataclass(frozen=True)
class Options:
    """What all sources share."""

    out: Path
    """Data directory to write, on a disk that all machines see."""
    executor: Literal["local", "slurm", "ray"] = "local"
    """Where the tasks run: processes here, a Slurm cluster, a Ray cluster."""
    workers: int = -1
    """Tasks at once; -1 for all."""
    partition: str = ""
    """Of Slurm."""
    hours: int = 12
    """Slurm's limit for a task."""
    memory: int = 4
    """Gigabytes for a task, on Slurm or Ray; the last one needs more for billions of documents."""
    tokenizer: str = "py16k"
    """py16k, py4k, o200k_base, or the directory of a tokenizer or a model."""
    val_fraction: float = VAL_FRACTION
    """Share of the projects that validates."""
    seed: int = 0
    """Of the order of the training projects."""
    steps: Annotated[Rules, tyro.conf.arg(name="")] = field(default_factory=Rules)


def run(source: Source, options: Options) -> None:
    """Hand all stages to the executor; but for Slurm's, they have ended when this returns."""
    if options.executor == "slurm" and not options.partition:
        raise UserError("Slurm needs a --partition: `sinfo` lists them.")
    Benchmarks(options.steps.benchmarks)  # refused before a task is handed out
    target = options.out.resolve()
    require_replaceable(target)
    build.require_place(target)
    work = work_directory(target)
    work.mkdir(exist_ok=True)
    plan = Plan(options.tokenizer, options.val_fraction, seed=options.seed, steps=options.steps)
    place = place_of(source, work, plan)
    if is_assembled(place):  # on Slurm the logs of a run outlive it
        shutil.rmtree(place)
    stages: list[tuple[str, int, list[PipelineStep]]] = [
        ("clean", len(source.shards), [CleanShard(source, work, plan)]),
        ("assemble", 1, [Assemble(source, place, target, plan)]),
    ]
    if options.steps.near:
        signed, pairs, clusters = (str(place / name) for name in ("signed", "pairs", "clusters"))
        stages[0][2].append(MinhashDedupSignature(signed, MINHASH, Spaces()))
        stages[1:1] = [
            ("pairs", MINHASH.num_buckets, [MinhashDedupBuckets(signed, pairs, config=MINHASH)]),
            ("clusters", 1, [MinhashDedupCluster(pairs, clusters, MINHASH, save_cluster_id=True)]),
        ]
    previous = None
    for name, tasks, pipeline in stages:
        previous = executor(options, name, tasks, pipeline, place / LOGS / name, previous)
    previous.run()
    if is_assembled(place):
        shutil.rmtree(work)


def executor(
    options: Options, name: str, tasks: int, pipeline: list[PipelineStep], logs: Path, depends: Any
) -> Any:
    """One stage, which begins when the one it depends on has ended."""
    common = {
        "tasks": tasks,
        "workers": min(options.workers, tasks),
        "logging_dir": str(logs),
        "depends": depends,
    }
    if options.executor == "local":
        return LocalPipelineExecutor(pipeline, **common)
    if options.executor == "slurm":
        limit = f"{options.hours}:00:00"
        return SlurmPipelineExecutor(
            pipeline,
            time=limit,
            partition=options.partition,
            mem_per_cpu_gb=options.memory,
            job_name=f"ptx-{name}",
            **common,
        )
    from datatrove.executor import RayPipelineExecutor

    return RayPipelineExecutor(pipeline, mem_per_cpu_gb=options.memory, **common)


Paths = tyro.conf.Positional[tuple[Path, ...]]
Shared = Annotated[Options, tyro.conf.arg(name="")]


def parquet(paths: Paths, options: Shared, column: str | None = None) -> None:
    """Parquet files, or folders of them."""
    run(tables.parquet(paths, column), options)


def jsonl(paths: Paths, options: Shared, column: str | None = None) -> None:
    """Files of one JSON object a line, or folders of them."""
    run(tables.jsonl(paths, column), options)


def from_hub(name: tyro.conf.Positional[str], options: Shared, folder: str = "") -> None:
    """A dataset of the Hugging Face Hub, NAME[:COLUMN]."""
    name, _, column = name.partition(":")
    run(hub.hub(name, folder, column or None), options)


def stack(options: Shared) -> None:
    """The Stack v1, its Python."""
    run(hub.stack(), options)


def from_stack_v2(options: Shared) -> None:
    """The Stack v2, its Python."""
    run(stack_v2.stack_v2(), options)


def codeparrot(options: Shared) -> None:
    """CodeParrot's cleaned Python."""
    run(hub.codeparrot(), options)


@report_errors()
def main() -> None:
    commands = {
        "parquet": parquet,
        "jsonl": jsonl,
        "hub": from_hub,
        "stack": stack,
        "stack-v2": from_stack_v2,
        "codeparrot": codeparrot,
    }
    tyro.extras.subcommand_cli_from_dict(commands, prog="prepare/cluster.py", description=__doc__)


if __name__ == "__main__":
    main()
