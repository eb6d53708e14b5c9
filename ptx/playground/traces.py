"""The texts that were last looked at: one forward each, for every question about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock

from torch import Tensor

from ptx import lens
from ptx.decoder import shared
from ptx.errors import UserError
from ptx.model import GPT
from ptx.stream import visible_from

MOST_BYTES = 100_000_000
"""Memory of the traces of one model at most, but for the newest."""

PATIENCE = 20.0
"""Seconds that a question waits for the ones before it."""


@dataclass(frozen=True)
class Seen:
    """The window that ends before a cursor, and a trace of it or of a text that begins with it."""

    start: int
    """Index in the text of the window's first token."""
    end: int
    """The cursor."""
    trace: lens.Trace

    @property
    def query(self) -> int:
        """Position in the trace of the token that chooses the one at the cursor."""
        return self.end - self.start - 1

    @property
    def size(self) -> int:
        """Tokens of the window."""
        return self.end - self.start

    @property
    def ids(self) -> list[int]:
        """The window."""
        return list(self.trace.ids[: self.size])

    def square(self) -> Tensor:
        """Attention within the window, (L, H, T, T)."""
        return self.trace.attention[:, :, : self.size, : self.size]


class Traces:
    """Finds or makes the trace that covers a cursor. For any number of threads.

    Attention is causal, so the trace of a text is right for each of its beginnings: moving through
    a text costs one forward, and of a text that grows or branches only what is new is read.
    """

    def __init__(self, model: GPT, most_bytes: int = MOST_BYTES) -> None:
        self.model, self.most_bytes = model, most_bytes
        self._kept: list[tuple[lens.Mute, lens.Trace]] = []  # the newest last
        self._lock = Lock()  # one forward at a time is enough for the cores

    @property
    def nbytes(self) -> int:
        return sum(trace.nbytes for _, trace in self._kept)

    def at(self, ids: Sequence[int], cursor: int, mute: lens.Mute, keep: bool = True) -> Seen:
        """What the model saw, with `mute` muted, while it chose the token at `cursor`.

        keep: expect more questions about this window.
        Raises UserError if too many wait.
        """
        context = self.model.config.context
        start = visible_from(cursor, context)
        if not self._lock.acquire(timeout=PATIENCE):
            raise UserError("the model is busy with other visitors' texts: try again in a moment")
        try:
            trace = self._find(tuple(ids[start:cursor]), mute)
            if trace is None:
                text = ids[start : start + context]
                trace = lens.trace(self.model, text, mute, before=self._beginning(text, mute))
            if keep:
                self._keep(mute, trace)
        finally:
            self._lock.release()
        return Seen(start, cursor, trace)

    def _find(self, window: tuple[int, ...], mute: lens.Mute) -> lens.Trace | None:
        for muted, trace in reversed(self._kept):
            if muted == mute and trace.ids[: len(window)] == window:
                return trace
        return None

    def _beginning(self, text: Sequence[int], mute: lens.Mute) -> lens.Trace | None:
        """As much of a text's beginning as was read before."""
        found, most = None, 0
        for muted, trace in self._kept:
            n = min(shared(trace.ids, text), len(text) - 1) if muted == mute else 0
            if n > most:
                found, most = trace, n
        return found and found.beginning(most)

    def _keep(self, mute: lens.Mute, trace: lens.Trace) -> None:
        """Puts it last, without those that it makes needless or that there is no room for."""
        self._kept = [
            (muted, other)
            for muted, other in self._kept
            if muted != mute or trace.ids[: len(other.ids)] != other.ids
        ] + [(mute, trace)]
        while len(self._kept) > 1 and self.nbytes > self.most_bytes:
            self._kept.pop(0)
