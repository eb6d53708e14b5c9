"""The browser's sampler against the library's: the same distribution, over the whole vocabulary."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from playwright.sync_api import Browser, Page

from ptx.playground.web import WEB
from ptx.sampling import Choice, Sampling

SMALL, LARGE = 16_384, 200_019
APART = 1e-6
AFTER = """({logits, ids, settings, dead}) => {
    const values = new Float32Array(ptx.bytes(logits).buffer);
    const choice = ptx.sampler.choice(values, ids, dead);
    const coded = (array) => {
        const bytes = new Uint8Array(array.buffer);
        let text = "";
        for (let i = 0; i < bytes.length; i += 8192)
            text += String.fromCharCode(...bytes.subarray(i, i + 8192));
        return btoa(text);
    };
    return settings.map((knobs) => {
        const start = performance.now();
        const {final, cut, left, removed, entropy} = choice.after(knobs);
        const ms = performance.now() - start;
        return {raw: coded(choice.raw), final: coded(final), cut: coded(cut), left, removed,
                entropy, rawEntropy: choice.entropy, rank: choice.rank(7), ms};
    });
}"""


@pytest.fixture(scope="module")
def sampler(browser: Browser) -> Iterator[Page]:
    """A page with nothing but the sampler."""
    page = browser.new_page()
    for name in ("base.js", "sampler.js"):
        page.add_script_tag(path=WEB / name)
    yield page
    page.close()


def in_browser(
    page: Page,
    logits: torch.Tensor,
    ids: list[int],
    settings: list[Sampling],
    dead: tuple[int, ...] = (),
) -> list:
    names = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty", "python")
    request = {
        "logits": base64.b64encode(logits.numpy().tobytes()).decode(),
        "ids": ids,
        "dead": dead,
        "settings": [{name: getattr(s, name) for name in names} for s in settings],
    }
    answers = page.evaluate(AFTER, request)
    for answer in answers:
        for name, kind in (("raw", np.float64), ("final", np.float64), ("cut", np.uint8)):
            answer[name] = torch.from_numpy(
                np.frombuffer(base64.b64decode(answer[name]), kind).copy()
            )
    return answers


def compare(
    page: Page,
    logits: torch.Tensor,
    ids: list[int],
    settings: list[Sampling],
    dead: tuple[int, ...] = (),
) -> None:
    answers = in_browser(page, logits, ids, settings, dead)
    for setting, answer in zip(settings, answers, strict=True):
        choice = Choice(logits, setting, ids, dead=dead if setting.python else ())
        told = json.dumps({"setting": str(setting)})
        assert (answer["raw"] - choice.raw).abs().max() < APART, told
        assert (answer["final"] - choice.final).abs().max() < APART, told
        differing = (answer["cut"] != codes(choice)).sum()
        assert differing <= 2, told  # tokens on the very edge of what rounding decides
        assert answer["left"] == pytest.approx(int((choice.cut == 0).sum()), abs=2), told
        assert answer["rawEntropy"] == pytest.approx(choice.entropy, abs=1e-4), told
        assert answer["entropy"] == pytest.approx(choice.final_entropy, abs=1e-4), told
        assert sum(answer["removed"].values()) == pytest.approx(choice.tail_mass, abs=1e-5), told
        assert answer["rank"] == choice.rank(7), told


def codes(choice: Choice) -> torch.Tensor:
    """`Choice.cut` in the numbers of the browser, which knows neither forced nor banned tokens."""
    table = torch.tensor([0, 1, 0, 0, 2, 3, 4, 5, 6], dtype=torch.uint8)  # 0 and KNOBS
    return table[choice.cut.long()]


def settings_at_random(seed: int, n: int) -> list[Sampling]:
    pick = random.Random(seed)
    return [
        Sampling(
            temperature=pick.choice([0.0, 0.05, 0.3, 0.8, 1.0, 1.7, 4.0]),
            top_k=pick.choice([0, 0, 1, 5, 40, 700, 20_000, 300_000]),
            top_p=pick.choice([1.0, 1.0, 0.05, 0.5, 0.95, 0.999]),
            min_p=pick.choice([0.0, 0.0, 0.001, 0.1, 0.7, 1.0]),
            repetition_penalty=pick.choice([1.0, 1.0, 0.8, 1.3, 3.0]),
            python=pick.choice([False, True]),
        )
        for _ in range(n)
    ]


@pytest.mark.parametrize("spread", [0.1, 2.5, 9.0])
def test_random_knobs_on_random_logits(sampler: Page, spread: float) -> None:
    torch.manual_seed(int(10 * spread))
    logits = spread * torch.randn(SMALL)
    ids = [*torch.randint(SMALL, (300,)).tolist(), int(logits.argmax())]
    compare(sampler, logits, ids, settings_at_random(int(spread * 10), 24))


def test_tokens_with_which_the_text_could_not_become_python(sampler: Page) -> None:
    torch.manual_seed(4)
    logits = 3 * torch.randn(SMALL)
    logits[7] = float("-inf")
    dead = (*logits.topk(3).indices.tolist(), 7, 9)
    compare(sampler, logits, [1, 2, 3], settings_at_random(5, 24), dead)


def test_the_vocabulary_of_the_original(sampler: Page) -> None:
    torch.manual_seed(1)
    logits = 3 * torch.randn(LARGE)
    compare(sampler, logits, list(range(0, 400, 2)), settings_at_random(1, 8))


@pytest.mark.parametrize(
    "change",
    [
        {"top_k": 2},
        {"top_k": 4},
        {"top_p": 0.3},
        {"top_p": 0.9},
        {"min_p": 0.9},
        {"min_p": 1.0},
        {"temperature": 0.0},
        {"temperature": 1e-31},
        {"temperature": 1e-4},
        {"repetition_penalty": 2.0},
        {"repetition_penalty": 2.0, "top_k": 3},
        {"repetition_penalty": 0.5, "temperature": 0.0},
    ],
    ids=str,
)
def test_equal_tokens_and_signs(sampler: Page, change: dict) -> None:
    logits = torch.full((64,), -3.0)
    logits[[3, 7, 9]] = 2.0  # three that share the first place
    logits[[20, 21, 22, 23]] = 1.0
    logits[40] = -1.0
    setting = replace(Sampling(temperature=1.0), **change)
    compare(sampler, logits, [7, 20, 40, 40], [setting])


def test_tokens_that_the_prompt_rules_out(sampler: Page) -> None:
    torch.manual_seed(2)
    logits = torch.randn(512)
    logits[torch.rand(512) < 0.9] = float("-inf")
    compare(sampler, logits, [1, 2, 3], settings_at_random(3, 24))


def test_a_redraw_takes_less_than_a_frame(sampler: Page) -> None:
    torch.manual_seed(3)
    settings = [Sampling(t / 50, top_k=200, top_p=0.95, min_p=0.01) for t in range(1, 50)]
    answers = in_browser(sampler, 3 * torch.randn(SMALL), [1, 2, 3], settings)
    assert np.median([answer["ms"] for answer in answers]) < 20
