"""Which of several ways is fastest now: measured as they are used, and again now and then."""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Sequence

LAST = 15
"""Uses of a way whose median counts: what another program took of some of them says nothing."""
TRIAL = 4
"""Uses in a row when a way is tried. The first finds nothing in the caches, and does not count."""
HOPELESS = 3.0
"""How many times as long as the fastest way a use takes with which a trial ends at once."""
TRY_AGAIN = 32
"""Uses of the fastest way until another is tried, at least: other programs come and go."""
WORTH_TRYING = 50
"""So many times what the last trial lost are used before the next: they cost a fiftieth."""
RARELY = 1000
"""Uses until another is tried, at most."""


class Fastest:
    """Chooses a number of threads. Two threads of a free machine are faster than one; where
    something else uses a core, they can wait for each other ten times as long as they work."""

    def __init__(self, options: Sequence[int], worth: float = 1.0) -> None:
        """worth: how many times as fast twice as many threads have to be."""
        self._options, self._worth = list(dict.fromkeys(options)), worth
        self._last = {option: deque[float](maxlen=LAST) for option in self._options}
        self._median: dict[int, float] = {}
        """Of those that were ever tried."""
        self._tried, self._left = self._options[0], TRIAL
        """What is tried, and for how many uses more."""
        self._lost = 0.0
        """By the last trial, in uses of the fastest way."""
        self._uses = self._trials = 0

    def pick(self) -> int:
        """The one to use now. `note` is told what it took before this is asked again."""
        if not self._left and (other := self._due()) is not None:
            self._tried, self._left = other, TRIAL
            self._lost, self._uses = 0.0, 0
            self._trials += 1
        if self._left:
            return self._tried
        self._uses += 1
        return self._best()

    def note(self, option: int, seconds: float) -> None:
        """What a use of `option` took, per unit of work."""
        last = self._last[option]
        if self._left and option == self._tried:
            others = [known for other, known in self._median.items() if other != option]
            slower = seconds / min(others, default=seconds)
            self._lost += slower - 1
            self._left -= 1
            if self._left == TRIAL - 1:
                last.clear()  # that was another time
                return
            if slower > HOPELESS:
                self._left = 0
        last.append(seconds)
        self._median[option] = statistics.median_low(last)

    def _due(self) -> int | None:
        """What is to be tried now: a way that never was, or another than the best in its turn."""
        for option in self._options:
            if option not in self._median:
                return option
        wait = min(RARELY, max(TRY_AGAIN, WORTH_TRYING * self._lost))
        if self._uses < wait or len(self._options) == 1:
            return None
        best = self._best()
        others = [option for option in self._options if option != best]
        return others[self._trials % len(others)]

    def _best(self) -> int:
        """The fastest of those that are worth their threads."""
        return min(self._options, key=lambda n: self._median[n] * self._worth ** math.log2(n))
