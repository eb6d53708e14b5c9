"""Next token: the bars are the sampler's, and a click on one of them goes on from it."""

from __future__ import annotations

import random
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from playwright.sync_api import Page, expect

from ptx import GPT, load_model
from ptx.sampling import USUAL, Choice, Sampling
from ptx.tokenizer import Tokenizer
from tests.browser.driving import Playground

MODEL = Path(__file__).parents[2] / "checkpoints" / "mini"
PROMPT = "import os\n\n\ndef names(path):\n    for name in os.listdir(path):\n        if name"
NAMES = {
    "temperature": "temperature",
    "top-k": "top_k",
    "top-p": "top_p",
    "min-p": "min_p",
    "repetition-penalty": "repetition_penalty",
}
CUTS = {
    "temperature 0": "temperature",
    "top-k": "top_k",
    "top-p": "top_p",
    "min-p": "min_p",
    "Python's parser": "python",
}


@pytest.fixture(scope="module")
def model() -> tuple[GPT, Tokenizer]:
    model, tokenizer, _ = load_model(MODEL)
    return model, tokenizer


@pytest.fixture
def playground(page: Page, app_url: str) -> Playground:
    return Playground(page, app_url)


def choice_at(model: GPT, ids: list[int], sampling: Sampling) -> Choice:
    with torch.no_grad():
        logits = model(torch.tensor([ids]))[0, -1]
    return Choice(logits, sampling, ids)


def shown(playground: Playground) -> list[tuple[str, float, float, str]]:
    """Label, raw and final percent, and what cut it, of every bar; the last is of the others."""
    playground.page.evaluate("() => new Promise(done => requestAnimationFrame(() => done()))")
    rows = playground.page.locator("#bench-panel .candidate:visible").evaluate_all(
        """rows => rows.map(row => [row.querySelector("code").textContent,
            ...[...row.querySelectorAll("i")].map(bar => parseFloat(bar.style.width)),
            row.querySelector(".cut").textContent])"""
    )
    return [tuple(row) for row in rows]


def random_knobs(seed: int) -> Sampling:
    pick = random.Random(seed)
    return Sampling(
        pick.choice([0.0, 0.3, 0.8, 1.0, 1.6]),
        pick.choice([0, 0, 3, 40, 200]),
        pick.choice([1.0, 0.3, 0.9, 0.95]),
        pick.choice([0.0, 0.0, 0.02, 0.2]),
        pick.choice([1.0, 1.0, 1.3, 0.8]),
    )


def test_a_text_kept_python_shows_what_its_parser_refused(
    playground: Playground, model: tuple[GPT, Tokenizer]
) -> None:
    playground.read("def area(self):\n    return (self.width * self.height")
    playground.page.locator("#python input").check()
    playground.set("temperature", 1.5)
    playground.set("length", 60)
    for seed in range(20):
        playground.set("seed", seed)
        playground.generate()
        assert playground.page.locator(".syntax").get_attribute("data-state") != "error"
        at = playground.page.evaluate(  # where more than what was drawn may not come
            "ptx.store.state.tokens.findIndex(t => (t.dead?.length ?? 0) > t.refused?.length)"
        )
        if at >= 0:
            break
    mended = playground.page.locator(f'#text-panel .token.mended[data-i="{at}"]')
    expect(mended).to_have_css("text-decoration-line", "underline")
    playground.look(at)
    refused = [token for token, _ in playground.state(f"tokens[{at}].refused")]
    dead = playground.state(f"tokens[{at}].dead")
    assert set(refused) < set(dead)
    total = playground.page.evaluate(
        "ptx.store.state.tokens.reduce((n, t) => n + (t.refused?.length ?? 0), 0)"
    )
    expect(playground.page.locator(".syntax")).to_contain_text(f"· {total} refused")
    expect(playground.seen).to_contain_text("Drawn before, and no Python:")
    gpt, _ = model
    ids = playground.ids
    sampling = replace(USUAL, temperature=1.5, python=True)
    with torch.no_grad():
        choice = Choice(gpt(torch.tensor([ids[:at]]))[0, -1], sampling, dead=tuple(dead))
    likeliest = choice.logits.topk(12).indices.tolist()
    for (_, _, final, cut), token in zip(shown(playground), likeliest, strict=False):
        assert final / 100 == pytest.approx(float(choice.final[token]), abs=1e-4)
        assert ("Python's parser" in cut) == (token in dead)
    # as the model has it, with the knob off
    playground.page.locator("#python input").uncheck()
    assert not any("Python's parser" in cut for *_, cut in shown(playground))
    # what was refused is still told after another text, and back
    playground.generate()
    playground.page.click("#undo")
    assert playground.state(f"tokens[{at}].refused.length") == len(refused)


@pytest.mark.parametrize("seed", range(4))
def test_the_bars_are_the_samplers(
    playground: Playground, model: tuple[GPT, Tokenizer], seed: int
) -> None:
    gpt, tokenizer = model
    ids = [tokenizer.eot, *tokenizer.encode(PROMPT)]
    playground.read(PROMPT)
    at = 6 + 3 * seed
    playground.cursor_to(at)
    sampling = random_knobs(seed)
    for knob, name in NAMES.items():
        playground.set(knob, getattr(sampling, name))
    choice = choice_at(gpt, ids[:at], sampling)
    *rows, rest = shown(playground)
    likeliest = choice.logits.topk(12).indices.tolist()
    tokens = likeliest if ids[at] in likeliest else [*likeliest, ids[at]]
    assert len(rows) == len(tokens)
    for (_, raw, final, cut), token in zip(rows, tokens, strict=True):
        assert raw / 100 == pytest.approx(float(choice.raw[token]), abs=1e-4)
        assert final / 100 == pytest.approx(float(choice.final[token]), abs=1e-4)
        reason = cut.split("◂")[0].strip()
        assert (CUTS[reason] if reason else None) == choice.cut_by(token)
        assert ("chosen" in cut) == (token == ids[at])
    left = 1 - float(choice.final[tokens].sum())
    assert rest[2] / 100 == pytest.approx(max(0, left), abs=1e-4)
    summary = playground.page.locator("#bench-panel .summary")
    expect(summary).to_contain_text(f"{choice.entropy:.2f} → {abs(choice.final_entropy):.2f} bits")
    kept = int((choice.cut == 0).sum())
    told = re.search(r"may come ([\d,]+) of 16,384", summary.text_content() or "")
    assert told
    assert int(told[1].replace(",", "")) == pytest.approx(kept, rel=0.02, abs=1)


def test_the_whole_distribution_is_the_samplers(
    playground: Playground, model: tuple[GPT, Tokenizer]
) -> None:
    """Two bytes a logit cross the wire, the likeliest exactly: nothing that shows is lost."""
    gpt, tokenizer = model
    ids = [tokenizer.eot, *tokenizer.encode(PROMPT)]
    playground.read(PROMPT)
    playground.cursor_to(8)
    for seed in range(12):
        sampling = random_knobs(100 + seed)
        knobs = {name: getattr(sampling, name) for name in NAMES.values()}
        final = playground.page.evaluate(
            """knobs => {
                const { look, ids } = ptx.store.state;
                const choice = ptx.sampler.choice(ptx.logits(look), ids.slice(0, look.at));
                return [...choice.after(knobs).final];
            }""",
            knobs,
        )
        expected = choice_at(gpt, ids[:8], sampling).final.double()
        assert (torch.tensor(final, dtype=torch.float64) - expected).abs().max() < 1e-4, sampling


def test_a_knob_moves_the_bars_without_the_server(playground: Playground) -> None:
    playground.read(PROMPT)
    playground.cursor_to(8)
    playground.page.route("**/gradio_api/**", lambda route: route.abort())
    before = shown(playground)
    slider = playground.page.get_by_label("Temperature, slider")
    slider.focus()
    for _ in range(5):
        slider.press("ArrowRight")
    after = shown(playground)
    assert [row[:2] for row in after] == [row[:2] for row in before]
    assert after[0][2] < before[0][2]
    playground.page.unroute("**/gradio_api/**")


def test_another_token_is_a_branch_and_undo_brings_the_first_back(playground: Playground) -> None:
    playground.set("length", 8)
    playground.generate()
    before, ids = playground.text, playground.state("ids")
    playground.cursor_to(len(ids) - 4)
    other = playground.page.locator("#bench-panel button.candidate:not(.chosen)").first
    other.focus()
    other.press("Enter")
    playground.finished("length", "end of text")
    assert playground.page.evaluate("document.activeElement.matches('button.candidate')")
    held = "new KeyboardEvent('keydown', { key: 'Enter', repeat: true, cancelable: true })"
    assert not playground.page.evaluate(f"document.activeElement.dispatchEvent({held})")
    branch = playground.state("ids")
    assert branch[: len(ids) - 4] == ids[: len(ids) - 4]
    assert branch[len(ids) - 4] != ids[len(ids) - 4]
    expect(playground.page.locator("#write-panel .place")).to_have_text("text 3 of 3")
    playground.page.get_by_role("button", name="Undo", exact=True).click()
    assert playground.text == before


def test_a_branch_at_an_open_end_keeps_the_prompt(playground: Playground) -> None:
    """The first new token is drawn with the end of the prompt still open."""
    playground.read("def read_config(pa")
    playground.set("length", 4)
    playground.generate()
    first = playground.state("prompt")
    playground.cursor_to(first)
    assert playground.state("look.healed")
    rows = shown(playground)
    assert sum(row[1] for row in rows) == pytest.approx(100, abs=0.01)
    other = playground.page.locator("#bench-panel button.candidate:not(.chosen)").first
    label = other.locator("code").text_content()
    token = playground.page.evaluate(
        "label => ptx.store.state.look.names.indexOf(label.replaceAll('·', ' '))", label
    )
    assert token >= 0
    other.click()
    playground.finished("length", "end of text")
    assert playground.text.startswith("def read_config(pa")
    assert playground.state("tokens[ptx.store.state.prompt].text").strip()


def test_a_branch_inside_the_prompt_and_while_another_text_streams(playground: Playground) -> None:
    playground.set("temperature", 1.5)
    playground.set("length", 400)
    playground.generate(wait=False)
    playground.wait_for("state.status.generated > 3")
    playground.page.locator("#text-panel .token", has_text="count").first.click()
    at = playground.state("cursor")
    playground.looked(at)
    playground.set("length", 5)
    playground.page.locator("#bench-panel button.candidate:not(.chosen)").first.click()
    playground.wait_for("!state.writing && state.status.finish && state.status.generated <= 6")
    assert playground.state("prompt") == at
    assert playground.state("ids.length") == at + 1 + 5
    expect(playground.page.locator("#prompt .cm-content")).to_have_text("def")


def test_a_bar_does_nothing_until_it_shows_the_newest_answer(playground: Playground) -> None:
    """Between an answer and the picture of it the bars are still about another token."""
    playground.cursor_to(1)
    bars = "#bench-panel button.candidate"
    disabled = f"[...document.querySelectorAll('{bars}')].map((bar) => bar.ariaDisabled)"
    before = playground.page.evaluate(disabled)
    assert "false" in before
    began, waiting, after = playground.page.evaluate(
        f"""async () => {{
            const {{ look, recording }} = ptx.store.state;
            ptx.store.set({{ look: {{ ...look }} }});
            await new Promise(queueMicrotask); // the panels are told
            const waiting = {disabled};
            document.querySelector("{bars}:not(.chosen)").click();
            const began = ptx.store.state.writing || ptx.store.state.recording !== recording;
            for (let i = 0; i < 3; i += 1) await new Promise(requestAnimationFrame);
            return [began, waiting, {disabled}];
        }}"""
    )
    assert set(waiting) == {"true"}
    assert not began
    assert after == before


def test_a_branch_lands_where_the_bars_are_about(playground: Playground) -> None:
    """While a text streams, the bars are some tokens behind the cursor."""
    page = playground.page
    playground.set("temperature", 1.5)
    playground.set("length", 1000)
    page.evaluate("ptx.pace.wait = () => 0")  # or the text may end before
    playground.generate(wait=False)
    page.locator("#bench-panel").scroll_into_view_if_needed()
    # not at the prompt's open end, where the tokens before depend on what comes
    playground.wait_for(
        "state.status.generated > 8 && state.look.at < state.cursor && !state.look.healed"
    )
    playground.set("length", 2)
    at, token, before, recording = page.evaluate(
        """() => {
            const { look, ids, recording } = ptx.store.state;
            const nameOf = (row) => row.querySelector("code").textContent;
            const row = [...document.querySelectorAll("#bench-panel button.candidate:not(.chosen)")]
                .find((one) => nameOf(one) !== "⟨end of text⟩");
            row.click();
            return [look.at, nameOf(row), ids.slice(0, look.at), recording];
        }"""
    )
    # the model may end the text before its two tokens are there
    playground.wait_for("!state.writing && state.recording !== arg", recording)
    assert playground.ids[:at] == before
    label = page.evaluate("at => ptx.visible(ptx.store.state.tokens[at].text, 24)", at)
    assert label == token
