"""Kinds of characters: those that a tokenizer's pattern does not tell apart."""

from __future__ import annotations

import re
import string
import sys
from functools import lru_cache

import regex  # tiktoken requires it; the standard library's knows no \p{L}


class Kinds(dict[int, int]):
    """Characters to one that the pattern does not tell from them; for `str.translate`.

    A pattern that names contractions ('s, 're, ...) sees their letters only right behind an
    apostrophe; anywhere else they are letters like others.
    """

    def __init__(self, pattern: str) -> None:
        super().__init__()
        classes = sorted(set(re.findall(r"\\p\{\w+\}|\\[sdw]", pattern)))
        self._classes = [regex.compile(name) for name in classes]
        # What is left of the pattern without its classes and operators stands for itself.
        rest = re.sub(r"\\p\{\w+\}|\\[sdwSDW]|\{\d+,?\d*\}|\(\?[a-z]*[:=!]", "", pattern)
        rest = rest.replace(r"\r", "\r").replace(r"\n", "\n").replace(r"\t", "\t")
        self._first: dict[tuple[bool, ...], int] = {}
        self._themselves = set(rest.lower()) - set("[](){}?*+|^$\\")
        self._contraction = self._in_contractions(rest)
        reach = f"[^']{{0,{self._contraction}}}"
        self._near_apostrophe = re.compile(rf"\A{reach}|'{reach}")
        for char in string.ascii_letters:  # stand for their kind before any that stands for itself
            self[ord(char)]
        self._as_letter = {ord(c): self._by_class(ord(c)) for c in string.ascii_letters}
        self._completions = lru_cache(self._find_completions)

    def __missing__(self, code: int) -> int:
        stands_for_itself = chr(code).lower() in self._themselves
        self[code] = code if stands_for_itself else self._by_class(code)
        return self[code]

    def _by_class(self, code: int) -> int:
        kind = tuple(bool(one.match(chr(code))) for one in self._classes)
        return self._first.setdefault(kind, code)

    def _in_contractions(self, rest: str) -> int:
        """How many characters behind an apostrophe a pattern's letters are seen in, at most; 0 if
        it has none, or some elsewhere."""
        runs = [(rest[: m.start()].endswith("'"), m[0]) for m in re.finditer(r"[A-Za-z]+", rest)]
        return max(len(run) for _, run in runs) if runs and all(seen for seen, _ in runs) else 0

    def __call__(self, text: str) -> str:
        """The kinds of a text before which anything may stand."""
        kinds = text.translate(self)
        if not self._contraction:
            return kinds
        parts, end = [], 0
        for match in self._near_apostrophe.finditer(kinds):
            parts += [kinds[end : match.start()].translate(self._as_letter), match[0]]
            end = match.end()
        return "".join((*parts, kinds[end:].translate(self._as_letter)))

    def spellings(self, data: bytes) -> tuple[str, ...]:
        """The kinds of characters in `data`: several if the last one may become several, none if no
        text goes on with these bytes."""
        try:
            return (self(data.decode()),)
        except UnicodeDecodeError as error:
            if error.reason != "unexpected end of data":
                return ()
            start = self(data[: error.start].decode())
            return tuple(start + kind for kind in self._completions(data[error.start :]))

    def _find_completions(self, start: bytes) -> list[str]:
        """The kinds of (up to 256, evenly spread, of) the characters whose UTF-8 begins so."""
        size = 2 if start[0] < 0xE0 else 3 if start[0] < 0xF0 else 4
        low = start + b"\x80" * (size - len(start))
        bits = [low[0] & (0x7F >> size), *(byte & 0x3F for byte in low[1:])]
        first = sum(part << 6 * i for i, part in enumerate(reversed(bits)))
        count = 64 ** (size - len(start))
        codes = range(first, min(first + count, sys.maxunicode + 1), max(1, count // 256))
        chars = (chr(code) for code in codes)
        valid = (c for c in chars if c.encode("utf-8", "replace").startswith(start))
        return sorted({self(char) for char in valid})
