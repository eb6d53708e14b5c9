"""Which of several ways is fastest now: measured as they are used, and again now and then."""

from __future__ import annotations

from collections.abc import Sequence

TRY_AGAIN = 16
"""Uses of the fastest way between two tries of another: other programs come and go."""


class Fastest:
    """Chooses a number of threads. Two threads of a free machine are faster than one; where
    something else uses a core, they can wait for each other ten times as long as they work."""

    def __init__(self, options: Sequence[int]) -> None:
        self._seconds: dict[int, float] = {}
        self._options = list(dict.fromkeys(options))
        self._uses = 0

    def pick(self) -> int:
        """The one to use now."""
        for option in self._options:
            if option not in self._seconds:
                return option
        self._uses += 1
        best = min(self._options, key=self._seconds.__getitem__)
        if self._uses % TRY_AGAIN:
            return best
        others = [o for o in self._options if o != best] or [best]
        return others[self._uses // TRY_AGAIN % len(others)]

    def note(self, option: int, seconds: float) -> None:
        """What a use of `option` took, per unit of work; the newest counts half."""
        before = self._seconds.get(option, seconds)
        self._seconds[option] = (before + seconds) / 2
