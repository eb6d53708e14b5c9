"""Prepare Python source for training.

For example:

python prepare/run.py installed (this machine's packages, into data/installed)

python prepare/run.py folder PATH --out data/mine (your own projects)

python prepare/run.py verify data/installed

python prepare/run.py COMMAND --help explains each command.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated

# As a script, the first entry is this folder: make it the repository, so that `prepare` and `ptx`
# are found without installing anything. Worker processes inherit it.
if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import tyro
from rich.console import Console

from prepare import report, sources, split, train_tokenizer
from prepare.build import build
from prepare.sources import Project
from ptx import corpus
from ptx.corpus import CorpusWriter
from ptx.errors import UserError, report_errors
from ptx.tokenizer import get_tokenizer

Argument = tyro.conf.Positional
Out = Annotated[Path, tyro.conf.arg(help="Data directory to write; an earlier one is replaced.")]
TokenizerName = Annotated[
    str,
    tyro.conf.arg(
        name="tokenizer",
        help="py16k (ours, for Python), o200k_base (tiktoken's, needs uint32 and a download), or a "
        "directory written by the tokenizer command.",
    ),
]
Fraction = Annotated[
    float, tyro.conf.arg(help="Share of the projects (of a text: of its bytes) that validates.")
]

console = Console(stderr=True)


def installed(
    out: Out = Path("data/installed"),
    tokenizer: TokenizerName = "py16k",
    val_fraction: Fraction = split.VAL_FRACTION,
) -> None:
    """Read the standard library and every package installed beside this interpreter.

    Nothing is downloaded. Each package is a project, and whole projects validate.
    """
    prepare(by_project(sources.installed(), val_fraction), out, tokenizer, "installed")


def folder(
    path: Argument[Path],
    out: Out = Path("data/folder"),
    tokenizer: TokenizerName = "py16k",
    val_fraction: Fraction = split.VAL_FRACTION,
) -> None:
    """Read a directory of projects: each subdirectory of PATH is one, loose files are another."""
    prepare(by_project(sources.folder(path), val_fraction), out, tokenizer, f"folder {path}")


def text(
    file: Argument[Path],
    out: Out = Path("data/text"),
    tokenizer: TokenizerName = "py16k",
    val_fraction: Fraction = split.VAL_FRACTION,
) -> None:
    """Read one text file, such as the original's input.txt; its end validates."""
    check_fraction(val_fraction)
    train, val = sources.text(file, val_fraction)
    projects = {"train": [train], "val": [val]}
    prepare((projects, split.by_position(val_fraction)), out, tokenizer, f"text {file}")


def verify(directory: Argument[Path]) -> None:
    """Read a data directory again, every token of it, and say what is wrong by file."""
    problems = corpus.verify(directory)
    for problem in problems:
        print(problem)
    if problems:
        raise SystemExit(1)
    print(f"{directory} is as its manifest says.")


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
    parts, rule = by_project(sources.installed(), split.VAL_FRACTION)
    texts = train_tokenizer.sample(parts["train"], megabytes * 1_000_000)
    trained = train_tokenizer.train(out.resolve().name, texts, vocab_size)
    listed = [{"name": p.name, "version": p.version, "licence": p.licence} for p in parts["train"]]
    train_tokenizer.save(trained, out, {"megabytes": megabytes, "split": rule, "sources": listed})
    print(f"{out}: {trained.n_vocab:,} tokens, fingerprint {trained.fingerprint}")


def by_project(
    projects: list[Project], val_fraction: float
) -> tuple[dict[str, list[Project]], dict]:
    check_fraction(val_fraction)
    train, val, rule = split.by_project(projects, val_fraction)
    return {"train": train, "val": val}, rule


def check_fraction(val_fraction: float) -> None:
    if not 0 < val_fraction < 1:
        raise UserError(f"--val-fraction must lie between 0 and 1, not {val_fraction}.")


def prepare(
    parts: tuple[dict[str, list[Project]], dict], out: Path, tokenizer: str, source: str
) -> None:
    """Write the data directory `out` and show what happened."""
    start = time.perf_counter()
    projects, rule = parts
    total = sum(len(p.documents) for listed in projects.values() for p in listed)
    with (
        CorpusWriter(out, get_tokenizer(tokenizer)) as writer,
        report.progress_bar(console) as progress,
    ):
        task = progress.add_task("Tokenizing", total=total)
        listed, sieve = build(projects, tokenizer, writer, lambda _: progress.advance(task))
        command = {"source": source, "tokenizer": tokenizer}
        manifest = writer.finish(listed, split=rule, filters=sieve.record(), command=command)
    Console().print(report.summary(manifest, time.perf_counter() - start))
    print(f"Wrote {out}. Train on it: python train/run.py --data {out}")


@report_errors()
def main() -> None:
    commands = {f.__name__: f for f in (installed, folder, text, verify, adopt, tokenizer)}
    tyro.extras.subcommand_cli_from_dict(commands, prog="prepare/run.py", description=__doc__)


if __name__ == "__main__":
    main()
