"""Generation: one text, or many at once through a batch that they join and leave between steps.

    for step in generate(model, tokenizer, "def fibonacci(n):"):
        print(step.text, end="")

An `Engine` serves many readers from one thread: each text advances by one step in turn, a slow
reader holds nobody, and who does not fit in waits, or is refused when too many wait.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from typing import Any

from torch import Tensor

from ptx.decoder import Decoder, Row, torch_threads
from ptx.errors import UserError
from ptx.lookup import GUESSES
from ptx.model import GPT
from ptx.sampling import Sampling
from ptx.stream import Limits, Step, Stream
from ptx.tokenizer import Tokenizer

READ_AT_ONCE = 256
"""Prompt tokens that are read between two steps: no long prompt holds the others for long."""
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
        self._free = list(range(decoder.slots))
        self._seats: dict[Stream, _Seat] = {}

    @property
    def free(self) -> int:
        """Slots without a stream."""
        return len(self._free)

    @property
    def streams(self) -> list[Stream]:
        """Those that take part, in the order they came."""
        return list(self._seats)

    def join(self, stream: Stream) -> None:
        """Takes a slot for `stream`; ValueError if none is free."""
        if not self._free:
            raise ValueError("no slot is free")
        self._seats[stream] = _Seat(stream, self._free.pop())

    def leave(self, stream: Stream) -> None:
        """Gives the slot of `stream` back; nothing happens if it has none."""
        if seat := self._seats.pop(stream, None):
            self._free.append(seat.slot)

    def step(self) -> list[tuple[Stream, list[Step]]]:
        """Reads what is new in every stream and takes its next tokens; finished streams leave.

        Prompts are read in parts; a stream whose turn has not come yet is left out.
        """
        budget, ready, rows = READ_AT_ONCE, [], []
        most = GUESSES if len(self._seats) <= FEW else 0
        for seat in self._seats.values():
            stream = seat.stream
            if seat.start != (start := stream.visible_from()):
                seat.start, seat.read = start, 0
            last = len(stream.ids) - 1 - start  # position of the newest token
            if seat.read < last and budget:
                end = min(last, seat.read + budget)
                budget -= end - seat.read
                self.decoder.read(seat.slot, stream.ids[start + seat.read : start + end], seat.read)
                seat.read = end
            if seat.read == last:
                guesses = stream.guesses(most)
                branches = [self._rows(seat, tokens) for tokens in stream.branches()]
                read = [self.decoder.step(branch, stream.attention) for branch in branches]
                rows += self._rows(seat, guesses)
                ready.append((seat, guesses, read))
        if not ready:
            return []
        wanted = any(seat.stream.attention for seat, _, _ in ready)
        logits, attention = self.decoder.step(rows, wanted)
        with torch_threads(1):  # a row of logits is too little for several
            return self._take(ready, logits, attention)

    def _rows(self, seat: _Seat, more: list[int]) -> list[Row]:
        """The newest token of a text, and more after it."""
        ids, last = seat.stream.ids, len(seat.stream.ids) - 1 - seat.start
        return [Row(token, seat.slot, last + i) for i, token in enumerate([ids[-1], *more])]

    def _take(
        self,
        ready: list[tuple[_Seat, list[int], list[Any]]],
        logits: Tensor,
        attention: list[Tensor] | None,
    ) -> list[tuple[Stream, list[Step]]]:
        taken, first = [], 0
        for seat, guesses, branches in ready:
            stream, mine = seat.stream, slice(first, first + 1 + len(guesses))
            first = mine.stop
            shown = attention[mine] if attention and stream.attention else None
            before = len(stream.ids)
            taken.append((stream, stream.take(guesses, logits[mine], shown, branches)))
            # Read are the tokens before, and of the guesses those that came true.
            right = takewhile(lambda pair: pair[0] == pair[1], zip(guesses, stream.ids[before:]))
            seat.read = before - seat.start + len(list(right))
            if stream.finish:
                self.leave(stream)
        return taken


class Generation:
    """A text that grows while it is iterated over; each step is one token.

    ids: every token so far: end-of-text, the prompt as the model reads it, what was generated.
    n_prompt: how many of them belong to the prompt.
    finish: why it ended, or None.
    """

    def __init__(
        self,
        stream: Stream,
        steps: Iterator[Step],
        cancel: Callable[[], None],
    ) -> None:
        self.ids, self.n_prompt = list(stream.ids), stream.n_prompt
        self._stream, self._steps, self._cancel = stream, steps, cancel
        self._cancelled = False
        self.finish: str | None = None

    def __iter__(self) -> Iterator[Step]:
        return self

    def __next__(self) -> Step:
        step = None if self._cancelled else next(self._steps, None)
        if step is None or self._cancelled:
            self.finish = self._stream.finish
            raise StopIteration
        self.n_prompt += len(step.settled)
        self.ids += step.settled
        if step.bytes:
            self.ids.append(step.token)
        return step

    def cancel(self) -> None:
        """Ends it now, from any thread: no further step comes."""
        self._cancelled = True
        self._cancel()


def generate(
    model: GPT,
    tokenizer: Tokenizer,
    prompt: str,
    sampling: Sampling | None = None,
    limits: Limits | None = None,
    seed: int = 0,
    decoder: Decoder | None = None,
    **options: bool,
) -> Generation:
    """Continues `prompt`, token by token, in the caller's thread. The same seed gives the same
    text.

    decoder: for `model`, kept from an earlier call; a fresh one if left out.
    options: attention, speculate: see `Stream`.
    Raises UserError for a prompt that is too long or holds a NUL, and for impossible limits.
    """
    stream = Stream(tokenizer, model.config.context, prompt, sampling, limits, seed, **options)

    def steps() -> Iterator[Step]:
        batch = Batch(decoder or Decoder(model))
        batch.join(stream)
        try:
            while not stream.finish:
                for _, new in batch.step():
                    yield from new
        finally:
            batch.leave(stream)

    return Generation(stream, steps(), stream.cancel)


class Busy(UserError):
    """Too many texts are waiting already."""


class Engine:
    """Many texts at once, each read at its reader's own pace."""

    def __init__(
        self,
        model: GPT,
        tokenizer: Tokenizer,
        slots: int = 8,
        waiting: int = 32,
        native: bool | None = None,
    ) -> None:
        """slots: texts that grow together. waiting: those that may wait for a slot."""
        self.model, self.tokenizer, self.most_waiting = model, tokenizer, waiting
        decoder = Decoder(model, slots, native)
        if native is None:  # meanwhile torch's operations do it
            threading.Thread(target=decoder.compile, name="compile", daemon=True).start()
        self._batch = Batch(decoder)
        self._waiting: deque[Stream] = deque()
        self._queues: dict[Stream, queue.SimpleQueue[Any]] = {}
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)
        self._thread.start()

    def generate(
        self,
        prompt: str,
        sampling: Sampling | None = None,
        limits: Limits | None = None,
        seed: int = 0,
        **options: bool,
    ) -> Generation:
        """Continues `prompt` among others, as `generate` does alone. Raises Busy if too many
        wait."""
        stream = Stream(
            self.tokenizer, self.model.config.context, prompt, sampling, limits, seed, **options
        )
        with self._changed:
            if self._closed:
                raise UserError("the engine is closed")
            if self._batch.free + self.most_waiting <= len(self._waiting):
                raise Busy(
                    f"{self._batch.decoder.slots} texts are being written and "
                    f"{len(self._waiting)} wait already: try again in a moment"
                )
            steps: queue.SimpleQueue[Any] = queue.SimpleQueue()
            self._queues[stream] = steps
            self._waiting.append(stream)
            self._changed.notify()
        cancel = partial(self._cancel, stream)
        return Generation(stream, _drain(steps, cancel), cancel)

    def place(self, generation: Generation) -> int:
        """How many texts are before this one in the queue; 0 once it is being written."""
        with self._changed:
            waiting = list(self._waiting)
        stream = generation._stream
        return waiting.index(stream) + 1 if stream in waiting else 0

    def close(self) -> None:
        """Ends all texts, and the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _cancel(self, stream: Stream) -> None:
        with self._changed:
            stream.cancel()
            if stream in self._waiting:
                self._waiting.remove(stream)
                self._finish(stream)
            self._changed.notify()

    def _finish(self, stream: Stream, error: Exception | None = None) -> None:
        if steps := self._queues.pop(stream, None):
            steps.put(error)

    def _work(self) -> None:
        while True:
            with self._changed:
                while not (self._closed or self._waiting or self._batch.streams):
                    self._changed.wait()
                self._admit()
                if self._closed:
                    return
            try:
                taken = self._batch.step()
            except Exception as error:  # nobody may wait for ever
                for stream in self._batch.streams:
                    self._batch.leave(stream)
                    self._finish(stream, error)
                continue
            for stream, steps in taken:
                mine = self._queues.get(stream)
                for step in steps:
                    if mine:
                        mine.put(step)
                if stream.finish:
                    self._finish(stream)

    def _admit(self) -> None:
        """Lets cancelled streams go, then waiting ones in, first come first served."""
        for stream in self._batch.streams:
            if stream.finish or self._closed:
                self._batch.leave(stream)
                self._finish(stream)
        while self._waiting and (self._batch.free or self._closed):
            stream = self._waiting.popleft()
            if self._closed:
                stream.cancel()
                self._finish(stream)
            else:
                self._batch.join(stream)


def _drain(steps: queue.SimpleQueue[Any], cancel: Callable[[], None]) -> Iterator[Step]:
    """What is put into the queue, until None ends it or an exception; leaving early cancels."""
    try:
        while (step := steps.get()) is not None:
            if isinstance(step, Exception):
                raise step
            yield step
    finally:
        cancel()
