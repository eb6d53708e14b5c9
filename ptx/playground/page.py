"""The page, put together from its panels."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import gradio as gr

from ptx.playground import card, programs, training, write
from ptx.playground.library import Library
from ptx.playground.limits import LIMITS, Rate
from ptx.playground.models import Models
from ptx.playground.reading import Reading
from ptx.playground.recordings import Recordings
from ptx.playground.training import Training
from ptx.playground.web import css, head, panel

SANS = ("ui-sans-serif", "system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")
MONO = ("ui-monospace", "SFMono-Regular", "JetBrains Mono", "Menlo", "Consolas", "DejaVu Sans Mono",
        "monospace")  # fmt: skip
CROWD = 200
"""Requests over the limits that are refused side by side, each with its sentence. Those beyond are
Gradio's to refuse, with fewer words."""
LOOK = 0.005
"""Seconds between two looks of Gradio's queue for a request. Its own, 0.001, take 6 % of a core
while nobody asks, and Python's lock from the engine; these take 2 %."""
RARELY = 0.1
"""Seconds between two looks for an event's progress (Gradio's own: 0.01): none here has any."""


def build(models: Models, trainer: Training | None = None) -> gr.Blocks:
    """The whole page, with its queue; `launch` it with `launch_options()`.

    trainer: what the Training tab works with, for who wants to end it; one with the data beside
        the runs if left out.
    """
    trainer = trainer or Training(models.first, models.runs, Library(models.runs.parent / "data"))
    served = models.first
    served.start_engine()
    served.get_ready()
    recordings = Recordings()
    reading = Reading(models, recordings)
    with gr.Blocks(title="P-Transformer", analytics_enabled=False) as page:
        header = card.build_header(models, trainer.runs)
        panel("reading", server=[reading.door()])
        with gr.Tabs():
            with gr.Tab("Write", id="write"):
                panel("hints")
                with gr.Row(elem_id="bench", equal_height=False):
                    with gr.Column(scale=5, min_width=320):
                        controls = write.build()
                    with gr.Column(scale=6, min_width=320):
                        panel("heads")
                        panel("why")
            with gr.Tab("Training", id="training"):
                training.build(trainer)
            with gr.Tab("Model", id="model"):
                card.build(models, header)
        texts = Rate(LIMITS.per_minute)
        write.connect(models, controls, recordings, texts)
        programs.expose(reading, trainer.runs, texts)
    # texts only pass through, to the engine's queue, but in a crowd many do at once
    page.queue(max_size=LIMITS.queue + CROWD)
    page._queue.sleep_when_free = LOOK
    page._queue.progress_update_sleep_when_free = RARELY
    return page


def launch_options() -> dict[str, Any]:
    """What `launch` needs for this page to look and behave as meant."""
    return {
        "theme": gr.themes.Base(
            primary_hue="teal",
            neutral_hue="zinc",
            radius_size="md",
            spacing_size="sm",
            font=SANS,
            font_mono=MONO,
        ).set(  # darker than the default, for white text on it and for thin lines
            color_accent="*primary_600",
            slider_color="*primary_600",
            button_primary_background_fill="*primary_700",
            button_primary_background_fill_hover="*primary_600",
            button_primary_background_fill_dark="*primary_700",
            button_primary_background_fill_hover_dark="*primary_600",
        ),
        "css": css(),
        "head": head(),
        "footer_links": ["api", "gradio", "settings"],
        "run_history": False,  # it would write every attention map to the browser's storage
        "ssr_mode": False,
        # A text has a thread from its asking to its end, also while it waits: with fewer threads it
        # would wait for one unseen, and so would whoever is only to be refused.
        "max_threads": LIMITS.streams + LIMITS.queue + CROWD,
        # the same endpoints as tools for a language model, where `pip install gradio[mcp]` was done
        "mcp_server": find_spec("mcp") is not None,
        "quiet": True,
    }
