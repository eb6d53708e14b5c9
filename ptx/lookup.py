"""Guesses at the next tokens from the text itself: code repeats names and whole lines.

Prompt lookup decoding (Saxena, 2023): where the last tokens occurred before, what followed them may
follow again. The guesses are read together with the last token, in one step; each is kept only if
the very draw that would have been made anyway gives it. So they change nothing but the time.

`found`, `pays` and `note` are compiled as they stand by `ptx.onward`, which has no lists there.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

LONGER, SHORTER = 3, 2
"""Tokens that have to recur; the longer first."""
WINDOW = 512
"""Of the last tokens, as many are looked through."""
GUESSES = 3
"""With the last token these fill one tile of four rows in ptx.native."""
WORTH = 0.5
"""Right guesses a step from which on they are tried: a step of four rows takes 1.3 to 1.9 times one
row's, by the machine, and a text that begins to repeat itself is soon right more often."""
MEMORY = 0.8
"""Share that the past keeps in the running mean of right guesses."""
RETRY = 32
"""Steps after which a text that did not repeat itself gets another chance: what a wrong guess costs
then is one step in a hundred."""


def found(text: Sequence[int] | np.ndarray, n: int) -> int:
    """Where what followed the last tokens of text[:n] before begins, the latest time they came;
    n if they did not."""
    nearest = n
    for end in range(n - 1, max(SHORTER, n - WINDOW) - 1, -1):
        if text[end - 1] == text[n - 1] and text[end - 2] == text[n - 2]:
            if end >= LONGER and text[end - 3] == text[n - 3]:
                return end
            nearest = end if nearest == n else nearest
    return nearest


def pays(past: np.ndarray) -> bool:
    """Whether a text is to be guessed at now.

    past: fp64 (2,): the running mean of right guesses, and steps without any since it was too low.
    """
    if past[0] >= WORTH:
        return True
    past[1] += 1
    if past[1] < RETRY:
        return False
    past[0], past[1] = WORTH, 0
    return True


def note(past: np.ndarray, right: int) -> None:
    """How many of the tokens guessed were right, if any were guessed."""
    past[0] = MEMORY * past[0] + (1 - MEMORY) * right


class Lookup:
    """How well one growing text foretold itself so far."""

    def __init__(self) -> None:
        self.past = np.array([2 * WORTH, 0.0])

    def guess(self, ids: Sequence[int], most: int) -> list[int]:
        """At most so many tokens that may follow `ids`."""
        if not pays(self.past):
            return []
        at = found(ids, len(ids))
        return list(ids[at : at + min(most, GUESSES)])

    def note(self, guessed: int, right: int) -> None:
        """How many of the tokens guessed were right."""
        if guessed:
            note(self.past, right)
