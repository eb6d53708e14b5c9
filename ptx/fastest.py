"""Which of several ways is fastest now: measured as they are used, and again now and then."""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Sequence

TRIAL = 4
"""Uses of another way that are compared. The slowest quarter of those of either way says nothing:
something disturbed it."""
APART = 2
"""Uses of the way at hand between those: with them it is compared, as another time, when other
programs took more or less of the machine, tells nothing."""
HOPELESS = 3.0
"""A trial ends at once where even the quickest of several uses takes so many times what the way at
hand does."""
WORTH_LEAVING = 1.25
"""How many times as fast fewer threads have to be once all ways are known: a thread that comes late
holds nobody up, and what disturbed it is mostly over soon."""
TRY_AGAIN = 16
"""Uses until another way is tried, at least: other programs come and go."""
WORTH_TRYING = 50
"""So many times what the last trial lost are used before the next: they cost a fiftieth."""
RARELY = 500
"""Uses until another is tried, at most."""
LEAST = 1e-12
"""Of what a clock may tell of a use."""
LAST, ALARM = 9, 1.5
"""The fewest threads are tried at once where the median of so many uses is so many times what it
was: most likely others use the cores."""


class Fastest:
    """Chooses a number of threads. Two threads of a free machine are faster than one; where
    something else uses a core, they can wait for each other ten times as long as they work."""

    def __init__(self, options: Sequence[int]) -> None:
        """options: the most threads first."""
        self._options = list(dict.fromkeys(options))
        self._best = self._options[0]
        self._turns = deque(self._options)
        """In which they are tried."""
        self._trials = 0
        self._last = deque[float](maxlen=LAST)
        """What the last uses of the best way took."""
        self._usual = math.inf
        """What that was typically in the last trial."""
        self._tried = self._best
        """What is tried; the best way outside of a trial."""
        self._took: dict[int, list[float]] = {}
        """By both in the trial."""
        self._uses, self._wait = 0, 0
        """Since the last trial, and until the next."""

    def pick(self) -> int:
        """The one to use now. `note` is told what it took before this is asked again."""
        if self._tried == self._best and (other := self._due()) is not None:
            self._tried, self._took = other, {self._best: [], other: []}
        if self._tried == self._best:
            return self._best
        n = 1 + len(self._took[self._tried])
        # one more each other time: what is used in threes, as a prompt's parts, has all of them met
        wanted = APART * n + n // 2
        return self._tried if len(self._took[self._best]) >= wanted else self._best

    def note(self, option: int, seconds: float) -> None:
        """What a use of `option` took, per unit of work."""
        seconds = max(seconds, LEAST)
        if option == self._best:
            self._last.append(seconds)
        if self._tried == self._best:
            self._uses += 1
            return
        self._took[option].append(seconds)
        best, tried = self._took[self._best], self._took[self._tried]
        hopeless = len(tried) > 1 and min(tried) > HOPELESS * _typical(best)
        if len(tried) == TRIAL or hopeless:
            self._decide(_typical(best), _typical(tried), len(tried))

    def _decide(self, best: float, tried: float, uses: int) -> None:
        """Ends a trial: what both took typically, and how many uses were tried."""
        known = self._trials >= len(self._options) - 1
        margin = WORTH_LEAVING if known and self._tried < self._best else 1.0
        self._usual = best
        if tried * margin < best:
            self._best, self._usual = self._tried, tried
            self._last.clear()
        self._tried, self._uses = self._best, 0
        lost = uses * (tried / best - 1)
        self._wait = min(RARELY, max(TRY_AGAIN, WORTH_TRYING * lost))
        self._trials += 1

    def _due(self) -> int | None:
        """What is to be tried now: the fewest threads if something has changed, or another way in
        its turn."""
        if len(self._options) == 1:
            return None
        fewest = self._options[-1]
        if self._uses >= TRY_AGAIN and self._best != fewest and self._changed():
            return fewest
        if self._trials >= len(self._options) - 1 and self._uses < self._wait:
            return None
        self._turns.rotate(-1)
        if self._turns[0] == self._best:
            self._turns.rotate(-1)
        return self._turns[0]

    def _changed(self) -> bool:
        """Whether the best way takes much longer than in the last trial."""
        recent = statistics.median(self._last) if len(self._last) == LAST else 0.0
        return recent > ALARM * self._usual


def _typical(took: list[float]) -> float:
    """The mean without the slowest quarter."""
    kept = sorted(took)[: len(took) - len(took) // 4]
    return statistics.fmean(kept)
