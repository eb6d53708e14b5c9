"""Where tokens, bytes, characters and lines of a text meet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ptx.tokenizer import INVALID_BYTES, Tokenizer


@dataclass(frozen=True)
class Text:
    """The text of T tokens: n characters, of which each lies in one or more tokens."""

    string: str
    """A byte that is not UTF-8 is one U+FFFD."""
    tokens: np.ndarray
    """(T + 1,): the byte that each token begins with, and the number of bytes."""
    chars: np.ndarray
    """(n + 1,): the byte that each character begins with, and the number of bytes."""
    lines: np.ndarray
    """(n,): the line of each character, from 0; a newline ends its line."""

    first: list[int]
    """n: the token that holds the first byte of each character."""
    last: list[int]
    """n: the token that holds its last byte."""

    def tokens_of(self, start: int, end: int) -> range:
        """The tokens that hold any byte of the characters from `start` to before `end`."""
        return range(self.first[start], self.last[end - 1] + 1)


def text_of(tokenizer: Tokenizer, ids: Sequence[int]) -> Text:
    """How the tokens' bytes make characters and lines."""
    parts = [tokenizer.token_bytes(token) for token in ids]
    escaped = b"".join(parts).decode("utf-8", "surrogateescape")  # an odd byte is one character
    sizes = [len(c.encode("utf-8", "surrogateescape")) for c in escaped]
    newlines = np.array([c == "\n" for c in escaped], dtype=np.int64)
    tokens, chars = np.cumsum([0, *map(len, parts)]), np.cumsum([0, *sizes])

    def holders(bytes_: np.ndarray) -> list[int]:
        # "right" steps over tokens without bytes, which begin where their successor does
        return (np.searchsorted(tokens, bytes_, "right") - 1).tolist()

    return Text(
        string=INVALID_BYTES.sub(lambda found: "\ufffd" * len(found[0]), escaped),
        tokens=tokens,
        chars=chars,
        lines=np.cumsum(newlines) - newlines,
        first=holders(chars[:-1]),
        last=holders(chars[1:] - 1),
    )
