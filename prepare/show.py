"""The document around a token of a data directory."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from prepare.documents import around
from ptx.corpus import Corpus
from ptx.errors import UserError


def show(directory: Path, split: str, token: int, context: int, console: Console) -> None:
    """Print it with its provenance.

    context: lines before and after the token's; 0 for all.
    """
    corpus = Corpus(directory)
    if split not in corpus.splits:
        raise UserError(f"--split must be {' or '.join(corpus.splits)}, not {split!r}.")
    tokens = getattr(corpus, split)
    if not -len(tokens) <= token < len(tokens):
        raise UserError(
            f"--at {token:,} is outside {split}.bin, which holds {len(tokens):,} tokens."
        )
    token %= len(tokens)
    row = around(directory, split, token)
    start, size = row["start"], row["tokens"]
    decode = corpus.tokenizer.decode
    text = decode(tokens[start : start + size]).decode("utf-8", "replace")
    before = decode(tokens[start : min(token, start + size)]).decode("utf-8", "replace")
    line = before.count("\n") + 1
    facts = Table(show_header=False, box=None)
    for name in ("project", "version", "licence", "path"):
        facts.add_row(name, Text(printable(str(row[name])) or "-"))
    facts.add_row("tokens", f"{start:,} to {start + size:,} of {split}.bin; line {line}")
    shown = corpus.tokenizer.token_bytes(int(tokens[token]))
    what = "end of text" if int(tokens[token]) == corpus.tokenizer.eot else repr(shown)[1:]
    facts.add_row("token", Text(f"{token:,}: {what} (id {int(tokens[token])})"))
    facts.add_row("sha256", row["sha256"].hex())
    console.print(facts)
    wanted = (max(1, line - context), line + context) if context else None
    code = printable(text.replace("\r\n", "\n"))
    console.print(
        Syntax(code, "python", line_numbers=True, line_range=wanted, highlight_lines={line})
    )


def printable(text: str) -> str:
    """Text in which nothing is hidden and nothing commands a terminal: controls as escapes."""
    return "".join(c if c.isprintable() or c in "\n\t" else f"\\u{ord(c):04x}" for c in text)
