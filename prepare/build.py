"""From a source to a data directory: clean every shard, select, write.

Only cleaning takes long, and each cleaned shard is kept in a work directory beside the target until
the end, so a run that was interrupted anywhere goes on with the next shard.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from prepare import near
from prepare.cleaning import benchmarks, rules
from prepare.cleaning.rules import Rules
from prepare.limits import Limit
from prepare.selection import (
    EXACT,
    KEPT,
    NEAR,
    FindTwins,
    Index,
    Selection,
    near_twins,
    read_index,
    select,
)
from prepare.shards import SCHEMA, ShardFiles, shard_files
from prepare.sources import Source
from prepare.workers import clean_all
from ptx.atomic import discard, recover
from ptx.corpus import DTYPES, SPLITS, CorpusWriter, file_sha256
from ptx.errors import UserError
from ptx.tokenizer import get_tokenizer

DOCUMENTS = "documents.parquet"
NEAR_DUPLICATES = "near_duplicates.parquet"


@dataclass(frozen=True)
class Plan:
    """How a source is prepared.

    Attributes:
        tokenizer: its name.
        val_fraction: share of the projects (of a text: of its bytes) that validates.
        test_fraction: share of the projects that is kept for a last test.
        seed: of the order of the projects.
        limit: how much is wanted, or None for all.
        steps: the cleaning.
    """

    tokenizer: str
    val_fraction: float
    seed: int = 0
    limit: Limit | None = None
    test_fraction: float = 0.0
    steps: Rules = field(default_factory=Rules)


def build(source: Source, target: Path, plan: Plan, progress: Callable[[int], None]) -> dict:
    """Write the data directory `target`; its manifest.

    progress: is told how many bytes of documents have been read in all.
    Raises UserError; finished shards stay for the next run of the same plan.
    """
    with working_directory(target) as work:
        shards = cleaned_shards(source, work, plan, progress)
        return assemble(source, shards, target, plan)


@contextmanager
def working_directory(target: Path) -> Iterator[Path]:
    """`.NAME.work` beside the target, held against a second run. If the block fails, and a shard is
    done, it stays for the next."""
    work, keep = work_directory(target), False
    recover(work)
    work.mkdir(parents=True, exist_ok=True)
    lock = FileLock(work / "lock", blocking=False)
    try:
        lock.acquire()
    except Timeout:
        raise UserError(f"{target} is being prepared by another process: wait for it.") from None
    try:
        yield work
    except BaseException:
        keep = any(work.glob("*.json"))
        raise
    finally:
        if not keep:  # while it is held: later it may be another run's
            discard(work)
        lock.release()


def require_place(target: Path) -> None:
    """Refuse a target that cannot be written."""
    try:
        target.resolve().parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{target.parent} cannot hold {target.name} ({error.strerror}): name another --out."
        ) from None


def work_directory(target: Path) -> Path:
    target = target.resolve()
    return target.with_name(f".{target.name}.work")


def cleaned_shards(
    source: Source, work: Path, plan: Plan, progress: Callable[[int], None]
) -> list[ShardFiles]:
    """Clean what is not cleaned yet. Returns the shards in order, up to the limit."""
    cleaning = cleaning_of(plan)
    shards = [shard_files(work, i, shard, cleaning) for i, shard in enumerate(source.shards)]
    remove_others(work, shards)
    todo = [(s, f) for s, f in zip(source.shards, shards, strict=True) if not f.done]
    before = sum(f.counts()["bytes"].get("in", 0) for f in shards if f.done)
    progress(before)

    def enough() -> bool:
        return plan.limit is not None and len(wanted(shards, plan.limit)) > 0

    clean_all(todo, plan.steps, plan.tokenizer, lambda done: progress(before + done), enough)
    return (plan.limit and wanted(shards, plan.limit)) or shards


def cleaning_of(plan: Plan) -> str:
    """All that decides what becomes of a document by itself."""
    looked_for = [file_sha256(file) for file in benchmarks.files_of(plan.steps.benchmarks)]
    return f"{plan.steps!r} {looked_for} {get_tokenizer(plan.tokenizer).fingerprint}"


def wanted(shards: Sequence[ShardFiles], limit: Limit) -> list[ShardFiles]:
    """The first shards that hold all that is wanted; [] if that is not known yet."""
    total = 0
    for i, files in enumerate(shards, 1):
        if not files.done:
            return []
        counts = files.counts()
        total += counts["tokens"] if limit.of == "tokens" else counts[limit.of].get("kept", 0)
        if total >= limit.amount:
            return list(shards[:i])
    return []


def remove_others(work: Path, shards: Sequence[ShardFiles]) -> None:
    """What an earlier run began in another way, or with other files, is of no use."""
    ours = {f"{files.index:05}-{files.key}" for files in shards}
    for path in work.iterdir():
        if path.is_file() and path.name != "lock" and path.name.split(".")[0] not in ours:
            path.unlink()


def assemble(
    source: Source,
    shards: Sequence[ShardFiles],
    target: Path,
    plan: Plan,
    find_twins: FindTwins = near_twins,
) -> dict:
    """Select from the cleaned shards and write the directory."""
    index = read_index(shards, plan.limit)
    steps = plan.steps
    selection = select(
        index,
        plan.val_fraction,
        plan.test_fraction,
        plan.seed,
        steps.exact,
        find_twins if steps.near else None,
        source.continuous,
    )
    with CorpusWriter(target, get_tokenizer(plan.tokenizer), tuple(selection.order)) as writer:
        starts, closed = write_tokens(index, selection, source.continuous, writer)
        write_documents(index, selection, starts, closed, writer.extra(DOCUMENTS))
        write_near_duplicates(index, selection, starts, writer.extra(NEAR_DUPLICATES))
        counts = filters(index, selection, shards)
        return writer.finish(
            project_counts(index, selection, closed),
            split=selection.rule,
            seed=plan.seed,
            filters=counts,
            replaced=dict(sorted(sum_of(shards, "replaced").items())),
            steps={name: str(value) for name, value in vars(steps).items()},
            command={"source": source.name, "tokenizer": plan.tokenizer, **source.provenance},
        )


def write_tokens(
    index: Index, selection: Selection, continuous: bool, writer: CorpusWriter
) -> tuple[np.ndarray, np.ndarray]:
    """Write the documents of all sides in their order.

    Returns, for each document, where it starts in its file (-1 where it is not kept), and whether
    an end-of-text token closes it: in a continuous text, only where a part is missing after it.
    """
    starts = np.full(len(index), -1, dtype=np.int64)
    closed = np.zeros(len(index), dtype=bool)
    eot = np.array([writer.tokenizer.eot])
    with Tokens(index, DTYPES[writer.dtype]) as tokens:
        for split, order in selection.order.items():
            order, position = order.tolist(), 0
            for document, following in zip(order, [*order[1:], -1]):
                starts[document] = position
                writer.write(split, tokens.of(document))
                position += int(index.tokens[document])
                follows = following >= 0 and index.place[following] == index.place[document] + 1
                if not (continuous and follows):
                    writer.write(split, eot)
                    closed[document] = True
                    position += 1
    return starts, closed


class Tokens:
    """Reads documents' tokens from the shards, with a bounded number of files open."""

    MOST_OPEN = 200

    def __init__(self, index: Index, dtype: np.dtype) -> None:
        self.index, self.dtype = index, dtype
        self._open: dict[int, int] = {}  # shard -> file descriptor, the longest unused first

    def __enter__(self) -> Tokens:
        return self

    def of(self, document: int) -> np.ndarray:
        size, index, shard = self.dtype.itemsize, self.index, int(self.index.shard[document])
        length, start = int(index.tokens[document]) * size, int(index.start[document]) * size
        data = os.pread(self._descriptor(shard), length, start)
        if len(data) < length:
            file = index.shards[shard].file("tokens")
            raise UserError(f"{file} ends too early: delete {file.parent} and run the same again.")
        return np.frombuffer(data, self.dtype)

    def _descriptor(self, shard: int) -> int:
        descriptor = self._open.pop(shard, None)
        if descriptor is None:
            if len(self._open) >= self.MOST_OPEN:
                os.close(self._open.pop(next(iter(self._open))))
            descriptor = os.open(self.index.shards[shard].file("tokens"), os.O_RDONLY)
        self._open[shard] = descriptor
        return descriptor

    def __exit__(self, *_: object) -> None:
        for descriptor in self._open.values():
            os.close(descriptor)


def write_documents(
    index: Index, selection: Selection, starts: np.ndarray, closed: np.ndarray, file: Path
) -> None:
    """A row for each kept document, in the order of the source: where its tokens are and where it
    comes from."""
    for_rows = [
        ("split", pa.string()),
        ("start", pa.int64()),
        ("closed", pa.bool_()),
        ("tokens", pa.int32()),
        ("bytes", pa.int32()),
        ("project", pa.string()),
        ("path", pa.string()),
        ("version", pa.string()),
        ("licence", pa.string()),
        ("sha256", pa.binary(32)),
    ]
    schema = pa.schema(for_rows)
    with pq.ParquetWriter(file, schema) as writer:
        for i, files in enumerate(index.shards):
            here = np.flatnonzero((index.shard == i) & (selection.outcome == KEPT))
            stored = [name for name in schema.names if name in SCHEMA.names]
            told = files.rows(stored).take(pa.array(index.row[here]))
            placed = {
                "split": pa.array(np.array(SPLITS)[selection.side[here]], pa.string()),
                "start": pa.array(starts[here]),
                "closed": pa.array(closed[here]),
            }
            columns = [placed[n] if n in placed else told[n] for n in schema.names]
            writer.write_table(pa.table(columns, schema=schema))


def write_near_duplicates(
    index: Index, selection: Selection, starts: np.ndarray, file: Path
) -> None:
    """A row for each near duplicate: which it is, and where in the corpus its twin stayed."""
    schema = pa.schema(
        [
            ("project", pa.string()),
            ("path", pa.string()),
            ("similarity", pa.float32()),
            ("kept_split", pa.string()),
            ("kept_start", pa.int64()),
        ]
    )
    with pq.ParquetWriter(file, schema) as writer:
        for i, files in enumerate(index.shards):
            here = np.flatnonzero((index.shard == i) & (selection.outcome == NEAR))
            if not len(here):
                continue
            kept = selection.kept_as[here]
            told = files.rows(["project", "path"]).take(pa.array(index.row[here]))
            alike = near.similarity(index.signatures(here), index.signatures(kept))
            columns = [
                told["project"],
                told["path"],
                pa.array(alike.astype(np.float32)),
                pa.array(np.array(SPLITS)[selection.side[kept]], pa.string()),
                pa.array(starts[kept]),
            ]
            writer.write_table(pa.table(columns, schema=schema))


def project_counts(
    index: Index, selection: Selection, closed: np.ndarray
) -> dict[str, list[dict[str, object]]]:
    """The manifest's sources: the projects of each side in the order of their tokens."""
    listed: dict[str, list[dict[str, object]]] = {}
    for split, order in selection.order.items():
        projects, n = index.project[order], len(index.projects)
        files = np.bincount(projects, closed[order], n).astype(np.int64)
        sizes = np.bincount(projects, index.bytes[order], n).astype(np.int64)
        tokens = np.bincount(projects, index.tokens[order], n).astype(np.int64) + files
        _, first = np.unique(projects, return_index=True)
        listed[split] = [
            {
                **index.projects[p],
                "files": int(files[p]),
                "bytes": int(sizes[p]),
                "tokens": int(tokens[p]),
            }
            for p in projects[np.sort(first)].tolist()
        ]
    return listed


def filters(
    index: Index, selection: Selection, shards: Sequence[ShardFiles]
) -> dict[str, dict[str, int]]:
    """{outcome: {"files", "bytes"}} of all reasons, those that never happened included."""
    files, sizes = sum_of(shards, "files"), sum_of(shards, "bytes")
    over = files["kept"] - len(index)  # cleaned beyond the limit: as if never read
    files["in"] -= over
    sizes["in"] -= sizes["kept"] - int(index.bytes.sum())
    for reason, outcome in ((rules.DUPLICATE, EXACT), (rules.NEAR_DUPLICATE, NEAR), ("kept", KEPT)):
        members = selection.outcome == outcome
        files[reason], sizes[reason] = int(members.sum()), int(index.bytes[members].sum())
    outcomes = ("in", *rules.REASONS, "kept")
    return {o: {"files": files[o], "bytes": sizes[o]} for o in outcomes}


def sum_of(shards: Sequence[ShardFiles], what: str) -> Counter[str]:
    total: Counter[str] = Counter()
    for files in shards:
        total.update(files.counts()[what])
    return total
