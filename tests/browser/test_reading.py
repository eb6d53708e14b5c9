"""The door between the page and the server, and the look that follows the cursor."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from playwright.sync_api import Page, expect

import ptx
from ptx import lens, load_model
from tests.browser.driving import Playground

MODEL = Path(__file__).parents[2] / "checkpoints" / "mini"
TEXT = "def add(first, second):\n    total = first + second\n    return total\n"


@pytest.fixture
def shown(page: Page, app_url: str) -> Page:
    """A page whose text is TEXT, the cursor on its fifth token."""
    playground = Playground(page, app_url)
    playground.read(TEXT)
    playground.cursor_to(5)
    return page


def told(page: Page, at: int) -> torch.Tensor:
    """(V,), the probabilities that the browser works out with the cursor at `at`."""
    page.evaluate("at => ptx.store.set({ cursor: at })", at)
    page.wait_for_function("at => ptx.store.state.look?.at === at", arg=at)
    logits = page.evaluate("Array.from(ptx.logits(ptx.store.state.look), x => Math.max(x, -1e30))")
    return torch.tensor(logits).softmax(-1)


def test_the_logits_that_the_browser_has_are_the_models(shown: Page) -> None:
    model, tokenizer, _ = load_model(MODEL)
    ids = [tokenizer.eot, *tokenizer.encode(TEXT)]
    for at in (5, len(ids) - 1, 1):
        real = lens.trace(model, ids[:at]).logits[-1].softmax(-1)
        assert float((told(shown, at) - real).abs().max()) <= 1e-5


def test_at_the_end_of_the_prompt_they_are_those_that_generation_draws_from(shown: Page) -> None:
    model, tokenizer, _ = load_model(MODEL)
    goes_on = ptx.Sampling(banned=(tokenizer.eot,))  # after a whole function it may well end
    step = next(ptx.generate(model, tokenizer, TEXT, goes_on))
    at = 1 + len(tokenizer.encode(TEXT))
    assert float((told(shown, at) - step.choice.raw).abs().max()) <= 1e-5
    assert shown.evaluate("ptx.store.state.look.healed")


def test_the_first_new_token_costs_the_same_live_muted_and_after_a_reload(
    page: Page, app_url: str
) -> None:
    """As it was drawn, with the prompt's end open; in a prompt it costs what its tokens cost."""
    playground = Playground(page, app_url)
    prompt = "import numpy as np\n\n\ndef normali"
    playground.read(prompt)
    playground.set("length", 3)
    playground.generate()
    at = playground.state("prompt")
    live, typed = playground.state(f"tokens[{at}].bits"), playground.text
    playground.look(at)
    look = playground.state("look")
    assert look["healed"]
    assert look["bits"] == pytest.approx(live, abs=1e-3)
    page.evaluate("ptx.store.set({ muted: ['0.0'] })")
    expect(page.locator("#heads-panel .price-line:not(.stale) b")).to_have_count(2)
    playground.wait_for("state.look?.bits !== arg", look["bits"])
    muted = playground.state("look.bits")
    line = page.locator("#heads-panel .price-line")
    expect(line).to_contain_text(f"{look['bits']:.2f} → {muted:.2f} bits")
    address = page.evaluate("ptx.link.address().then(({ href }) => href)")
    page.wait_for_function("href => location.href === href", arg=address)
    playground.reload()
    playground.wait_for(
        "state.tokens.length > 3 && state.tokens.every((t, i) => !i || t.bits !== null)"
    )
    assert playground.state(f"tokens[{at}].bits") == pytest.approx(live, abs=1e-3)
    playground.read(typed)
    playground.wait_for("state.tokens.every((t, i) => !i || t.bits !== null)")
    model, _, _ = load_model(MODEL)
    logits = lens.trace(model, playground.ids[:at]).logits[-1]
    own = -float(logits.log_softmax(-1)[playground.ids[at]]) / math.log(2)
    assert abs(own - live) > 1
    assert playground.state(f"tokens[{at}].bits") == pytest.approx(own, abs=1e-2)


def test_the_look_is_about_the_last_of_many_moves(shown: Page) -> None:
    asked = shown.evaluate(
        """async () => {
            const real = ptx.ask;
            let asked = 0;
            ptx.ask = (name, request) => ((asked += name === "look"), real(name, request));
            for (let at = 1; at <= 10; at += 1) {
                ptx.store.set({ cursor: at });
                await Promise.resolve();
            }
            while (ptx.store.state.look?.at !== 10) await new Promise((r) => setTimeout(r, 5));
            ptx.ask = real;
            return asked;
        }"""
    )
    assert asked <= 3


def test_a_text_that_grows_behind_the_cursor_is_not_asked_about_again(shown: Page) -> None:
    before = shown.evaluate(
        """async () => {
            window.before = ptx.store.state.look;
            const { ids, tokens } = ptx.store.state;
            ptx.store.set({ ids: [...ids, ids[1]], tokens: [...tokens, tokens[1]] });
            await new Promise((r) => setTimeout(r, 300));
            return ptx.store.state.look === window.before;
        }"""
    )
    assert before
    shown.evaluate("ptx.store.set({ muted: ['0.1'] })")
    shown.wait_for_function("() => ptx.store.state.look !== window.before")


def test_nobody_asks_for_panels_out_of_sight_while_a_text_streams(page: Page, app_url: str) -> None:
    page.set_viewport_size({"width": 1280, "height": 500})
    playground = Playground(page, app_url)
    playground.set("length", 1000)
    page.evaluate("scrollTo(0, 0)")
    page.evaluate("ptx.pace.wait = () => 0")  # or nobody would, of a fast text
    page.evaluate(
        """() => {
            const real = ptx.ask;
            window.asked = [];
            ptx.ask = (name, request) => {
                if (name === "look") asked.push(request.at);
                return real(name, request);
            };
        }"""
    )
    playground.generate(wait=False)
    playground.wait_for("state.status.generated > 300")
    assert page.evaluate("asked") == []
    page.locator("#bench-panel").scroll_into_view_if_needed()
    page.wait_for_function("asked.length")
    page.evaluate("scrollTo(0, 0)")
    playground.finished("length", "end of text")
    playground.looked(playground.state("ids.length") - 1)


def test_an_overtaken_question_has_no_answer_but_that_of_another_head_has(shown: Page) -> None:
    answers = shown.evaluate(
        """async () => {
            const { ids } = ptx.store.state;
            const head = (layer, head, at) => ptx.ask("head", { ids, at, layer, head });
            const found = await Promise.all([head(0, 0, 2), head(0, 1, 4), head(0, 0, 3)]);
            return found.map((answer) => answer && answer.at);
        }"""
    )
    assert answers == [None, 4, 3]


def test_what_is_read_for_a_file_overtakes_no_picture(shown: Page) -> None:
    answers = shown.evaluate(
        """async () => {
            const { ids } = ptx.store.state;
            const asked = { ids, at: 4, layer: 0, head: 0 };
            const found = [ptx.ask("head", asked), ptx.ask("head", { ...asked, exact: true })];
            return (await Promise.all(found)).map((answer) => answer && answer.at);
        }"""
    )
    assert answers == [4, 4]


def test_a_refusal_of_what_nobody_asks_again_is_not_said_for_ever(shown: Page) -> None:
    message = shown.locator("#reading-panel .message")
    shown.evaluate("ptx.ask('head', { ids: [1, 2], at: 9, layer: 0, head: 0 })")
    expect(message).to_be_visible()
    expect(message).to_be_hidden()


def test_a_refusal_is_said_once_and_goes_when_the_next_answer_comes(shown: Page) -> None:
    message = shown.locator("#reading-panel .message")
    expect(message).to_be_hidden()
    answer = shown.evaluate("ptx.ask('price', { ids: [1, 2], at: 9 })")
    assert answer is None
    expect(message).to_have_text("at must be a whole number from 1 to 2")
    shown.evaluate("ptx.ask('price', { ids: [1, 2], at: 2 })")
    expect(message).to_be_hidden()


def test_the_panel_takes_no_room(shown: Page) -> None:
    gap = shown.evaluate(
        """() => {
            const box = (name) => document.querySelector(name).getBoundingClientRect();
            return box(".tabs").top - box("#header-panel").bottom;
        }"""
    )
    assert gap < 30
