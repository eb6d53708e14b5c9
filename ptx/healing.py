"""Token boundary healing: a prompt may end anywhere.

The tokenizer merges `):` with the newline and indentation that follow it, and `fibona` with `cci`,
so a prompt cut there ends in tokens that training never saw in that place. The last tokens are
taken back, and the first new ones must begin with (or lie inside) the bytes taken back.
Source: "token healing" of guidance (Lundberg et al., 2023).
"""

from __future__ import annotations

import re
from bisect import bisect_left

from ptx.tokenizer import Tokenizer

MAX_TAKEN_BACK = 8
"""Tokens; the tail of a long run of `=` needs no more to find its boundary."""

_LAST_RUN = re.compile(r"(?:\w+|\W+)\Z")


class Healer:
    """Answers, for one tokenizer, which tokens may continue a run of pending bytes."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        pairs = sorted(
            (tokenizer.token_bytes(i), i) for i in range(tokenizer.n_vocab) if i != tokenizer.eot
        )
        self._bytes = [b for b, _ in pairs]
        self._ids = [i for _, i in pairs]

    def take_back(self, ids: list[int], text: str) -> tuple[list[int], bytes]:
        """Splits the tokens of `text` into those that stay and the bytes that are open again:
        all tokens that reach into the last run of word or of non-word characters."""
        run = _LAST_RUN.search(text)
        wanted = len(run.group().encode("utf-8", "surrogatepass")) if run else 0
        pending = b""
        keep = len(ids)
        while keep and len(pending) < wanted and len(ids) - keep < MAX_TAKEN_BACK:
            keep -= 1
            pending = self.tokenizer.token_bytes(ids[keep]) + pending
        return ids[:keep], pending

    def allowed(self, pending: bytes) -> list[int]:
        """The tokens that may come next: all that start with `pending`, and the first one of its
        own tokenization if that is shorter; never none.

        Other tokens inside `pending` (a lone `)` of `):`) are left out: the rest of it would be
        forced after them, in a place where training never saw it.
        """
        first = self.tokenizer.encode(pending)[0]
        ids = [first] if len(self.tokenizer.token_bytes(first)) < len(pending) else []
        i = bisect_left(self._bytes, pending)
        while i < len(self._bytes) and self._bytes[i].startswith(pending):
            ids.append(self._ids[i])
            i += 1
        return ids
