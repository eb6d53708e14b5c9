"""Guesses at the next tokens from the text itself: code repeats names and whole lines.

Prompt lookup decoding (Saxena, 2023): where the last tokens occurred before, what followed them may
follow again. The guesses are read together with the last token, in one step; each is kept only if
the very draw that would have been made anyway gives it. So they change nothing but the time.
"""

from __future__ import annotations

from collections.abc import Sequence

N_GRAMS = (3, 2)
"""Tokens that have to recur; the longer first."""
GUESSES = 3
"""With the last token these fill one tile of four rows in ptx.native."""
WORTH = 0.5
"""Right guesses a step from which on they pay: a step of four rows takes up to half more than one
row's."""
MEMORY = 0.8
"""Share that the past keeps in the running mean of right guesses."""
RETRY = 32
"""Steps after which a text that did not repeat itself gets another chance: what a wrong guess costs
then is one step in a hundred."""


class Lookup:
    """The n-grams of one growing text, and how well they foretold it so far."""

    def __init__(self) -> None:
        self._after: dict[tuple[int, ...], int] = {}
        self._known = 0
        self._right = 2 * WORTH
        self._silent = 0

    def guess(self, ids: Sequence[int], most: int) -> list[int]:
        """At most so many tokens that may follow `ids`, which only ever grow."""
        self._learn(ids)
        if self._right < WORTH:
            self._silent += 1
            if self._silent < RETRY:
                return []
            self._right, self._silent = WORTH, 0
        for n in N_GRAMS:
            at = self._after.get(tuple(ids[-n:]))
            if at is not None:
                return list(ids[at : at + min(most, GUESSES)])
        return []

    def note(self, guessed: int, right: int) -> None:
        """How many of the tokens guessed were right."""
        if guessed:
            self._right = MEMORY * self._right + (1 - MEMORY) * right

    def _learn(self, ids: Sequence[int]) -> None:
        """Every n-gram but the one at the end, which nothing follows yet."""
        for end in range(max(self._known, 1), len(ids)):
            for n in N_GRAMS:
                if end >= n:
                    self._after[tuple(ids[end - n : end])] = end
        self._known = len(ids)
