"""Keeps a growing text such that it can still become Python (`Sampling.python`)."""

from __future__ import annotations

import codecs
import re
from bisect import bisect_left
from itertools import islice

from ptx.prefix import can_go_on, syntax_error
from ptx.tokenizer import Tokenizer

STATEMENT = re.compile(rb"^(?:@|(?!(?:elif|else|except|finally)\b)[A-Za-z_]\w*\b(?!\Z))", re.M)
"""Where a statement may begin that belongs to none before."""
PLACES = 8
"""Of those, how many are tried at most."""
LONGEST = 16_384
"""Bytes of a statement, beyond which it takes too long to parse it for every token."""


class Guard:
    """A text that can become Python, and which tokens leave it so.

    alive: whether it can. Nothing can be told of one that cannot, or whose last statement is long.
    parsed: bytes that were read so far to answer which tokens are allowed, the same ones each time.
    """

    def __init__(self, text: bytes, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._text = bytearray(text.removeprefix(codecs.BOM_UTF8))
        self.parsed = 0
        self._passed = 0  # bytes of it before which no more places are looked for
        self._drop_statements()
        # an indent that no statement may have may still be that of a comment
        self.alive = self._short and can_go_on(text_of(self._text).rstrip(" \t"))

    @property
    def _short(self) -> bool:
        return len(self._text) <= LONGEST

    def allows(self, token: int, inside: int = 0) -> bool:
        """Whether the text can go on with a token, of which it has `inside` bytes already."""
        if token == self._tokenizer.eot:
            return syntax_error(self._text.decode("utf-8", "replace"), ended=True) is None
        return self._goes_on_with(self._tokenizer.token_bytes(token)[inside:])

    def as_dead(self, token: int) -> list[int]:
        """A token that is not allowed, and all that begin with the bytes that are too much."""
        new = self._tokenizer.token_bytes(token)
        if not new:
            return [token]
        # what is dead stays dead
        n = 1 + bisect_left(range(1, len(new)), True, key=lambda n: not self._goes_on_with(new[:n]))
        return self._tokenizer.beginning_with(new[:n]).tolist()

    def _goes_on_with(self, new: bytes) -> bool:
        self.parsed += len(self._text)
        return can_go_on(text_of(self._text + new))

    def append(self, new: bytes) -> None:
        """The text goes on."""
        self._text += new
        if b"\n" in self._text[self._passed :]:
            self._drop_statements()
        self.alive = self.alive and self._short

    def _drop_statements(self) -> None:
        """Forgets whole statements at the beginning: what follows them does not depend on them,
        and is parsed sooner without."""
        places = [m.start() for m in STATEMENT.finditer(self._text, self._passed)]
        for place in islice(reversed(places), PLACES):
            if place and syntax_error(text_of(self._text[:place]), ended=True) is None:
                del self._text[:place]
                break
        self._passed = self._text.rfind(b"\n") + 1


def text_of(data: bytes) -> str:
    """Characters; one that is cut at the end is taken for a letter."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    whole = decoder.decode(bytes(data))
    return whole + "\u00e9" if decoder.getstate()[0] else whole
