"""Streams that advance together, a step at a time: what each reads, and the draws of all. One that
is alone takes several steps at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import numpy as np

from ptx.decoder import AT_ONCE, Decoder, Row, torch_threads
from ptx.errors import UserError
from ptx.lookup import GUESSES
from ptx.sampling import Sampling, drawn
from ptx.stream import Step, Stream

READ_AT_ONCE = 256
"""Prompt tokens that are read before a step, at most: no long prompt holds the others for long."""
AS_ONE = 32
"""Positions that are copied in the time that one is read in."""
FEW = 2
"""Texts up to which guessing ahead pays: more of them fill a step by themselves."""


@dataclass
class _Seat:
    """A stream's place in a batch."""

    stream: Stream
    slot: int
    start: int = 0
    """Index in the text of the first position in the slot."""
    read: int = 0
    """Positions in the slot that hold the text's tokens."""


class Batch:
    """Streams that advance together. Not for use by several threads at once."""

    def __init__(self, decoder: Decoder) -> None:
        self.decoder = decoder
        self._seats: dict[Stream, _Seat] = {}

    @property
    def free(self) -> int:
        """Slots without a stream."""
        return len(self.decoder.free)

    @property
    def streams(self) -> list[Stream]:
        """Those that take part, in the order they came."""
        return list(self._seats)

    def join(self, stream: Stream) -> None:
        """Takes a slot for `stream`; ValueError if none is free. What a slot holds from an earlier
        text with the same beginning is not read again."""
        start = stream.visible_from()
        slot, held = self.decoder.take(stream.ids[start:])
        self._seats[stream] = _Seat(stream, slot, start, min(held, len(stream.ids) - 1 - start))

    def leave(self, stream: Stream) -> None:
        """Gives the slot of `stream` back; nothing happens if it has none."""
        if seat := self._seats.pop(stream, None):
            held = stream.ids[seat.start : seat.start + seat.read]
            self.decoder.give_back(seat.slot, held)

    def step(self) -> list[tuple[Stream, list[Step]]]:
        """Reads what is new in every stream and takes its next tokens; finished streams leave.

        Prompts are read in parts; a stream whose turn has not come yet is left out, and so is a
        paused one. An error in a stream's own choice ends that stream alone.
        """
        for stream in self.streams:
            if stream.finish:
                self.leave(stream)
        if alone := self._alone():
            return [(alone.stream, self._go_on(alone))]
        budget, ready, rows, unasked = READ_AT_ONCE, [], [], 0
        most = GUESSES if len(self._seats) <= FEW else 0
        # A text that is alone has the end of its prompt read with what is asked of it, mostly a
        # step less. Of several, those that begin alike copy what others have read by then.
        left = AT_ONCE if len(self._seats) == 1 else 0
        for seat in self._seats.values():
            stream = seat.stream
            if stream.paused:
                continue
            if seat.start != (start := stream.visible_from()):
                seat.start, seat.read = start, 0
                self.decoder.forget(seat.slot, 0)
            last = len(stream.ids) - 1 - start  # position of the newest token
            if seat.read < last:
                budget -= self._read_on(seat, stream.ids[start : start + last], budget, left)
            if last - seat.read <= left:
                guesses, read = stream.guesses(most), []
                for branch in stream.branches():
                    more, unasked = self._rows(seat, branch), last - seat.read
                    read.append(self.decoder.step(more, stream.attention, unasked))
                    seat.read = last
                rows += self._rows(seat, guesses)
                unasked = last - seat.read
                ready.append((seat, guesses, read))
        if not ready:
            return []
        wanted = any(seat.stream.attention for seat, _, _ in ready)
        logits, attention = self.decoder.step(rows, wanted, unasked)
        if self.decoder.compiled and not any(seat.stream.asks_torch for seat, _, _ in ready):
            return self._take(ready, logits, attention)
        with torch_threads(1):  # another would spin for a while, in the way of the next step's
            return self._take(ready, logits, attention)

    def _alone(self) -> _Seat | None:
        """The text that is alone, if nothing but its last token is to be read and it can go on by
        itself."""
        if len(self._seats) != 1:
            return None
        [seat] = self._seats.values()
        stream = seat.stream
        read = seat.start == stream.visible_from() and seat.start + seat.read + 1 == len(stream.ids)
        goes = stream.goes_on_alone and not stream.paused and self.decoder.steps_onward
        return seat if read and goes else None

    def _go_on(self, seat: _Seat) -> list[Step]:
        """Several steps, which the decoder takes by itself."""
        stream, before = seat.stream, len(seat.stream.ids)
        going, steps = stream.going(self.decoder.steps_onward), []
        drawn = self.decoder.go_on(seat.slot, seat.read, going, stream.attention)
        try:
            steps = stream.take_drawn(drawn)
        except Exception as error:
            stream.fail(error)
        # all were read but the last; some may have come too late
        seat.read = min(before + len(drawn.tokens) - 1, len(stream.ids)) - seat.start
        if stream.finish:
            self.leave(stream)
        return steps

    def _read_on(self, seat: _Seat, text: list[int], budget: int, left: int) -> int:
        """Reads what comes next of a window but for the `left` last tokens, `budget` of it at most;
        what another slot holds is copied. Returns what of the budget that took."""
        copied = self.decoder.copy(seat.slot, text, seat.read, self._held()) - seat.read
        seat.read += copied
        took = copied // AS_ONE
        end = max(seat.read, min(seat.read + budget - took, len(text) - left))
        if new := text[seat.read : end]:
            self.decoder.read(seat.slot, new, seat.read)
            seat.read += len(new)
        return took + len(new)

    def _held(self) -> dict[int, list[int]]:
        """The tokens that all slots hold."""
        seats = self._seats.values()
        held = {s.slot: s.stream.ids[s.start : s.start + s.read] for s in seats}
        return held | self.decoder.free

    def _rows(self, seat: _Seat, more: list[int]) -> list[Row]:
        """The tokens of a text that are not read yet, and more after them."""
        tokens = [*seat.stream.ids[seat.start + seat.read :], *more]
        return [Row(token, seat.slot, i) for i, token in enumerate(tokens, seat.read)]

    def _take(
        self,
        ready: list[tuple[_Seat, list[int], list[Any]]],
        logits: np.ndarray,
        attention: list[np.ndarray] | None,
    ) -> list[tuple[Stream, list[Step]]]:
        taken, first = [], 0
        compiled = self.decoder.compiled
        picked = _picked([(seat.stream, guesses) for seat, guesses, _ in ready], logits, compiled)
        for seat, guesses, branches in ready:
            stream, mine = seat.stream, slice(first, first + 1 + len(guesses))
            first = mine.stop
            shown = attention[mine] if attention and stream.attention else None
            # a step that is kept may keep wrong guesses of its text, but nothing of others
            own = logits[mine] if len(ready) == 1 else logits[mine].copy()
            before = len(stream.ids)
            try:
                first_draw = picked.get(stream)
                steps = stream.take(guesses, own, shown, branches, first_draw, compiled)
                taken.append((stream, steps))
            except Exception as error:
                stream.fail(error)
                taken.append((stream, []))
            # Read are the tokens before, and of the guesses those that came true.
            right = takewhile(lambda pair: pair[0] == pair[1], zip(guesses, stream.ids[before:]))
            seat.read = before - seat.start + len(list(right))
            if stream.finish:
                self.leave(stream)
        return taken


def _picked(
    ready: list[tuple[Stream, list[int]]], logits: np.ndarray, compiled: bool
) -> dict[Stream, tuple[int, float]]:
    """The next token and its log-probability, drawn at once for streams that read one token and
    share their knobs with others, but for those whose draw fails: it ends their own stream."""
    alike: dict[Sampling, list[tuple[Stream, int]]] = {}
    row = 0
    for stream, guesses in ready:
        if stream.plain and not guesses:
            alike.setdefault(stream.sampling, []).append((stream, row))
        row += 1 + len(guesses)
    picked: dict[Stream, tuple[int, float]] = {}
    for sampling, members in alike.items():
        if len(members) > 1:
            streams, rows = zip(*members, strict=True)
            some = logits if len(rows) == len(logits) else logits[list(rows)]  # (members, V)
            shares = [stream.share() for stream in streams]
            try:
                draws = drawn(some, sampling, shares, compiled=compiled)
            except UserError:  # of one of them, or of all
                draws = [_draw_or_none(*one, sampling, compiled) for one in zip(some, shares)]
            picked |= {s: draw for s, draw in zip(streams, draws, strict=True) if draw}
    return picked


def _draw_or_none(
    logits: np.ndarray, share: float, sampling: Sampling, compiled: bool
) -> tuple[int, float] | None:
    try:
        return drawn(logits[None], sampling, [share], compiled=compiled)[0]
    except UserError:
        return None
