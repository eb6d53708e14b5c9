"""Beginnings of files that are Python as far as they go."""

from __future__ import annotations

import numpy as np

from ptx.errors import UserError
from ptx.guard import text_of
from ptx.prefix import can_go_on
from ptx.tokenizer import Tokenizer

LONGEST = 1_500
"""Tokens of a beginning, at most: Python parses them."""
SHORTEST = 40
"""Tokens of a beginning, at least; a file has twice as many."""
TRIES = 1_000
"""Beginnings looked at until one is Python."""


class Beginnings:
    """Draws them from tokens, (N,), with an end-of-text token after each file. Raises UserError,
    naming the option `of`, if there is none."""

    def __init__(self, tokens: np.ndarray, tokenizer: Tokenizer, of: str) -> None:
        self.tokens, self.tokenizer, self.of = tokens, tokenizer, of
        ends = np.flatnonzero(np.asarray(tokens) == tokenizer.eot)
        starts = np.concatenate([[0], ends + 1])[:-1]
        long = ends - starts >= 2 * SHORTEST
        self.documents = np.stack([starts[long], ends[long]], 1)  # (N, 2)
        if not len(self.documents):
            raise UserError(
                f"{of} needs files of {2 * SHORTEST} tokens to begin with, and there is none: "
                "leave it out, or give it more text"
            )
        self.draw(np.random.default_rng(0))  # refuses what is not Python

    def draw(self, random: np.random.Generator) -> tuple[list[int], list[int]]:
        """The tokens of a file, those of the beginning and those after it."""
        for _ in range(TRIES):
            start, end = self.documents[random.integers(len(self.documents))]
            at = random.integers(start + SHORTEST, min(end, start + LONGEST))
            begun = self.tokens[start:at].tolist()
            if can_go_on(text_of(self.tokenizer.decode(begun)).removeprefix("\ufeff")):
                return begun, self.tokens[at:end].tolist()
        raise UserError(f"{self.of} needs Python to begin with, and this data is not: leave it out")
