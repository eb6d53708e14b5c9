"""A text as it grows: what the browser is told about it, and how often."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import Any

from ptx.engine import Engine, Generation
from ptx.playground.recordings import Recordings
from ptx.playground.request import Request
from ptx.playground.served import Served
from ptx.playground.syntax import Watch
from ptx.playground.transcript import Transcript
from ptx.stream import UNCHECKED, Step, prompt_notes, python_notes, window_notes

PAUSE, LONG_PAUSE = 0.1, 0.25
"""Seconds between two frames: what drawing takes the writing lacks on one machine."""
READABLE = 20
"""Tokens in a pause from which on it is the long one: nobody reads them as they come."""
PLACES_PER_SECOND = 20
"""How often is looked whether a text that waits has its turn, at least."""
ADMISSION = 0.03
"""Seconds that the engine may take to let a text in when it has room: that is no waiting."""


class LiveText:
    """A text being written, and what the browser is told about it."""

    def __init__(
        self, served: Served, request: Request, recordings: Recordings, asked: float
    ) -> None:
        self.started = asked  # the clock of tokens per second
        self._served, self._seed = served, int(request.seed)
        self._written = request.prompt if isinstance(request.prompt, str) else None
        self._recordings, self._recording = recordings, recordings.new_name()
        recordings.start(self._recording)
        self._notes: list[str] = []
        if self._written is None:
            self._ids, self._n_prompt = list(request.prompt), int(request.n_prompt)
        else:
            self._ids = [served.tokenizer.eot, *served.tokenizer.encode(self._written)]
            self._n_prompt = len(self._ids)
            self._notes = prompt_notes(served.tokenizer, self._written)
        self._python = python_notes(served.tokenizer, request.prompt) if request.python else []
        self._transcript = self._begin()
        self._transcript.extend(self._ids)
        self._generated = 0
        self._watch = Watch()

    def _begin(self) -> Transcript:
        return Transcript(self._served.tokenizer, self._written or "")

    def take(self, generation: Generation, step: Step) -> None:
        """One more token."""
        if step.token is None:
            return
        if not self._generated and self._written is not None:
            # only now it is certain which tokens the prompt is read as
            self._transcript, self._n_prompt = self._begin(), generation.n_prompt
        if not self._generated:
            # again: others may have filled them while it waited
            self._recordings.start(self._recording)
        self._generated += 1
        self._ids = generation.ids
        self._python = self._python or [UNCHECKED] * step.unchecked
        chosen = bool(step.choice.sampling.forced)
        bits = -step.choice.logprob(step.token) / math.log(2)
        probability = None if chosen else math.exp(step.logprob)
        self._transcript.extend(self._ids, probability, bits, step.choice)
        self._recordings.add(self._recording, step, len(self._ids) - 1)
        if self._watch.due:
            self._parse()

    def end(self) -> None:
        self._transcript.close()
        self._parse()

    def _parse(self) -> None:
        self._watch.look(self._served.tokenizer.text(self._ids))

    def frame(self, place: int = 0, finish: str | None = None) -> dict[str, Any]:
        """place: how many texts are before this one; 0 once it is being written."""
        seconds = max(time.monotonic() - self.started, 1e-9)
        window = window_notes(len(self._ids), self._served.context)
        return {
            "recording": self._recording,
            "continued": self._written is None,
            "prompt": self._n_prompt,
            "lines": self._transcript.lines,
            "generated": self._generated,
            "rate": self._generated / seconds,
            "seed": self._seed,
            "place": place,
            "finish": finish,
            "syntax": self._watch.state,
            "notes": self._notes + self._python + window,
        }


def frames(
    served: Served,
    request: Request,
    recordings: Recordings,
    due: Callable[[], bool] = lambda: True,
) -> Iterator[dict[str, Any]]:
    """The prompt, then the text after every token, or where a frame is `due`: others are not made.
    The last one says why it ended. A text that has to wait says how many are before it. Where the
    heads look goes to `recordings`."""
    legs = request.legs(served.engine)
    asked = time.monotonic()
    generation = next(legs)  # refuses what cannot be done
    text = LiveText(served, request, recordings, asked)
    while generation:
        try:
            for place in waiting(served.engine, generation):
                if due():
                    yield text.frame(place)
                text.started = time.monotonic()
            if due():
                yield text.frame()
            for step in generation:
                text.take(generation, step)
                if due():
                    yield text.frame()
        finally:  # a reader who leaves lets the next one in
            generation.cancel()
        finish = generation.finish
        generation = next(legs, None)
    text.end()
    yield text.frame(finish=finish)


def waiting(engine: Engine, generation: Generation) -> Iterator[int]:
    """How many texts are before this one, when that changes and once a second, until its turn
    comes: a frame costs the page a millisecond."""
    told, due, pause = 0, time.monotonic() + ADMISSION, 0.001
    while place := engine.place(generation):
        now = time.monotonic()
        if now >= due and (place != told or now >= due + 1):
            told, due = place, now
            yield place
        time.sleep(pause)
        pause = min(2 * pause, 1 / PLACES_PER_SECOND)


class Pace:
    """Which of many items are shown: those between which a pause has passed, and the first two, a
    prompt and its first token. The browser is the slow one."""

    def __init__(self) -> None:
        self._at_once, self._shown, self._passed = 2, 0.0, 0

    def due(self) -> bool:
        """Whether the next item is."""
        self._passed += 1
        pause = LONG_PAUSE if self._passed >= READABLE else PAUSE
        now = time.monotonic()
        if not self._at_once and now - self._shown < pause:
            return False
        self._at_once, self._shown, self._passed = max(0, self._at_once - 1), now, 0
        return True


def throttled(items: Iterator[Any]) -> Iterator[Any]:
    """Those that a `Pace` wants, and always the last."""
    pace, held = Pace(), None
    for held in items:
        if pace.due():
            yield held
            held = None
    if held is not None:
        yield held
