"""Write: a prompt, the knobs of sampling, and the text that comes of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr

from ptx.errors import UserError
from ptx.playground.limits import LIMITS, Rate, visitor
from ptx.playground.live import Pace, frames
from ptx.playground.models import FIRST as FIRST_MODEL
from ptx.playground.models import Models
from ptx.playground.recordings import Recordings
from ptx.playground.request import LONGEST, MAX_SEED, Request
from ptx.playground.syntax import syntax
from ptx.playground.web import panel

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


def connect(models: Models, controls: Controls, recordings: Recordings, rate: Rate) -> None:
    """Generate, Continue and branches; Stop; the editor, which follows when a text is undone.
    rate: of texts, those that programs ask for included."""
    write, prompt = controls.write, controls.prompt

    def on_generate(
        written: str, event: gr.EventData, sender: gr.Request
    ) -> Iterator[dict[str, Any]]:
        data = getattr(event, "request", None)
        asked = {"asked": data.get("asked") if isinstance(data, dict) else None}
        try:
            rate.admit(visitor(sender))
            request = Request.read(written, data)
            served = models.get(data.get("model", FIRST_MODEL))
            for frame in frames(served, request, recordings, Pace().due):
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
