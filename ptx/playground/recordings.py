"""What is kept of the texts that are being written: where every head looked for each new token."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from dataclasses import dataclass, field
from threading import Lock

import numpy as np

from ptx import lens
from ptx.errors import UserError
from ptx.stream import Step

AT_ONCE = 16
"""Tokens whose rows are made together: each numpy call gives up Python's lock, and a text that is
being written waits for it again."""
NOTHING = np.empty(0, np.float32)
"""Attention that was not recorded."""
MOST_BYTES = 64_000_000
"""Of all texts together, but for the newest, and for the newest tokens of those being written."""


@dataclass
class Recording:
    """One text. Row i is of the token at `first + i`."""

    first: int | None = None
    """Index of the first new token in the text; None before there is one."""
    rows: list[bytes] = field(default_factory=list)
    """`lens.row` of each new token, empty if its attention was not recorded; but for the newest."""
    new: list[np.ndarray] = field(default_factory=list)
    """The attention of those, (L, H, S), or NOTHING."""
    nbytes: int = 0

    def settle(self) -> None:
        """Makes rows of all that is new."""
        if self.new:
            self.rows += lens.rows(self.new)
            self.new = []


class Recordings:
    """Those of the newest texts, by names that nobody can guess. For any number of threads."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self.most_bytes = most_bytes
        self._kept: OrderedDict[str, Recording] = OrderedDict()  # the newest last
        self._lock = Lock()
        self.nbytes = 0
        """Of all that are kept."""

    @staticmethod
    def new_name() -> str:
        """A new one."""
        return secrets.token_urlsafe(12)

    def start(self, name: str) -> None:
        """From now on there is one of this name, without a token, and it is the newest."""
        with self._lock:
            if before := self._kept.pop(name, None):
                self.nbytes -= before.nbytes
            for other in self._kept.values():  # of a text that ended, nothing large stays
                other.settle()
            self._kept[name] = Recording()

    def add(self, name: str, step: Step, at: int) -> None:
        """The next token, of this index in the text. A text that was dropped stays
        so, and a step without a token adds nothing."""
        if step.token is None:
            return
        new = NOTHING if step.weights is None else step.weights
        with self._lock:
            if not (found := self._kept.get(name)):
                return
            if found.first is None:
                found.first = at
            found.new.append(new)
            if len(found.new) == AT_ONCE:
                found.settle()
            found.nbytes += new.size
            self.nbytes += new.size
            self._kept.move_to_end(name)
            while len(self._kept) > 1 and self.nbytes > self.most_bytes:
                _, oldest = self._kept.popitem(last=False)
                self.nbytes -= oldest.nbytes

    def rows(self, name: str, token: int) -> tuple[int | None, list[bytes]]:
        """The index of the text's first new token, or `token` if that is later, and the rows from
        there on; None before there is a new token. Raises UserError for one that is not kept (any
        more)."""
        with self._lock:
            if not (found := self._kept.get(name)):
                raise UserError("the attention of this text is not kept any more: write it again")
            if found.first is None:
                return None, []
            found.settle()
            first = max(found.first, token)
            return first, found.rows[first - found.first :]
