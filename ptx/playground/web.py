"""Files of web/ and the one way a panel gets onto the page."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr

WEB = Path(__file__).with_name("web")
SCRIPTS = (
    "base.js",
    "store.js",
    "pace.js",
    "frames.js",
    "sampler.js",
    "reading.js",
    "lexer.js",
    "share.js",
    "python.js",
    "link.js",
    "header.js",
    "model.js",
    "writing.js",
    "write.js",
    "code.js",
    "moves.js",
    "text.js",
    "knobs.js",
    "bench.js",
    "hints.js",
    "segments.js",
    "roles.js",
    "pins.js",
    "attention.js",
    "growing.js",
    "map.js",
    "atlas.js",
    "lines.js",
    "price.js",
    "heads.js",
    "parts.js",
    "why.js",
    "axes.js",
    "chart.js",
    "histories.js",
    "written.js",
    "curves.js",
    "form.js",
    "training.js",
    "editor.js",
    "keys.js",
)


def head() -> str:
    """Every script, for the page's <head>: the panels find their code in `window.ptx`."""
    code = "\n".join((WEB / name).read_text("utf-8") for name in SCRIPTS)
    return f'<script>\n"use strict";\n{code}\n</script>'


def css() -> str:
    """style.css, which defines the colours, then each panel's own."""
    names = sorted((path.name for path in WEB.glob("*.css")), key=lambda n: (n != "style.css", n))
    return "\n".join((WEB / name).read_text("utf-8") for name in names)


def panel(name: str, value: Any = None, server: list[Callable[..., Any]] | None = None) -> gr.HTML:
    """A component drawn by `ptx.<name>` in the browser, which watches `value` (any JSON).

    The template stays empty: a template that mentions a value compiles it as code, while a script
    that builds text nodes cannot be injected into.
    """
    functions = "server" if server else "null"
    return gr.HTML(
        value,
        html_template="",
        js_on_load=f"ptx.{name}({{element, props, watch, trigger, server: {functions}}});",
        apply_default_css=False,
        server_functions=server,
        elem_id=f"{name}-panel",
    )
