"""Which of several ways is fastest now: measured as they are used, and again now and then."""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Sequence

LAST = 3
"""Uses of a way whose median counts: what another program took of one of them says nothing."""
SOON = 8
"""Uses until another is tried of which less is known than that."""
TRY_AGAIN = 16
"""Uses of the fastest way until another is tried: other programs come and go."""
RARELY = 512
"""The same, at most. It grows with the square of how many times as long another takes: trying one
that takes less than nine times as long costs a sixtieth of the time or less."""


class Fastest:
    """Chooses a number of threads. Two threads of a free machine are faster than one; where
    something else uses a core, they can wait for each other ten times as long as they work."""

    def __init__(self, options: Sequence[int], worth: float = 1.0) -> None:
        """worth: how many times as fast twice as many threads have to be."""
        self._options, self._worth = list(dict.fromkeys(options)), worth
        self._last = {option: deque[float](maxlen=LAST) for option in self._options}
        self._cold = set(self._options)
        """Those never used: a first use finds nothing in the caches, and says little."""
        self._uses = self._tries = 0
        self._wait = SOON

    def pick(self) -> int:
        """The one to use now."""
        for option in self._options:
            if not self._last[option]:
                return option
        best = self._best()
        self._uses += 1
        if self._uses < self._wait:
            return best
        self._uses = 0
        others = [o for o in self._options if o != best] or [best]
        self._tries += 1
        return others[self._tries % len(others)]

    def note(self, option: int, seconds: float) -> None:
        """What a use of `option` took, per unit of work."""
        if option in self._cold:
            self._cold.remove(option)
            return
        self._last[option].append(seconds)
        if all(self._last.values()) and option != self._best():
            # What was good just now may be so again.
            slower = min(seconds, self._median(option)) / self._median(self._best())
            self._wait = round(min(RARELY, TRY_AGAIN * max(1.0, slower) ** 2))
            if len(self._last[option]) < LAST:
                self._wait = SOON

    def _best(self) -> int:
        """The fastest of those that are worth their threads."""
        return min(self._options, key=lambda n: self._median(n) * self._worth ** math.log2(n))

    def _median(self, option: int) -> float:
        return statistics.median_low(self._last[option])
