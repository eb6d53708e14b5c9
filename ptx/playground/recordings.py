"""What is kept of the texts that are being written: where every head looked for each new token."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from dataclasses import dataclass, field
from threading import Lock

from ptx import lens
from ptx.errors import UserError
from ptx.stream import Step

MOST_BYTES = 64_000_000
"""Of all texts together, but for the newest."""


@dataclass
class Recording:
    """One text. Row i is of the token at `first + i`."""

    first: int | None = None
    """Index of the first new token in the text; None before there is one."""
    rows: list[bytes] = field(default_factory=list)
    """`lens.row` of each new token, empty if its attention was not recorded."""
    nbytes: int = 0


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
            self._kept[name] = Recording()

    def add(self, name: str, step: Step, at: int) -> None:
        """The next token, of this index in the text. A text that was dropped stays
        so, and a step without a token adds nothing."""
        if step.token is None:
            return
        row = b"" if step.attention is None else lens.row(step.attention)
        with self._lock:
            if not (found := self._kept.get(name)):
                return
            if found.first is None:
                found.first = at
            found.rows.append(row)
            found.nbytes += len(row)
            self.nbytes += len(row)
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
            first = max(found.first, token)
            return first, found.rows[first - found.first :]
