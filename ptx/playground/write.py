"""Write: a prompt, the knobs of sampling, and the text as it grows."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import gradio as gr

from ptx.engine import Engine, Generation
from ptx.errors import UserError
from ptx.playground.answers import is_number
from ptx.playground.limits import LIMITS, Rate
from ptx.playground.models import FIRST as FIRST_MODEL
from ptx.playground.models import Models
from ptx.playground.recordings import Recordings
from ptx.playground.served import Served
from ptx.playground.syntax import Watch, syntax
from ptx.playground.transcript import Transcript
from ptx.playground.web import panel
from ptx.sampling import USUAL, Sampling
from ptx.stream import PROMPT_LIMIT, Limits, Step, prompt_notes, python_notes, window_notes

MAX_SEED = 2**32 - 1
PAUSE, LONG_PAUSE = 0.1, 0.25
"""Seconds between two frames: what drawing takes the writing lacks on one machine."""
READABLE = 20
"""Tokens in a pause from which on it is the long one: nobody reads them as they come."""
PLACES_PER_SECOND = 20
"""How often is looked whether a text that waits has its turn, at least."""
ADMISSION = 0.03
"""Seconds that the engine may take to let a text in when it has room: that is no waiting."""
LONGEST = LIMITS.prompt_bytes
"""Bytes of a prompt, or its tokens."""
TEXT_LIMIT = 16 * LONGEST
"""Characters of a text whose syntax is asked for: a prompt and what was written after it."""

EXAMPLES = {
    "function": "def count_words(text):",
    "class": 'class Stack:\n    """A last-in, first-out collection."""\n\n    def __init__(self):',
    "test": "import unittest\n\n\nclass TestStack(unittest.TestCase):\n    def test_push(self):",
    "docstring": 'def read_config(path, encoding="utf-8"):\n    """',
    "loop": "for name, value in sorted(counts.items()):\n    if ",
    "comment to code": "import os\n\n\n# Return the names of all files in a directory.\ndef ",
}
FIRST = EXAMPLES["function"]


@dataclass(frozen=True)
class Request:
    """A text that a person asks for, as it arrives from the page or the API: checked by `legs`."""

    prompt: str | Sequence[int]
    """A text, which may end anywhere; or the ids of one that goes on."""
    n_prompt: int = 0
    """How many of the ids a person wrote."""
    first: int | None = None
    """The token to begin with; None leaves that to the sampler."""
    temperature: float = USUAL.temperature
    top_k: int = 0
    top_p: float = USUAL.top_p
    min_p: float = USUAL.min_p
    repetition_penalty: float = 1.0
    length: int = 200
    seed: int = 0
    python: bool = False

    @classmethod
    def read(cls, prompt: Any, data: Any) -> Request:
        """What the browser sends beside the content of its editor. Raises UserError for what is
        not a request; its own `prompt`, a text or ids, comes before the editor's."""
        if not isinstance(data, dict):
            raise UserError("a request is an object")
        names = {field.name for field in fields(cls)}
        known = {name: value for name, value in data.items() if name in names}
        start = data.get("prompt", prompt) or ""
        if not isinstance(start, str | list):
            raise UserError("a prompt is a text or a list of token ids")
        return cls(**known | {"prompt": start})

    def sampling(self) -> Sampling:
        """Raises UserError for a knob out of range, or one that is no number."""
        for name in ("temperature", "top_p", "min_p", "repetition_penalty"):
            if not is_number(getattr(self, name)):
                raise UserError(f"{name} must be a number")
        for name, low, high in (
            ("top_k", 0, MAX_SEED),
            ("length", 1, LIMITS.new_tokens),
            ("seed", 0, MAX_SEED),
            ("n_prompt", 0, PROMPT_LIMIT),
        ):
            value = getattr(self, name)
            if not isinstance(value, int | float) or value != value or not low <= value <= high:
                raise UserError(f"{name} must be a whole number between {low} and {high:,}")
        return Sampling(
            float(self.temperature),
            int(self.top_k),
            float(self.top_p),
            float(self.min_p),
            float(self.repetition_penalty),
            python=self.python,
        )

    def legs(self, engine: Engine) -> Iterator[Generation]:
        """The generations that write the text, each to be read to its end before the next is asked
        for: the last one, and before it the token that a person chose, if there is one, placed
        where it can follow an open end. Raises UserError for a knob out of range and for a prompt
        that cannot be read."""
        sampling, seed, prompt = self.sampling(), int(self.seed), self.prompt
        limits = Limits(int(self.length), LIMITS.seconds)
        text = isinstance(prompt, str)
        size = len(prompt.encode("utf-8", "replace")) if text else len(prompt)
        if size > LONGEST:
            what = "bytes" if text else "tokens"
            raise UserError(
                f"the prompt has {size:,} {what} and at most {LONGEST:,} are read: shorten it"
            )
        if self.first is not None:
            if type(self.first) is not int:
                raise UserError("the first token must be a whole number")
            opening = engine.generate(
                prompt, Sampling(1.0, forced=(self.first,)), Limits(1), seed, attention=True
            )
            yield opening
            if opening.finish != "length":  # it was the end of the text
                return
            prompt = opening.ids
        yield engine.generate(prompt, sampling, limits, seed, attention=True)


class Growing:
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
        if request.python:
            self._notes += python_notes(served.tokenizer, request.prompt)
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
            "notes": self._notes + window_notes(len(self._ids), self._served.context),
        }


def frames(served: Served, request: Request, recordings: Recordings) -> Iterator[dict[str, Any]]:
    """The prompt, then the text after every token; the last frame says why it ended. A text that
    has to wait says how many are before it. Where the heads look goes to `recordings`."""
    legs = request.legs(served.engine)
    asked = time.monotonic()
    generation = next(legs)  # refuses what cannot be done
    text = Growing(served, request, recordings, asked)
    while generation:
        try:
            for place in waiting(served.engine, generation):
                yield text.frame(place)
                text.started = time.monotonic()
            yield text.frame()
            for step in generation:
                text.take(generation, step)
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


def throttled(items: Iterator[Any]) -> Iterator[Any]:
    """Those between which a pause has passed, but for the first two, a prompt and its first token,
    and always the last: the browser is the slow one."""
    at_once, shown, held, passed = 2, 0.0, None, 0
    for item in items:
        held, passed = item, passed + 1
        pause = LONG_PAUSE if passed >= READABLE else PAUSE
        if at_once or time.monotonic() - shown >= pause:
            yield item
            at_once, shown, held, passed = max(0, at_once - 1), time.monotonic(), None, 0
    if held is not None:
        yield held


@dataclass(frozen=True)
class Controls:
    """The components of the panel that take part in an event."""

    prompt: gr.Code
    write: gr.HTML
    """Buttons, and the text as it comes."""


def build() -> Controls:
    """Lays the panels out; `connect` brings them to life."""
    prompt = gr.Code(
        FIRST,
        language="python",
        lines=5,
        max_lines=16,
        interactive=True,
        label="Prompt (Esc, then Tab leaves it)",
        elem_id="prompt",
        wrap_lines=True,
        buttons=[],
    )

    def parse(request: Any) -> dict[str, Any]:
        return parsed(request)

    facts = {"examples": EXAMPLES, "prompt": FIRST, "longest": LONGEST}
    write = panel("write", facts, server=[parse])
    panel("text")
    panel("bench")
    panel("knobs", {"length": LIMITS.new_tokens, "seed": MAX_SEED})
    return Controls(prompt, write)


def parsed(request: Any) -> dict[str, Any]:
    """`syntax` of `{"text"}`, from any client."""
    text = request.get("text") if isinstance(request, dict) else None
    if not isinstance(text, str) or len(text) > TEXT_LIMIT:
        return {"error": f"parse takes a text of at most {TEXT_LIMIT:,} characters"}
    return syntax(text)


def connect(models: Models, controls: Controls, recordings: Recordings) -> None:
    """Generate, Continue and branches; Stop; the editor, which follows when a text is undone."""
    write, prompt = controls.write, controls.prompt
    rate = Rate(LIMITS.per_minute)

    def on_generate(
        written: str, event: gr.EventData, sender: gr.Request
    ) -> Iterator[dict[str, Any]]:
        data = getattr(event, "request", None)
        asked = {"asked": data.get("asked") if isinstance(data, dict) else None}
        try:
            rate.admit(visitor(sender))
            request = Request.read(written, data)
            served = models.get(data.get("model", FIRST_MODEL))
            for frame in throttled(frames(served, request, recordings)):
                yield frame | asked
        except UserError as error:
            yield asked | {"error": str(error)}

    run = write.submit(
        on_generate,
        prompt,
        write,
        show_progress="hidden",
        # the engine has a queue of its own, which knows the place of everyone in it
        concurrency_limit=None,
        # one at a time is this page's own rule: what Gradio still takes for running may have ended
        trigger_mode="multiple",
        api_visibility="private",
    )
    browser = {"api_visibility": "private", "show_progress": "hidden"}
    # also after Stop, which ends `on_generate` wherever it was
    run.then(None, js="() => ptx.writing.ended()", **browser)
    run.failure(None, js="() => ptx.writing.failed()", **browser)
    write.stop(None, cancels=[run], api_visibility="private")
    # in the browser, because gr.Code strips what the server sends
    write.edit(None, js="() => ptx.writing.editor", outputs=prompt, **browser)
    prompt.change(None, prompt, js="(text) => ptx.writing.edited(text)", **browser)
    expose(models, rate)


def growing(legs: Iterator[Generation]) -> Iterator[str]:
    """What comes after the prompt, longer with every token."""
    text = ""
    for generation in legs:
        try:
            for step in generation:
                text += step.text
                yield text
        finally:  # a reader who leaves lets the next one in
            generation.cancel()
    yield text


def visitor(sender: gr.Request) -> str:
    """Who asks, by address; on a Space, by the one that its proxy appended: what a sender wrote
    into that header itself stands before it."""
    named = sender.headers.get("x-forwarded-for") if os.environ.get("SYSTEM") == "spaces" else None
    return (named or sender.client.host).split(",")[-1].strip()


def expose(models: Models, rate: Rate) -> None:
    """The same for programs: the endpoint /generate."""

    def generate(
        prompt: str,
        sender: gr.Request,
        temperature: float = USUAL.temperature,
        top_k: int = 0,
        top_p: float = USUAL.top_p,
        length: int = 200,
        seed: int = 0,
        min_p: float = USUAL.min_p,
        repetition_penalty: float = 1.0,
        model: str = FIRST_MODEL,
        python: bool = False,
    ) -> Iterator[str]:
        """Continues a piece of Python: what comes after the prompt, again and again as it grows.
        The last one is whole. With `python` it stays such that Python's parser can go on."""
        request = Request(
            prompt or "",
            0,
            None,
            temperature,
            top_k,
            top_p,
            min_p,
            repetition_penalty,
            length,
            seed,
            python,
        )
        try:
            rate.admit(visitor(sender))
            engine = models.get(model).engine
            yield from throttled(growing(request.legs(engine)))
        except UserError as error:
            raise gr.Error(str(error), print_exception=False) from None

    gr.api(generate, api_name="generate", concurrency_limit=None)
