"""Model: what it is, in figures and in the words of its card."""

from __future__ import annotations

import re
from typing import Any

import gradio as gr

from ptx.playground.served import Served
from ptx.playground.web import panel

# Facts of config.json that have a better name than their own; the others are shown as they are.
NAMES = {
    "val_bpb": "validation, bits per byte",
    "step": "training steps",
    "steps": "training steps",
    "tokens": "training tokens",
    "seconds": "training seconds",
    "hours": "training hours",
}
FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)
JOINER = "\u2060"
MERMAID = re.compile("(mer)(maid)", re.IGNORECASE)


def facts(served: Served) -> list[list[str]]:
    """[name, value] of everything worth knowing, for the page's header and the Model tab."""
    config = served.model.config
    rows: list[tuple[str, Any]] = [
        ("parameters", served.model.n_params()),
        ("context", config.context),
        ("vocabulary", f"{config.vocab_size:,} ({served.tokenizer.name})"),
        ("layers × heads", f"{config.n_layer} × {config.n_head}"),
        ("width", config.d_model),
    ]
    rows += [
        (NAMES.get(name, name.replace("_", " ")), value) for name, value in served.info.items()
    ]
    return [[name, _shown(value)] for name, value in rows if isinstance(value, str | int | float)]


def summary(served: Served) -> list[str]:
    """The few facts that stand beside the title."""
    config = served.model.config
    parts = [
        served.name,
        f"{_millions(served.model.n_params())} parameters",
        f"context {config.context}",
        f"vocabulary {config.vocab_size:,}",
    ]
    bpb = served.info.get("val_bpb")
    if isinstance(bpb, int | float):
        parts.append(f"{bpb:.3f} bits per byte")
    return parts


def card(served: Served) -> str:
    """The model card as Markdown that cannot load anything from elsewhere."""
    try:
        text = (served.directory / "README.md").read_text("utf-8", "replace")
    except OSError:
        return "This model has no card (`README.md` in its directory)."
    return harmless(FRONT_MATTER.sub("", text.replace("\r\n", "\n")))


def harmless(markdown: str) -> str:
    """Markdown that cannot make a browser fetch or run anything: an invisible word joiner breaks
    the beginnings of HTML tags, of images and of diagrams, wherever they stand."""
    text = markdown.replace("\r", "\n").replace("<", f"<{JOINER}").replace("![", f"!{JOINER}[")
    return MERMAID.sub(rf"\1{JOINER}\2", text)


def _millions(count: int) -> str:
    return f"{count / 1e6:.1f}M" if count < 1e9 else f"{count / 1e9:.1f}B"


def _shown(value: str | int | float) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def build(served: Served) -> None:
    panel("facts", facts(served))
    gr.Markdown(card(served), elem_id="card", sanitize_html=True, latex_delimiters=[])
