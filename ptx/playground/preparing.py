"""Data that a visitor asks for: what prepare/run.py is to do, from what the browser sends."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any, NamedTuple

from ptx.errors import UserError
from ptx.playground.jobs import word
from ptx.playground.library import Library, plain_form

Answer = dict[str, Any]


class Preparation(NamedTuple):
    """A run of prepare/run.py."""

    words: list[str]
    """Its command line."""
    out: Path
    """The data directory that it makes."""
    file: Path | None = None
    """A file to be written before it, and removed after it."""
    content: bytes = b""

    def begin(self) -> None:
        if self.file:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            self.file.write_bytes(self.content)

    def end(self) -> None:
        if self.file:
            self.file.unlink(missing_ok=True)


def preparation(
    data: Answer, tokenizer: str | None, library: Library, upload_bytes: int
) -> Preparation:
    """data: {"source": "installed"}, {"source": "folder", "name": one of the library's} or
    {"source": "text", "name": of the data, "text"}, from any client. UserError says what is
    wrong with it.

    upload_bytes: that a text may have.
    """
    file, content, source = None, b"", data.get("source")
    if source == "installed":
        out, words = library.new(installed(tokenizer)), ["installed"]
    elif source == "folder":
        folder = library.find_folder(data.get("name"))
        out, words = library.new(plain_form(folder.name)), ["folder", word(folder)]
    elif source == "text":
        out, content = library.new(data.get("name")), checked_text(data.get("text"), upload_bytes)
        file = out.with_name(f".{out.name}.{secrets.token_hex(4)}.text")
        words = ["text", word(file)]
    else:
        raise UserError("data must have a source: prepared, installed, folder or text")
    words += ["--tokenizer", tokenizer] if tokenizer else []
    return Preparation([*words, "--out", word(out)], out, file, content)


def installed(tokenizer: str | None) -> str:
    """The name of this machine's Python as data of a tokenizer."""
    return f"installed-{tokenizer}" if tokenizer else "installed"


def checked_text(text: Any, most: int) -> bytes:
    """A text from any client in UTF-8, of so many bytes at most."""
    if not isinstance(text, str) or not text.strip():
        raise UserError("paste or choose the text to learn from")
    try:
        content = text.encode()
    except UnicodeEncodeError:
        raise UserError("the text holds half of a character: save it as UTF-8") from None
    if len(content) > most:
        raise UserError(
            f"the text has {len(content):,} bytes; this page takes {most:,} at most "
            "(PTX_UPLOAD_BYTES)"
        )
    if "\0" in text:
        raise UserError("the text holds a NUL character: it is no source code")
    return content
