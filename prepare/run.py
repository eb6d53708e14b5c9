"""Prepare Python source for training.

For example:

python prepare/run.py installed (this machine's packages, into data/installed)

python prepare/run.py folder PATH --out data/mine (your own projects)

python prepare/run.py stack-v2 --limit 1GB (The Stack, from the Hugging Face Hub)

python prepare/run.py report data/installed (a page that shows what is in it)

An interrupted command goes on where it was when it is run again. python prepare/run.py COMMAND
--help explains each.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

# As a script, the first entry is this folder: make it the repository, so that `prepare` and `ptx`
# are found without installing anything. Worker processes inherit it.
if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import tyro
from rich.console import Console

from prepare import progress, report, split, train_tokenizer
from prepare import show as showing
from prepare import verify as checking
from prepare.build import Plan, build, require_place
from prepare.cleaning.benchmarks import Benchmarks
from prepare.cleaning.rules import ONE_TEXT, OWN_CODE, Rules
from prepare.limits import parse_limit
from prepare.sources import Source, hub, local, stack_v2, tables
from ptx import corpus
from ptx.corpus import require_replaceable
from ptx.errors import UserError, report_errors
from ptx.tokenizer import get_tokenizer

Argument = tyro.conf.Positional
Paths = Argument[tuple[Path, ...]]
TokenizerName = Annotated[
    str,
    tyro.conf.arg(
        name="tokenizer",
        help="py16k (ours, for Python), py4k (its first 4,096 tokens: for nano), o200k_base "
        "(tiktoken's, needs uint32 and a download), or a directory: one that the tokenizer command "
        "wrote, or a model's (of a run, one of its checkpoints).",
    ),
]
Column = Annotated[
    str | None,
    tyro.conf.arg(help="The column that holds the code; a usual name is found by itself."),
]

console = Console(stderr=True)


@dataclass(frozen=True)
class Options:
    """What all sources share."""

    out: Path | None = None
    """Data directory to write, data/COMMAND if left out; an earlier one is replaced."""
    tokenizer: TokenizerName = "py16k"
    val_fraction: float = split.VAL_FRACTION
    """Share of the projects (of a text: of its bytes) that validates."""
    test_fraction: float = 0.0
    """Share of the projects kept for a last test, in test.bin, which training never reads."""
    seed: int = 0
    """Of the order of the training projects."""
    limit: str = ""
    """Stop after so much clean text: 500MB, 10000files or 50Mtokens."""
    languages: tuple[str, ...] = ("Python",)
    """Python, and no other: the steps, the parser and the tokenizer are made for it."""
    steps: Annotated[Rules, tyro.conf.arg(name="")] = field(default_factory=Rules)


Shared = Annotated[Options, tyro.conf.arg(name="")]
ANY = Options()
OWN = Options(steps=OWN_CODE)
TEXT = Options(steps=ONE_TEXT)


def installed(options: Shared = ANY) -> None:
    """Read the standard library and every package installed beside this interpreter.

    Nothing is downloaded. Each package is a project, and whole projects validate.
    """
    prepare(local.installed, options, "installed")


def folder(path: Argument[Path], options: Shared = OWN) -> None:
    """Read a directory of projects: each subdirectory of PATH is one, loose files are another."""
    prepare(lambda: local.folder(path), options, "folder")


def text(file: Argument[Path], options: Shared = TEXT) -> None:
    """Read one text file, such as the original's input.txt; its end validates."""
    prepare(lambda: local.text(file), options, "text")


def parquet(
    paths: Argument[tuple[Path, ...]], column: Column = None, options: Shared = ANY
) -> None:
    """Read parquet files, or folders of them: a row is a document."""
    prepare(lambda: tables.parquet(paths, column), options, "parquet")


def jsonl(paths: Paths, column: Column = None, options: Shared = ANY) -> None:
    """Read files of one JSON object a line (.jsonl, .jsonl.gz), or folders of them."""
    prepare(lambda: tables.jsonl(paths, column), options, "jsonl")


def from_hub(
    name: Annotated[Argument[str], tyro.conf.arg(metavar="NAME[:COLUMN]")],
    folder: Annotated[str, tyro.conf.arg(help="Only this folder of the dataset.")] = "",
    options: Shared = ANY,
) -> None:
    """Stream a dataset of the Hugging Face Hub, such as codeparrot/github-code:code."""
    name, _, column = name.partition(":")
    prepare(lambda: hub.hub(name, folder, column or None), options, "hub")


def stack(options: Shared = ANY) -> None:
    """Stream The Stack v1 (bigcode/the-stack-dedup, its Python). Accept its licence on the Hub."""
    prepare(hub.stack, options, "stack")


def from_stack_v2(options: Shared = ANY) -> None:
    """Stream The Stack v2 (bigcode/the-stack-v2-dedup): the list of files from the Hub, where its
    licence must be accepted, the files from Software Heritage."""
    prepare(stack_v2.stack_v2, options, "stack-v2")


def codeparrot(options: Shared = ANY) -> None:
    """Stream CodeParrot's cleaned Python of GitHub (codeparrot/codeparrot-clean)."""
    prepare(hub.codeparrot, options, "codeparrot")


def verify(directory: Argument[Path]) -> None:
    """Read a data directory again, every token of it, and say what is wrong by file.

    Hashes, counts and ids, and that no project and no document is on both sides; with its list of
    documents, that every document decodes to exactly the text whose hash is recorded.
    """
    problems = list(checking.problems(directory))
    for problem in problems:
        print(problem)
    if problems:
        raise SystemExit(1)
    print(f"{directory} is as its manifest says.")


def show(
    directory: Argument[Path],
    at: Annotated[int, tyro.conf.arg(help="A token, counted from 0; below 0, from the end.")],
    split: Annotated[str, tyro.conf.arg(help="train, val or test.")] = "train",
    lines: Annotated[int, tyro.conf.arg(help="Lines before and after; 0 shows all.")] = 12,
) -> None:
    """Print the document around a token, and where it comes from."""
    showing.show(directory, split, at, lines, Console())


def report_page(
    directory: Argument[Path],
    out: Annotated[Path | None, tyro.conf.arg(help="The page; DIRECTORY-report.html.")] = None,
) -> None:
    """Write one HTML page that shows what is in a data directory; it needs nothing else."""
    page = out or directory.with_name(f"{directory.resolve().name}-report.html")
    report.write(directory, page)
    print(f"Wrote {page}.")


def adopt(directory: Argument[Path], dtype: str, tokenizer: TokenizerName) -> None:
    """Describe token files made elsewhere (nanoGPT's train.bin and val.bin) so that they open."""
    manifest = corpus.adopt(directory, dtype, get_tokenizer(tokenizer))
    for name, total in manifest["splits"].items():
        print(f"{name}: {total['tokens']:,} tokens, {total['bytes']:,} bytes of text")


def tokenizer(
    out: Annotated[Path, tyro.conf.arg(help="Directory to write the tokenizer to.")],
    vocab_size: Annotated[int, tyro.conf.arg(help="Ids, the end-of-text token included.")] = 16_384,
    megabytes: Annotated[
        int, tyro.conf.arg(help="Text to learn from, shared evenly among the projects.")
    ] = 40,
) -> None:
    """Train a tokenizer for Python on the installed packages that do not validate.

    The shipped one is what `tokenizer --out py16k` wrote (ptx/py16k.tiktoken, and as ptx/py16k.json
    its manifest, with the version of every package that it learned from).
    """
    train_tokenizer.require_replaceable(out)
    source = local.installed()
    learned, listed = train_tokenizer.texts(source, split.VAL_FRACTION, megabytes * 1_000_000)
    trained = train_tokenizer.train(out.resolve().name, learned, vocab_size)
    train_tokenizer.save(trained, out, {"megabytes": megabytes, **listed})
    print(f"{out}: {trained.n_vocab:,} tokens, fingerprint {trained.fingerprint}")


def prepare(read: Callable[[], Source], options: Options, command: str) -> None:
    """Write a data directory and show what happened."""
    started = time.perf_counter()
    if not 0 < options.val_fraction < 1:
        raise UserError(f"--val-fraction must lie between 0 and 1, not {options.val_fraction}.")
    if not 0 <= options.test_fraction < 1 - options.val_fraction:
        raise UserError(
            "--test-fraction must be 0 or more, and with --val-fraction leave projects to train "
            f"on, not {options.test_fraction}."
        )
    if other := [name for name in options.languages if name.lower() != "python"]:
        raise UserError(
            f"--languages {' '.join(other)}: only Python is prepared here, since the steps, the "
            "parser and the tokenizer are made for it. Leave the option out."
        )
    out = options.out or Path("data") / command
    limit = parse_limit(options.limit)
    get_tokenizer(options.tokenizer)  # these are refused before anything is read
    Benchmarks(options.steps.benchmarks)
    require_replaceable(out.resolve())
    plan = Plan(
        options.tokenizer,
        options.val_fraction,
        options.seed,
        limit,
        options.test_fraction,
        options.steps,
    )
    source = read()
    if source.continuous and options.test_fraction:
        raise UserError(
            "--test-fraction is a share of projects, and one text has none: leave it out."
        )
    require_place(out)
    with progress.bar(console, sum(shard.size for shard in source.shards)) as advance:
        manifest = build(source, out, plan, advance)
    Console().print(progress.summary(manifest, time.perf_counter() - started))
    if options.test_fraction and "test" not in manifest["splits"]:
        print("There is no test.bin: the projects are too few for --test-fraction to give it one.")
    print(f"Wrote {out}. Look at it: python prepare/run.py report {out}")
    print(f"Train on it: python train/run.py --data {out}")


@report_errors()
def main() -> None:
    commands = {
        "installed": installed,
        "folder": folder,
        "text": text,
        "parquet": parquet,
        "jsonl": jsonl,
        "hub": from_hub,
        "stack": stack,
        "stack-v2": from_stack_v2,
        "codeparrot": codeparrot,
        "verify": verify,
        "report": report_page,
        "show": show,
        "adopt": adopt,
        "tokenizer": tokenizer,
    }
    tyro.extras.subcommand_cli_from_dict(commands, prog="prepare/run.py", description=__doc__)


if __name__ == "__main__":
    main()
