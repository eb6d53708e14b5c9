"""Generation: one text, or many at once through a batch that they join and leave between steps.

    for step in generate(model, tokenizer, "def fibonacci(n):"):
        print(step.text, end="")

An `Engine` serves many readers from one thread: each text advances by one step in turn, or by a few
where it is alone, a slow reader holds nobody, and who does not fit in waits, or is refused when too
many wait.

A text that is far ahead of its reader pauses. While others wait, it gives them its slot; once its
reader has caught up, it waits for one like everybody, and goes on where it was. If more texts than
may wait have given their slots, the one that did first ends ("not read").

The same seed gives the same text alone and among others, bit for bit, where the compiled step runs
(`ptx.decoder`). torch's operations, on a GPU, in bf16 or until it is compiled, round a row's sums
by how many rows there are, and by how many threads take part: a draw right between two roundings,
rare in fp32 and not in bf16, gives another token.
"""

from __future__ import annotations

import atexit
import queue
import threading
import weakref
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from typing import Any

from ptx.batch import Batch
from ptx.decoder import Decoder
from ptx.errors import UserError
from ptx.model import GPT
from ptx.sampling import Sampling
from ptx.stream import Limits, Step, Stream
from ptx.tokenizer import Tokenizer

AHEAD = 64
"""Steps that a text may be ahead of its reader before it is paused: they hold their logits."""
PAUSE = 0.01
"""Seconds between two looks whether a reader has caught up, when all are behind."""


class Generation:
    """A text that grows while it is iterated over; each step is one token.

    ids: every token so far: end-of-text, the prompt as the model reads it, what was generated.
    n_prompt: how many of them belong to the prompt.
    finish: why it ended, or None.
    unchecked: whether the last step was (`ptx.stream.Step`).
    """

    def __init__(self, stream: Stream, steps: Generator[Step, None, None]) -> None:
        """stream: one that nothing works on yet."""
        self.ids, self.n_prompt = list(stream.ids), stream.n_prompt
        self._open = stream.prompt_ids()[self.n_prompt :]
        """The prompt's own end, until a step says how it is read."""
        self._stream, self._steps = stream, steps
        self._cancelled = False
        self.finish: str | None = None
        self.unchecked = False

    def __iter__(self) -> Iterator[Step]:
        return self

    def __next__(self) -> Step:
        try:
            step = None if self._cancelled else next(self._steps, None)
        except Exception:
            self._end()
            raise
        if step is None or self._cancelled:
            self._end()
            raise StopIteration
        self._open = []
        self.n_prompt += len(step.settled)
        self.ids += step.settled
        if step.token is not None:
            self.ids.append(step.token)
            self.unchecked = step.unchecked
        return step

    def _end(self) -> None:
        """Takes over what no step brought: a prompt's end that was never gone beyond."""
        self._steps.close()
        self.finish = self.finish or ("cancelled" if self._cancelled else self._stream.finish)
        # a cancelled text may be further than its reader, or still on its way
        rest = self._open if self._cancelled else self._stream.prompt_ids()[self.n_prompt :]
        self.ids += rest
        self.n_prompt += len(rest)
        self._open = []

    def cancel(self) -> None:
        """Ends it now, from any thread: no further step comes."""
        self._cancelled = True
        self._stream.cancel()


def generate(
    model: GPT,
    tokenizer: Tokenizer,
    prompt: str | Sequence[int],
    sampling: Sampling | None = None,
    limits: Limits | None = None,
    seed: int = 0,
    decoder: Decoder | None = None,
    **options: bool,
) -> Generation:
    """Continues `prompt`, token by token, in the caller's thread. The same seed gives the same
    text.

    prompt: a text, which may end anywhere; or the `ids` of another generation, up to any of them,
        which stay as they are.
    decoder: for `model`, kept from an earlier call; a fresh one if left out. ValueError if it is
        another model's, or if others use all its slots.
    options: attention, speculate: see `Stream`.
    Raises UserError for a prompt that is too long or holds a NUL, for ids that are not those of a
    text, and for impossible limits.
    """
    stream = Stream(tokenizer, model.config.context, prompt, sampling, limits, seed, **options)
    if decoder and decoder.model is not model:
        raise ValueError("the decoder is another model's")

    def steps() -> Generator[Step, None, None]:
        batch = Batch(decoder or Decoder(model))
        batch.join(stream)
        try:
            while not stream.finish:
                for _, new in batch.step():
                    yield from new
            if stream.error:
                raise stream.error
        finally:
            batch.leave(stream)

    return Generation(stream, steps())


class Busy(UserError):
    """Too many texts are waiting already."""


class Engine:
    """Many texts at once, each read at its reader's own pace. Close it, or use it in a `with`."""

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
            apart = {"apart": True}
            threading.Thread(
                target=decoder.compile, kwargs=apart, name="compile", daemon=True
            ).start()
        self._batch = Batch(decoder)
        self._waiting: deque[Stream] = deque()
        self._parked: deque[Stream] = deque()
        """Paused texts that gave their slots to others, in that order."""
        self._queues: dict[Stream, queue.SimpleQueue[Any]] = {}
        self._changed = threading.Condition()
        self._closed = self._retired = False
        self._start()

    def _start(self) -> None:
        self._thread: threading.Thread | None = threading.Thread(
            target=self._work, name="engine", daemon=True
        )
        self._thread.start()
        # A thread that computes while the interpreter is taken down would abort the process.
        atexit.register(self.close)

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def generate(
        self,
        prompt: str | Sequence[int],
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
        steps: queue.SimpleQueue[Any] = queue.SimpleQueue()
        generation = Generation(stream, _drain(steps))
        with self._changed:
            if self._closed:
                raise UserError("the engine is closed")
            waiting = sum(not stream.finish for stream in self._waiting)
            if waiting >= self._batch.free + self.most_waiting:
                raise Busy(
                    f"{self._batch.decoder.slots} texts are being written and {self.most_waiting} "
                    "wait already: try again in a moment"
                )
            self._queues[stream] = steps
            self._waiting.append(stream)
            if self._thread is None:
                self._start()
            self._changed.notify()
        # Nobody reads it any more. This may run at any moment in any thread: it takes no lock.
        weakref.finalize(generation, stream.cancel)
        return generation

    def place(self, generation: Generation) -> int:
        """How many texts are before this one in the queue; 0 once it is being written."""
        with self._changed:
            waiting = [stream for stream in self._waiting if not stream.finish]
        stream = generation._stream
        return waiting.index(stream) + 1 if stream in waiting else 0

    def close(self) -> None:
        """Ends all texts, and the thread."""
        with self._changed:
            self._closed, thread = True, self._thread
            self._changed.notify()
        if thread:
            thread.join()
        atexit.unregister(self.close)

    def retire(self) -> None:
        """From now on the thread ends whenever nothing is to be written, and nothing but its users
        keeps the engine in memory. Its texts go on, and new ones may still be asked for."""
        with self._changed:
            self._retired = True
            self._changed.notify()

    def _work(self) -> None:
        while True:
            with self._changed:
                while not (self._closed or self._queues):
                    if self._retired:
                        self._thread = None
                        atexit.unregister(self.close)
                        return
                    self._changed.wait()
                self._admit()
                if self._closed:
                    return
            try:
                taken = self._batch.step()
            except Exception as error:  # of the decoder: nobody may wait for ever
                for stream in self._batch.streams:
                    stream.fail(error)
                taken = []
            for stream, steps in taken:
                for step in steps:
                    self._queues[stream].put(step)
            self._finish()
            if not taken:  # all are paused, or their prompts are being read
                self._let_readers_catch_up()

    def _admit(self) -> None:
        """Lets waiting streams in, first come first served."""
        self._waiting = deque(stream for stream in self._waiting if not stream.finish)
        for stream in list(self._parked):
            if self._queues[stream].qsize() <= AHEAD // 2:  # worth coming back for
                self._parked.remove(stream)
                self._waiting.append(stream)
        while self._waiting and (self._batch.free or self._closed or self._park_one()):
            stream = self._waiting.popleft()
            if not (stream.finish or self._closed):
                self._batch.join(stream)
        for stream in self._queues if self._closed else ():
            stream.cancel()
        self._finish()

    def _park_one(self) -> bool:
        """Takes its slot from a text that waits for its reader, if there is any."""
        stream = next((stream for stream in self._batch.streams if stream.paused), None)
        if stream:
            self._batch.leave(stream)
            self._parked.append(stream)
            if len(self._parked) > self.most_waiting:
                first = self._parked.popleft()
                for step in first.end("not read"):
                    self._queues[first].put(step)
        return stream is not None

    def _finish(self) -> None:
        """Tells the readers of finished streams, and pauses those of slow ones."""
        # Of the keys alone a list is made at once: `generate` may add one at any moment.
        for stream in list(self._queues):
            steps = self._queues[stream]
            stream.paused = steps.qsize() >= AHEAD
            if stream.finish:
                self._batch.leave(stream)
                if stream in self._parked:
                    self._parked.remove(stream)
                del self._queues[stream]
                steps.put(stream.error)

    def _let_readers_catch_up(self) -> None:
        with self._changed:
            idle = self._queues and not (self._waiting or self._closed)
            if idle and all(stream.paused for stream in self._batch.streams):
                self._changed.wait(PAUSE)


def _drain(steps: queue.SimpleQueue[Any]) -> Generator[Step, None, None]:
    """What is put into the queue, until None ends it or an exception."""
    while (step := steps.get()) is not None:
        if isinstance(step, Exception):
            raise step
        yield step
