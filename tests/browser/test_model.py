"""Which model is on the page: what it is, and another one in its place."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from playwright.sync_api import Page, expect

from ptx import GPT, ModelConfig, get_tokenizer, lens, load_model, save_model
from tests.browser.driving import Playground

MINI = Path(__file__).parents[2] / "checkpoints" / "mini"


@pytest.fixture(scope="module")
def run(runs_dir: Path) -> str:
    """The key of a local run, of a shape that the page's first model does not have."""
    tokenizer = get_tokenizer("py16k")
    torch.manual_seed(0)
    shape = ModelConfig(
        vocab_size=tokenizer.n_vocab, context=64, n_layer=2, n_head=3, n_kv_head=3,
        head_size=8, d_model=16, d_mlp=32, init="gpt2",
    )  # fmt: skip
    save_model(
        runs_dir / "elsewhere" / "checkpoints" / "step_000010",
        GPT(shape),
        tokenizer,
        {"val_bpb": 7.5, "made of": "<img src=x onerror=window.hacked=1>"},
    )
    return "runs/elsewhere"


def test_the_model_tab_counts_every_parameter_once(page: Page, app_url: str) -> None:
    playground = Playground(page, app_url)
    playground.tab("Model")
    cells = page.locator(".parts-table td:nth-child(2)")
    expect(cells).to_have_count(5)
    sizes = [int(text.replace(",", "")) for text in cells.all_text_contents()]
    model, _, _ = load_model(MINI)
    assert sum(sizes) == model.n_params()
    expect(page.locator("#card")).to_contain_text("bits per byte")
    assert "license:" not in (page.locator("#card").text_content() or "")


def test_another_model_takes_the_place_of_the_first(page: Page, app_url: str, run: str) -> None:
    playground = Playground(page, app_url)
    page.select_option("#model-choice", run)
    expect(page.locator(".header .summary")).to_contain_text("7.500 bits per byte")
    playground.tab("Model")
    expect(page.locator("#model-panel h2")).to_have_text("elsewhere/step_000010")
    expect(page.locator("#model-panel")).to_contain_text("<img src=x")
    expect(page.locator("#card")).to_contain_text("has no card")
    assert page.evaluate("window.hacked") is None
    page.select_option("#model-choice", "")
    expect(page.locator(".header .summary")).to_contain_text("context 512")
    expect(page.locator("#card")).to_contain_text("bits per byte")


def test_the_heads_are_those_of_the_other_model(
    page: Page, app_url: str, run: str, runs_dir: Path
) -> None:
    playground = Playground(page, app_url)
    page.evaluate("ptx.store.set({ pinned: ['5.3', '1.2'], muted: ['4.1'], peek: '8.0' })")
    page.select_option("#model-choice", run)
    thumbs = page.locator("#heads-panel .atlas .thumb")
    expect(thumbs).to_have_count(6)
    assert page.evaluate("[ptx.store.state.pinned, ptx.store.state.muted]") == [["1.2"], []]
    assert playground.state("peek") is None
    page.wait_for_function("() => ptx.attention.square('1.2')")
    told = page.evaluate("Array.from(ptx.attention.square('1.2').values)")
    model, _, _ = load_model(runs_dir / "elsewhere")
    ids = playground.ids
    weights = lens.attention(model, ids)[1, 2]
    shown = torch.tensor(told) / 255
    wanted = weights[torch.ones(len(ids), len(ids), dtype=torch.bool).tril()].sqrt()
    assert float((shown - wanted).abs().max()) <= 0.5 / 255 + 1e-5
    expect(page.locator("#why-panel .lens tbody tr")).to_have_count(3)
    page.select_option("#model-choice", "")
    first = load_model(MINI)[0].config
    expect(thumbs).to_have_count(first.n_layer * first.n_head)


def test_a_choice_of_a_model_keeps_the_focus(page: Page, app_url: str, run: str) -> None:
    Playground(page, app_url)
    page.focus("#model-choice")
    page.select_option("#model-choice", run)
    expect(page.locator(".header .summary")).to_contain_text("7.500 bits per byte")
    expect(page.locator("#model-choice")).to_be_focused()


def test_a_look_at_the_models_keeps_the_text_and_undo(
    page: Page, app_url: str, runs_dir: Path
) -> None:
    """A run that appeared meanwhile is offered, and nothing else changes."""
    playground = Playground(page, app_url)
    playground.set("length", 4)
    playground.generate()
    before, text = playground.state("model"), playground.text
    page.evaluate("window.model = ptx.store.state.model")
    model, tokenizer, _ = load_model(MINI)
    save_model(runs_dir / "appeared" / "checkpoints" / "step_000001", model, tokenizer, {})
    page.focus("#model-choice")
    option = page.locator('#model-choice option[value="runs/appeared"]')
    expect(option).to_have_count(1)
    page.wait_for_timeout(400)
    assert page.evaluate("window.model === ptx.store.state.model")
    assert playground.state("model") == before
    assert page.locator("#model-choice").input_value() == ""
    assert playground.text == text
    expect(page.locator("#write-panel .place")).to_have_text("text 2 of 2")
    page.get_by_role("button", name="Undo", exact=True).click()
    assert playground.text == "def count_words(text):"


def test_the_model_that_is_there_chosen_again_keeps_the_text_and_undo(
    page: Page, app_url: str
) -> None:
    playground = Playground(page, app_url)
    playground.set("length", 4)
    playground.generate()
    playground.wait_for("!state.writing")
    text = playground.text
    page.evaluate("ptx.chooseModel(ptx.store.state.model.key)")
    assert playground.text == text
    expect(page.locator("#write-panel .place")).to_have_text("text 2 of 2")


def test_another_model_while_a_text_is_written_drops_the_rest_of_it(
    page: Page, app_url: str, run: str
) -> None:
    playground = Playground(page, app_url)
    playground.set("temperature", 2)
    playground.set("length", 1000)
    playground.generate(wait=False)
    playground.wait_for("state.status.generated > 3")
    page.evaluate(
        """() => {  // a text that is only dropped would be written on, to its end
            window.frames_after = [];
            const { take } = ptx.writing;
            ptx.writing.take = (frame) => { window.frames_after.push(frame?.finish); take(frame); };
        }"""
    )
    page.select_option("#model-choice", run)
    playground.wait_for(
        "!state.writing && state.model.layers === 2 && state.look?.at === state.cursor"
    )
    assert not any(page.evaluate("window.frames_after"))
    assert playground.text == "def count_words(text):"
    expect(page.locator("#write-panel .place")).to_have_text("")
    playground.set("length", 3)
    playground.generate()
    assert playground.text.startswith("def count_words(text):")
    assert playground.state("ids.length") == playground.state("prompt") + 3
