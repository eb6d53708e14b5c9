"""Which of several ways is fastest now: measured as they are used, and again now and then."""

from __future__ import annotations

import math
from collections.abc import Sequence

TRY_AGAIN = 16
"""Uses of the fastest way until another is tried: other programs come and go."""
RARELY = 512
"""The same, once others were slower each time: up to here it doubles."""


class Fastest:
    """Chooses a number of threads. Two threads of a free machine are faster than one; where
    something else uses a core, they can wait for each other ten times as long as they work."""

    def __init__(self, options: Sequence[int], worth: float = 1.0) -> None:
        """worth: how many times as fast twice as many threads have to be."""
        self._seconds: dict[int, float] = {}
        self._options, self._worth = list(dict.fromkeys(options)), worth
        self._cold = set(options)
        """Those never used: a first use finds nothing in the caches, and says little."""
        self._uses = self._tries = 0
        self._wait = TRY_AGAIN

    def pick(self) -> int:
        """The one to use now."""
        for option in self._options:
            if option not in self._seconds:
                return option
        best = self._best()
        self._uses += 1
        if self._uses < self._wait:
            return best
        self._uses, self._wait = 0, min(2 * self._wait, RARELY)
        others = [o for o in self._options if o != best] or [best]
        self._tries += 1
        return others[self._tries % len(others)]

    def note(self, option: int, seconds: float) -> None:
        """What a use of `option` took, per unit of work. Of the fastest one the newest counts
        half; of another it counts alone, as the one before is old."""
        if option in self._cold:
            self._cold.remove(option)
            return
        best = self._best() if self._seconds else option
        before = self._seconds.get(option, seconds) if option == best else seconds
        self._seconds[option] = (before + seconds) / 2
        if self._best() != best:  # the machine has changed, and may again
            self._wait = TRY_AGAIN

    def _best(self) -> int:
        """The fastest of those that are worth their threads."""
        return min(self._seconds, key=lambda n: self._seconds[n] * self._worth ** math.log2(n))
