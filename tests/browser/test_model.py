"""Which model is on the page: what it is, and another one in its place."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from playwright.sync_api import Page, expect

from ptx import GPT, ModelConfig, get_tokenizer, load_model, save_model
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
        runs_dir / "other" / "checkpoints" / "step_000010",
        GPT(shape),
        tokenizer,
        {"val_bpb": 7.5, "made of": "<img src=x onerror=window.hacked=1>"},
    )
    return "runs/other"


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
    expect(page.locator("#model-panel h2")).to_have_text("step_000010")
    expect(page.locator("#model-panel")).to_contain_text("<img src=x")
    expect(page.locator("#card")).to_contain_text("has no card")
    assert page.evaluate("window.hacked") is None
    page.select_option("#model-choice", "")
    expect(page.locator(".header .summary")).to_contain_text("context 256")
    expect(page.locator("#card")).to_contain_text("bits per byte")
