"""A model directory may come from anywhere: its words must not act."""

from __future__ import annotations

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


def test_the_summary_names_model_and_figure(served: Served) -> None:
    parts = summary(served)
    assert parts[0] == "tiny"
    assert "1.234 bits per byte" in parts or "1.235 bits per byte" in parts


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
