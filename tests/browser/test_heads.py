"""Looking at attention: all heads small, one large."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from ptx import lens, load_model
from ptx.playground.write import FIRST
from tests.browser.driving import Playground

MODEL = Path(__file__).parents[2] / "checkpoints" / "mini"


@pytest.fixture
def playground(page: Page, app_url: str) -> Playground:
    return Playground(page, app_url)


def test_every_head_has_a_picture(playground: Playground) -> None:
    thumbnails = playground.page.locator("#heads-panel .heads-grid canvas")
    model, _, _ = load_model(MODEL)
    assert thumbnails.count() == model.config.n_layer * model.config.n_head
    assert min(playground.colors(thumbnails.nth(i)) for i in range(thumbnails.count())) > 3
    assert playground.colors(playground.map) > 8
    assert playground.colors("#heads-panel .ramp") > 100


def test_a_click_pins_a_head(playground: Playground) -> None:
    playground.page.get_by_role("button", name="layer 1 · head 1").click()
    expect(playground.page.locator("#heads-panel h3")).to_have_text("layer 1 · head 1")


def test_arrows_and_enter_pin_a_head(playground: Playground) -> None:
    playground.page.get_by_role("button", name="layer 0 · head 0").focus()
    for key in ("ArrowDown", "ArrowRight", "Enter"):
        playground.page.keyboard.press(key)
    expect(playground.page.locator("#heads-panel h3")).to_have_text("layer 1 · head 1")


def test_pointing_at_a_cell_reads_query_key_and_weight(playground: Playground) -> None:
    box = playground.map.bounding_box()
    assert box
    # below the diagonal, in the first column
    playground.page.mouse.move(box["x"] + 72, box["y"] + box["height"] - 6)
    expect(playground.readout).to_have_text(re.compile(r".+ → ⟨start⟩0: [01]\.\d{3}"))


def test_the_weight_read_with_the_keyboard_is_the_models(playground: Playground) -> None:
    model, tokenizer, _ = load_model(MODEL)
    ids = [tokenizer.eot, *tokenizer.encode(FIRST)]
    weights = lens.attention(model, ids)[0, 0]
    playground.map.focus()
    for key in ("ArrowDown", "ArrowUp", "ArrowRight"):  # the last row, then one up, one right
        playground.page.keyboard.press(key)
    shown = playground.readout.locator("b").text_content()
    assert float(shown or "nan") == pytest.approx(float(weights[len(ids) - 2, 1]), abs=0.006)


def test_the_maps_follow_the_text(playground: Playground) -> None:
    before = playground.map.evaluate("canvas => canvas.toDataURL()")
    playground.prompt("for key in sorted(table):\n    print(key)\n")
    playground.set("length", 4)
    playground.generate()
    playground.page.wait_for_function(
        "before => document.querySelector('#heads-panel .map').toDataURL() !== before", arg=before
    )
    assert playground.colors(playground.map) > 8
