"""How the pictures of a text grow while it is written: from what was kept of each token."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import takewhile

import numpy as np

from ptx import lens
from ptx.config import ModelConfig
from ptx.playground.recordings import Recordings
from ptx.stream import visible_from


@dataclass(frozen=True)
class Growth:
    """Where the heads looked from some positions of a window, one after another."""

    shape: ModelConfig
    first: int
    """The first of the positions."""
    rows: tuple[bytes, ...]
    """`lens.row` of each."""
    whole: bool
    """Whether none is missing."""

    @property
    def end(self) -> int:
        """Past the last position."""
        return self.first + len(self.rows)

    @property
    def room(self) -> int:
        """Tokens that a picture of this has room for: twice as many when it is full."""
        return min(self.shape.context, 1 << max(0, self.end - 1).bit_length())

    def since(self, position: int) -> Growth:
        """From a position on."""
        skip = max(0, position - self.first)
        return replace(self, first=max(position, self.first), rows=self.rows[skip:])

    def at_most(self, count: int) -> Growth:
        """The first of them."""
        return replace(self, rows=self.rows[:count])

    def without_sink(self) -> Growth:
        """The same in that view."""
        rows = (lens.row_without_sink(row, self._heads) for row in self.rows)
        return replace(self, rows=tuple(rows))

    def band(self, size: int) -> tuple[int, np.ndarray]:
        """`lens.band` in a picture of `size` tokens."""
        if not self.rows:
            return 0, np.zeros((self._heads, 0, 0), np.uint8)
        return lens.band(self.rows, self._heads, self.first, size)

    def of_head(self, layer: int, head: int) -> bytes:
        """The rows of one head, one after another."""
        n = layer * self.shape.n_head + head
        rows = enumerate(self.rows, self.first + 1)
        return b"".join(row[n * size : (n + 1) * size] for size, row in rows)

    @property
    def _heads(self) -> int:
        return self.shape.n_layer * self.shape.n_head


def growth_of(recordings: Recordings, name: str, start: int, shape: ModelConfig) -> Growth:
    """What was kept of a text in the window that begins at token `start`; the row at a position is
    of the token chosen after it. Raises UserError for one that is not kept (any more)."""
    token, kept = recordings.rows(name, start + 1)
    tokens = range(token or 0, (token or 0) + len(kept))
    mine = [i for i in tokens if visible_from(i, shape.context) == start]
    if not mine:
        return Growth(shape, 0, (), whole=True)
    rows = kept[mine[0] - tokens[0] : mine[-1] + 1 - tokens[0]]
    first, heads = mine[0] - 1 - start, shape.n_layer * shape.n_head
    sizes = range(heads * (first + 1), heads * (first + len(rows) + 1), heads)
    recorded = takewhile(lambda pair: len(pair[0]) == pair[1], zip(rows, sizes, strict=True))
    known = tuple(row for row, _ in recorded)
    return Growth(shape, first, known, len(known) == len(rows))
