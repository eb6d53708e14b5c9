"""Why this token: the layers' guesses, and the sum of what wrote its lead."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from ptx import lens, load_model
from ptx.lens.trace import Mute
from tests.browser.driving import Playground

MODEL, TOKENIZER, _ = load_model(Path(__file__).parents[2] / "checkpoints" / "mini")
L, H = MODEL.config.n_layer, MODEL.config.n_head


@pytest.fixture
def playground(page: Page, app_url: str) -> Playground:
    playground = Playground(page, app_url)
    playground.set("length", 20)
    playground.generate()
    page.wait_for_function("() => !ptx.store.state.writing")
    return playground


def number(text: str | None) -> float:
    return float((text or "nan").replace("−", "-").replace("+", "").replace(",", ""))


def test_each_layer_says_what_the_logit_lens_says(playground: Playground) -> None:
    ids = playground.ids
    for at in (5, len(ids) - 3):
        playground.look(at)
        found = lens.logit_lens(MODEL, lens.trace(MODEL, ids[:at]), token=ids[at], k=3)
        rows = playground.page.locator("#why-panel .lens tbody tr")
        expect(rows).to_have_count(L + 1)
        expect(rows.last.locator(".rank")).to_have_text(f"{int(found.rank[-1]):,}")
        for i in range(L + 1):
            row = rows.nth(i)
            # the page reads the whole text at once, which rounds otherwise
            ahead = found.logits[i] - found.logits[i, ids[at]]
            least, most = 1 + int((ahead > 5e-5).sum()), int((ahead > -5e-5).sum())
            assert least <= number(row.locator(".rank").text_content()) <= most
            shown = row.locator(".prob span").text_content() or ""
            if shown.startswith("<"):
                assert float(found.prob[i]) < 0.0005
            else:
                percent = number(shown.removesuffix(" %"))
                assert percent == pytest.approx(100 * float(found.prob[i]), abs=0.51)
            guesses = row.locator(".guess")
            assert guesses.count() == 3
            followed = (
                found.tokens[i].tolist().index(ids[at]) if ids[at] in found.tokens[i] else None
            )
            marked = guesses.evaluate_all(
                "all => all.findIndex((g) => g.className.includes('followed'))"
            )
            assert marked == (-1 if followed is None else followed)


def test_the_contributions_are_those_of_the_lens_and_add_up(playground: Playground) -> None:
    ids = playground.ids
    at = len(ids) - 4
    playground.look(at)
    page = playground.page
    against = int(page.locator("#why-panel select").input_value())
    trace = lens.trace(MODEL, ids[:at])
    order = [t for t in trace.logits[-1].topk(2).indices.tolist() if t != ids[at]]
    assert against == order[0]  # the likeliest other
    found = lens.attribution(MODEL, trace, ids[at], against)

    said = page.locator("#why-panel .readout b")
    picture = page.locator("#why-panel canvas.parts")
    picture.focus()
    page.keyboard.press("ArrowDown")  # the first key shows the first cell: head 0.0
    for layer in range(L):
        for column in range(H + 1):
            part = found.heads[layer, column] if column < H else found.mlps[layer]
            name = f"Head {layer}.{column}" if column < H else f"MLP {layer}"
            expect(page.locator("#why-panel .readout")).to_contain_text(f"{name}:")
            assert number(said.text_content()) == pytest.approx(float(part), abs=0.0051)
            page.keyboard.press("ArrowRight")
        for _ in range(H):
            page.keyboard.press("ArrowLeft")
        page.keyboard.press("ArrowDown")

    parts = [number(text) for text in page.locator("#why-panel .sum b").all_text_contents()]
    *summands, total = parts
    assert sum(summands) == pytest.approx(total, abs=0.005 * len(parts) + 1e-3)
    assert total == pytest.approx(float(found.total), abs=0.0051)
    assert summands[1] == pytest.approx(float(found.heads.sum()), abs=0.0051)


def test_a_cell_under_the_pointer_tells_of_the_token_at_the_cursor(playground: Playground) -> None:
    ids = playground.ids
    page = playground.page
    playground.look(len(ids) - 4)
    page.locator("#why-panel canvas.parts").focus()
    page.keyboard.press("ArrowDown")  # the first cell: head 0.0
    readout = page.locator("#why-panel .readout")
    expect(readout).to_contain_text("Head 0.0:")
    for at in (len(ids) - 6, len(ids) - 9):
        page.evaluate("at => ptx.store.set({ cursor: at })", at)
        playground.looked(at)
        against = int(page.locator("#why-panel select").input_value())
        found = lens.attribution(MODEL, lens.trace(MODEL, ids[:at]), ids[at], against)
        expect(readout).to_contain_text("Head 0.0:")
        said = number(readout.locator("b").text_content())
        assert said == pytest.approx(float(found.heads[0, 0]), abs=0.0051)


def test_another_token_to_compare_with(playground: Playground) -> None:
    ids = playground.ids
    at = 5
    playground.look(at)
    select = playground.page.locator("#why-panel select")
    other = int(select.locator("option").nth(3).get_attribute("value") or -1)
    select.select_option(str(other))
    playground.page.wait_for_function(
        "id => ptx.store.state.look.parts.against.id === id", arg=other
    )
    found = lens.attribution(MODEL, lens.trace(MODEL, ids[:at]), ids[at], other)
    total = playground.page.locator("#why-panel .sum .total")
    expect(total).to_have_text(re.compile(r"[+−]"))
    assert number(total.text_content()) == pytest.approx(float(found.total), abs=0.0051)
    playground.look(at + 1)  # the choice was about that token
    playground.page.wait_for_function("() => ptx.store.state.against === null")


def test_a_muted_head_adds_nothing(playground: Playground) -> None:
    ids = playground.ids
    at = len(ids) - 2
    playground.look(at)
    playground.page.evaluate("ptx.store.set({ muted: ['2.1'] })")
    playground.page.wait_for_function("() => ptx.store.state.look.parts.heads[2][1] === 0")
    trace = lens.trace(MODEL, ids[:at], Mute(heads=((2, 1),)))
    against = int(playground.page.locator("#why-panel select").input_value())
    found = lens.attribution(MODEL, trace, ids[at], against)
    total = playground.page.locator("#why-panel .sum .total").text_content()
    assert number(total) == pytest.approx(float(found.total), abs=0.0051)


def test_at_the_end_of_the_text_it_is_about_what_comes_next(playground: Playground) -> None:
    ids = playground.ids
    playground.look(len(ids))
    best = int(lens.trace(MODEL, ids).logits[-1].argmax())
    expect(playground.page.locator("#why-panel .why-title")).to_contain_text("what comes next")
    assert playground.page.evaluate("ptx.store.state.look.parts.token.id") == best


def test_enter_on_a_heads_cell_pins_it(playground: Playground) -> None:
    page = playground.page
    page.evaluate("ptx.store.set({ pinned: [] })")
    page.locator("#why-panel canvas.parts").focus()
    for key in ("ArrowDown", "ArrowRight", "Enter"):
        page.keyboard.press(key)
    assert page.evaluate("ptx.store.state.pinned") == ["0.1"]


def test_hostile_tokens_stay_text(page: Page, app_url: str) -> None:
    playground = Playground(page, app_url)
    playground.prompt('<img src=x onerror="alert(1)"> ${alert(2)} {{alert(3)}} </script>')
    page.wait_for_function("() => ptx.store.state.ids.length > 12")
    for at in range(1, 9):
        playground.look(at)
    assert page.locator("#why-panel img, #heads-panel img, #heads-panel script").count() == 0
