"""Write: a prompt, the knobs of sampling, and the text as it grows."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr
from gradio.components import Component

from ptx.engine import Generation
from ptx.errors import UserError
from ptx.playground.served import AT_ONCE, Served
from ptx.playground.transcript import Transcript
from ptx.playground.web import panel
from ptx.sampling import Sampling
from ptx.stream import Limits, prompt_notes, visible_from, window_notes

MAX_LENGTH = 1000
MAX_SEED = 2**32 - 1
FRAMES_PER_SECOND = 20
HEADS_EVERY = 2.0
"""Seconds between two looks at the heads while a text grows."""

EXAMPLES = {
    "function": "def fibonacci(n):",
    "class": 'class Stack:\n    """A last-in, first-out collection."""\n\n    def __init__(self):',
    "test": "import unittest\n\n\nclass TestStack(unittest.TestCase):\n    def test_push(self):",
    "docstring": 'def read_config(path, encoding="utf-8"):\n    """',
    "loop": "for name, value in sorted(counts.items()):\n    if ",
}
FIRST = EXAMPLES["function"]


@dataclass(frozen=True)
class Frame:
    """One state of the text: what the browser draws, and the tokens for the other panels."""

    view: dict[str, Any]
    ids: list[int]


@dataclass(frozen=True)
class Knobs:
    """What a person sets, as it arrives from the page or the API."""

    prompt: str
    temperature: float
    top_k: int
    top_p: float
    length: int
    seed: int

    def start(self, served: Served) -> Generation:
        """Raises UserError for a knob out of range and for a prompt that cannot be read."""
        if not 1 <= self.length <= MAX_LENGTH:
            raise UserError(f"length must lie between 1 and {MAX_LENGTH}, not {self.length}")
        if self.seed is None or not 0 <= self.seed <= MAX_SEED:
            raise UserError(f"seed must be a whole number between 0 and {MAX_SEED:,}")
        sampling = Sampling(float(self.temperature), int(self.top_k), float(self.top_p))
        limits = Limits(int(self.length))
        return served.engine.generate(self.prompt or "", sampling, limits, int(self.seed))


def frames(served: Served, knobs: Knobs) -> Iterator[Frame]:
    """The text after the prompt and after every token; the last frame says why it ended."""
    generation = knobs.start(served)
    transcript = Transcript(served.tokenizer, knobs.prompt or "")
    transcript.extend(generation.ids)
    notes = prompt_notes(served.tokenizer, knobs.prompt or "")
    run, started, generated = time.time_ns() // 1000, time.monotonic(), 0

    def frame(finish: str | None) -> Frame:
        n_tokens = len(generation.ids)
        return Frame(
            {
                "run": run,
                "lines": transcript.lines,
                "tail": transcript.tail,
                "visible_from": visible_from(n_tokens, served.context),
                "generated": generated,
                "rate": generated / max(time.monotonic() - started, 1e-9),
                "seed": int(knobs.seed),
                "finish": finish,
                "notes": notes + window_notes(n_tokens, served.context),
                "error": None,
            },
            list(generation.ids),
        )

    try:
        yield frame(None)
        for step in generation:
            if step.token is not None:
                generated += 1
                transcript.extend(generation.ids, math.exp(step.logprob))
                yield frame(None)
        transcript.close()
        yield frame(generation.finish)
    finally:  # a reader who leaves lets the next one in
        generation.cancel()


def throttled(items: Iterator[Frame], per_second: float) -> Iterator[Frame]:
    """At most so many a second by the clock, and always the last: the browser is the slow one."""
    shown, waiting = 0.0, None
    for item in items:
        waiting = item
        if (now := time.monotonic()) - shown >= 1 / per_second:
            yield item
            shown, waiting = now, None
    if waiting is not None:
        yield waiting


def stopped(frame: Frame) -> Frame:
    """The same text, ended by a person."""
    return Frame(frame.view | {"finish": "stopped"}, frame.ids)


def refused(frame: Frame | None, message: str) -> Frame:
    """What was there stays; the message joins it."""
    return Frame((frame.view if frame else {}) | {"error": message}, frame.ids if frame else [])


@dataclass(frozen=True)
class Controls:
    """The components of the panel that take part in an event."""

    inputs: list[Component]
    """In the order of the fields of `Knobs`."""
    generate: gr.Button
    stop: gr.Button
    text: gr.HTML


def build() -> Controls:
    """Lays the panel out; `connect` brings it to life."""
    prompt = gr.Code(
        FIRST,
        language="python",
        lines=5,
        max_lines=16,
        interactive=True,
        label="Prompt",
        elem_id="prompt",
        wrap_lines=True,
        buttons=[],
    )
    with gr.Row(elem_id="actions"):
        for name, text in EXAMPLES.items():
            example = gr.Button(name, size="sm", min_width=0, elem_classes="example")
            # in the browser, because gr.Code strips what the server sends
            in_browser(example, f"() => {json.dumps(text)}", prompt)
        new_seed = gr.Button("New seed", size="sm", elem_id="new-seed")
        generate = gr.Button("Generate", variant="primary", size="sm", elem_id="generate")
        stop = gr.Button("Stop", size="sm", elem_id="stop")
    with gr.Row(elem_id="knobs"):
        knobs = build_knobs()
    in_browser(new_seed, "() => Math.floor(Math.random() * 1e6)", knobs[-1])
    return Controls([prompt, *knobs], generate, stop, panel("text"))


def build_knobs() -> list[Component]:
    return [
        knob("Temperature", "Low is safe, high is wild; 0 takes the likeliest.", 0, 2, 0.8, 0.05),
        knob("Top-k", "Only the k likeliest tokens; 0 allows all.", 0, 200, 0, 1),
        knob("Top-p", "The fewest tokens with this share of probability.", 0.05, 1, 0.95, 0.01),
        knob("Length", "Stop after this many new tokens.", 1, MAX_LENGTH, 200, 1),
        gr.Number(
            0,
            precision=0,
            minimum=0,
            maximum=MAX_SEED,
            label="Seed",
            info="The same seed writes the same text.",
            elem_id="seed",
            min_width=0,
        ),
    ]


def knob(label: str, info: str, low: float, high: float, value: float, step: float) -> gr.Slider:
    return gr.Slider(
        low,
        high,
        value,
        step=step,
        label=label,
        info=info,
        elem_id=label.lower(),
        min_width=0,
        buttons=[],
    )


def in_browser(button: gr.Button, code: str, output: Component) -> None:
    """On a click, sets `output` to what a JavaScript function returns."""
    button.click(None, js=code, outputs=output, api_visibility="private")


def connect(
    served: Served,
    controls: Controls,
    heads: gr.HTML,
    look: Callable[[list[int]], dict[str, Any]],
) -> None:
    """Generate and Stop. look: token ids -> what the heads panel shows."""
    last = gr.State(None)

    def on_generate(*inputs: Any) -> Iterator[tuple[Any, Any, Frame]]:
        *values, before = inputs
        looked = 0.0
        try:
            for frame in throttled(frames(served, Knobs(*values)), FRAMES_PER_SECOND):
                due = time.monotonic() - looked >= HEADS_EVERY
                yield frame.view, look(frame.ids) if due else gr.skip(), frame
                looked = time.monotonic() if due else looked
        except UserError as error:
            gr.Warning(str(error))
            frame = refused(before, str(error))
            yield frame.view, gr.skip(), frame

    def on_end(frame: Frame | None) -> tuple[Any, Any, Any]:
        """Also after Stop, which ends `on_generate` wherever it was, and after a refusal."""
        ended = {"ended": time.time_ns()}  # a value that did not change would not be noticed
        if frame is None or not frame.ids:
            return (frame.view if frame else {}) | ended, gr.skip(), frame
        if frame.view["finish"] is None:
            frame = stopped(frame)
        return frame.view | ended, look(frame.ids), frame

    outputs = [controls.text, heads, last]
    run = controls.generate.click(
        on_generate,
        [*controls.inputs, last],
        outputs,
        show_progress="hidden",
        concurrency_limit=AT_ONCE,
        concurrency_id="text",
        api_visibility="private",
    )
    run.then(on_end, last, outputs, show_progress="hidden", api_visibility="private")
    controls.stop.click(None, cancels=[run], api_visibility="private")


def expose(served: Served) -> None:
    """The same for programs: the endpoint /generate."""

    def complete(
        prompt: str,
        temperature: float = 0.8,
        top_k: int = 0,
        top_p: float = 0.95,
        length: int = 200,
        seed: int = 0,
    ) -> str:
        """Continues a piece of Python and returns what comes after the prompt."""
        try:
            generation = Knobs(prompt, temperature, top_k, top_p, length, seed).start(served)
            return "".join(step.text for step in generation)
        except UserError as error:
            raise gr.Error(str(error)) from None

    gr.api(complete, api_name="generate", concurrency_limit=AT_ONCE, concurrency_id="text")
