"""A model directory may come from anywhere: its words must not act."""

from __future__ import annotations

import pytest

from ptx.playground.card import card, facts, harmless, summary
from ptx.playground.served import Served


def test_facts_show_the_shape_and_whatever_was_saved(served: Served) -> None:
    rows = dict(facts(served))
    assert rows["context"] == "32"
    assert rows["validation, bits per byte"] == "1.234"
    assert rows["training steps"] == "10"
    assert rows["made of"].startswith("<img")  # as text; the page makes a text node of it


def test_the_summary_names_model_and_figure(served: Served) -> None:
    parts = summary(served)
    assert parts[0] == "tiny"
    assert "1.234 bits per byte" in parts or "1.235 bits per byte" in parts


def test_the_front_matter_is_left_out(served: Served) -> None:
    assert card(served).strip() == "# Tiny"


@pytest.mark.parametrize(
    ("markdown", "safe"),
    [
        ("![x](https://example.com/x.png)", "[x](https://example.com/x.png)"),
        ("![x][ref]", "[x][ref]"),
        ("<img src=x>", "&lt;img src=x>"),
        ("- a\n  ```\n<img src=x>", "- a\n  ```\n&lt;img src=x>"),
        ("```\na < b\n```\n<b>", "```\na < b\n```\n&lt;b>"),
        ("````\n```\n<x>\n````\n<b>", "````\n```\n<x>\n````\n&lt;b>"),
        ("```a`b\n<img>", "```a`b\n&lt;img>"),
        ("~~~\n```\n<x>\n~~~\n<b>", "~~~\n```\n<x>\n~~~\n&lt;b>"),
    ],
)
def test_nothing_in_a_card_can_load_or_act(markdown: str, safe: str) -> None:
    assert harmless(markdown) == safe
