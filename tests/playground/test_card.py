"""A model directory may come from anywhere: its words must not act."""

from __future__ import annotations

from dataclasses import replace

import pytest
from markdown_it import MarkdownIt

from ptx.playground.card import card, facts, harmless, summary
from ptx.playground.served import Served


def test_facts_show_the_shape_and_whatever_was_saved(served: Served) -> None:
    rows = dict(facts(served))
    assert rows["context"] == "32"
    assert rows["held-out packages, bits per byte"] == "1.234"
    assert rows["training steps"] == "10"
    assert rows["made of"].startswith("<img")  # as text; the page makes a text node of it


def test_a_long_training_is_shown_in_seconds_that_can_be_read(served: Served) -> None:
    info = {"elapsed": 1.5, "seconds": 12345.6}
    assert dict(facts(replace(served, info=info)))["training seconds"] == "12,346"


def test_the_summary_names_model_and_figure(served: Served) -> None:
    parts = summary(served)
    assert parts[0] == "tiny"
    assert "1.234 bits per byte of unseen code (lower is better)" in parts
    tested = replace(served, info={"val_bpb": 0.829, "test_bpb": 0.7563})
    figure = "0.756 bits per byte of unseen code (lower is better)"
    assert figure in summary(tested), "as the released card begins"


def test_the_front_matter_is_left_out(served: Served) -> None:
    assert card(served).strip() == "# Tiny"


@pytest.mark.parametrize(
    "markdown",
    [
        "![x](https://example.com/x.png)",
        "![x][ref]",
        "<img src=x>",
        "```\n   ```\n![x](http://example.com/x.png)\n<img src=y>",
        "~~~ `\n```\n~~~\n![x](http://example.com/x.png)",
        "~~~\r~~~\r![x](http://example.com/x.png)",
        "```Mermaid\nA@{ img: 'https://example.com/x.png' }\n```",
    ],
)
def test_nothing_in_a_card_can_load_or_act(markdown: str) -> None:
    safe = harmless(markdown)
    html = MarkdownIt().render(safe)  # CommonMark by someone else
    assert "<img" not in html
    assert "mermaid" not in html.lower()
    assert safe.replace("\u2060", "") == markdown.replace("\r", "\n")
