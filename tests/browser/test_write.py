"""Typing Python into the page and watching the model go on."""

from __future__ import annotations

import re

import pytest
from gradio_client import Client
from playwright.sync_api import Page, expect

from tests.browser.driving import Playground

HOSTILE = (
    "x = \"<img src=x onerror='window.hacked=1'>\"  # ${window.hacked=1} `${window.hacked=1}`\n"
    "</pre><script>window.hacked=1</script> {{window.hacked}} \\n \\u0041 &lt;b&gt;\n"
)


@pytest.fixture
def playground(page: Page, app_url: str) -> Playground:
    return Playground(page, app_url)


def test_the_text_is_the_models_to_the_last_space(playground: Playground, app_url: str) -> None:
    prompt = 'class A:\n\tdef f(self):\n        x = {"a":  1}\n\n\n        # é 🐍\n'
    playground.prompt(prompt)
    playground.set("length", 24)
    playground.set("seed", 7)
    playground.generate()
    expected = Client(app_url, verbose=False).predict(
        prompt, 0.8, 0, 0.95, 24, 7, api_name="/generate"
    )
    assert playground.text == prompt + expected
    prompt_share = playground.page.evaluate(
        "[...document.querySelectorAll('#text-panel .token > :not(.new)')]"
        ".map(e => e.textContent).join('')"
    )
    assert prompt_share == prompt


def test_the_text_grows_while_it_is_written(playground: Playground) -> None:
    playground.page.evaluate(
        """() => {
            window.lengths = new Set();
            const code = document.querySelector("#text-panel pre.code");
            new MutationObserver(() => window.lengths.add(code.textContent.length))
                .observe(code, { childList: true, subtree: true });
        }"""
    )
    playground.set("temperature", 2)  # no end of text to be expected
    playground.generate()
    assert playground.page.evaluate("window.lengths.size") >= 3
    stats = playground.page.locator("#text-panel .stats")
    expect(stats).to_have_text(re.compile(r"\d+ tokens · [\d.]+ tokens/s · seed 0"))


def test_typing_and_ctrl_enter_generate_what_was_typed(playground: Playground) -> None:
    playground.prompt("")
    playground.page.keyboard.type("import os  # now")
    playground.set("length", 3)
    playground.page.click("#prompt .cm-content")
    playground.page.keyboard.press("Control+Enter")
    playground.finished("length", "end of text")
    assert playground.text.startswith("import os  # now")


def test_a_slider_moved_to_temperature_zero_makes_the_seed_irrelevant(
    playground: Playground,
) -> None:
    playground.set("length", 12)
    slider = playground.page.get_by_label("range slider for Temperature")
    slider.focus()
    slider.press("Home")
    expect(playground.page.get_by_label("number input for Temperature")).to_have_value("0")
    texts = []
    for seed in (1, 2):
        playground.set("seed", seed)
        playground.generate()
        expect(playground.page.locator("#text-panel .stats")).to_contain_text(f"seed {seed}")
        playground.finished("length", "end of text")
        texts.append(playground.text)
    assert texts[0] == texts[1]


def test_stop_keeps_what_was_written_and_the_next_text_begins_anew(playground: Playground) -> None:
    playground.set("temperature", 2)
    playground.set("length", 1000)
    playground.generate(wait=False)
    expect(playground.page.locator("#text-panel .stats")).to_contain_text("tokens/s")
    playground.page.keyboard.press("Escape")
    playground.finished("stopped")
    kept = playground.text
    assert len(kept) > len("def fibonacci(n):")
    playground.page.wait_for_timeout(500)
    assert playground.text == kept
    playground.set("length", 5)
    playground.set("seed", 1)
    playground.generate()
    expect(playground.page.locator("#text-panel .stats")).to_contain_text("seed 1")
    assert playground.text.startswith("def fibonacci(n):")
    assert playground.text != kept


def test_hostile_text_is_only_text(playground: Playground) -> None:
    playground.prompt(HOSTILE)
    playground.set("length", 4)
    playground.generate()
    assert playground.text.startswith(HOSTILE)
    playground.page.locator("#text-panel .token", has_text="<").first.hover()
    expect(playground.page.locator(".tip")).to_be_visible()
    assert playground.page.evaluate("window.hacked") is None
    assert playground.page.locator("#text-panel img, #text-panel script").count() == 0


def test_a_token_tells_what_it_is(playground: Playground) -> None:
    playground.set("length", 4)
    playground.generate()
    playground.page.locator("#text-panel .token", has_text="def").hover()
    expect(playground.page.locator(".tip")).to_have_text(re.compile(r'^"def.*"id \d+ · prompt$'))


@pytest.mark.parametrize(
    ("prompt", "message"),
    [("a\0b", "NUL"), ("x = 1\n" * 17_000, "102,000 bytes")],
    ids=["NUL", "100 KB"],
)
def test_a_refused_prompt_says_why_and_loses_nothing(
    playground: Playground, prompt: str, message: str
) -> None:
    playground.set("length", 4)
    playground.generate()
    before = playground.text
    playground.prompt(prompt)
    playground.page.click("#generate")
    playground.finished("refused")
    expect(playground.error).to_contain_text(message)
    assert playground.text == before
    playground.prompt("x = 1")
    playground.generate()
    expect(playground.error).to_be_hidden()


def test_an_empty_prompt_begins_a_file(playground: Playground) -> None:
    playground.prompt("")
    playground.set("length", 4)
    playground.generate()
    expect(playground.notes).to_contain_text("begins a new file")


def test_a_prompt_that_is_not_python_is_remarked_on(playground: Playground) -> None:
    playground.prompt("日本語のテキストがここにあります。" * 3)
    playground.set("length", 4)
    playground.generate()
    expect(playground.notes).to_contain_text("does not look like the Python")


def test_a_text_longer_than_the_context_dims_what_is_no_longer_seen(
    playground: Playground,
) -> None:
    prompt = "".join(f"value_{i} = compute({i})\n" for i in range(200))
    playground.prompt(prompt)
    playground.set("length", 4)
    playground.generate()
    assert playground.text.startswith(prompt)
    expect(playground.notes).to_contain_text("longer than the context")
    expect(playground.page.locator("#text-panel .token.unseen").first).to_be_attached()
    expect(playground.page.locator("#heads-panel .message")).to_contain_text("these maps show")


def test_an_example_fills_the_editor(playground: Playground) -> None:
    playground.page.get_by_role("button", name="docstring", exact=True).click()
    expect(playground.page.locator("#prompt .cm-content")).to_contain_text("read_config")
