"""Taking a picture with you: a link that opens it again, and the Python that computes it."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from ptx import lens, load_model
from ptx.sampling import USUAL, Choice
from tests.browser.driving import Playground

ROOT = Path(__file__).parents[2]
PICTURE = """() => {
    const { model, ids, prompt, knobs, cursor, view, pinned, muted } = ptx.store.state;
    return { model: model.key, ids, prompt, knobs, cursor, view, pinned, muted };
}"""


@pytest.fixture
def playground(page: Page, app_url: str) -> Playground:
    return Playground(page, app_url)


def picture(page: Page) -> dict[str, Any]:
    return page.evaluate(PICTURE)


def address_follows(page: Page) -> None:
    """Waits until the address is that of what is on the screen."""
    while not page.evaluate("async () => (await ptx.link.address()).href === location.href"):
        page.wait_for_timeout(50)


def arrange(playground: Playground) -> dict[str, Any]:
    """A text, a cursor, knobs and heads that are not what a page begins with."""
    playground.prompt("class Añejo:\n    def grüße(self):\n        return '\\u00e9 🐍'\n")
    playground.set("length", 8)
    playground.set("top-k", 40)
    playground.generate()
    playground.page.evaluate(
        "ptx.store.set({ cursor: 9, following: false, pinned: ['1.2', '3.0'], muted: ['0.1'] })"
    )
    return picture(playground.page)


def link(page: Page) -> str:
    return page.evaluate("ptx.link.address().then(({ href }) => href)")


def test_a_link_opens_the_same_picture_in_another_browser(
    playground: Playground, browser: Browser, app_url: str
) -> None:
    before = arrange(playground)
    other = browser.new_context().new_page()
    other.goto(link(playground.page))
    expect(other.locator("#text-panel pre.code")).to_have_text(playground.text)
    expect(other.locator("#prompt .cm-content")).to_contain_text("class Añejo:")
    other.wait_for_function("ptx.store.state.cursor === 9")
    assert picture(other) == before
    other.close()


def test_a_reload_finds_a_text_that_was_being_written(playground: Playground) -> None:
    playground.set("temperature", 2)
    playground.set("length", 800)  # more than comes at once
    # in the page itself: the text could have ended before the test had asked for more
    text = playground.page.evaluate(
        """() => new Promise((done) => {
            const { on, state } = ptx.store;
            let left = false;
            on(["status"], () => {
                if (left || !state.writing || !(state.status.generated > 50)) return;
                left = true;
                dispatchEvent(new PageTransitionEvent("pagehide")); // as a reload tells it
                done(state.tokens.map((token) => token.text).join(""));
            });
            document.getElementById("generate").click();
        })"""
    )
    playground.page.keyboard.press("Escape")
    playground.finished("stopped", "length")
    playground.reload()
    playground.wait_for("state.tokens.length > 50 && state.look")
    assert playground.text == text
    expect(playground.notes).to_contain_text("The page was left while this text was written")
    address_follows(playground.page)
    playground.reload()
    playground.wait_for("state.tokens.length > 50 && state.look")
    assert playground.text == text
    expect(playground.notes).to_have_text("")


def test_a_reload_shows_the_cursor_and_the_theme(playground: Playground) -> None:
    playground.read("x = 1\n" * 80)
    at = playground.state("ids.length") - 9
    playground.page.evaluate("at => ptx.store.set({ cursor: at, following: false })", at)
    playground.page.click("#theme")
    dark = playground.page.evaluate("ptx.isDark()")
    address_follows(playground.page)
    playground.reload()
    playground.wait_for("state.cursor === arg && state.look?.at === arg", at)
    frame = playground.code.bounding_box()
    box = playground.code.locator(".token.at").bounding_box()
    assert frame["y"] <= box["y"] <= frame["y"] + frame["height"]
    assert playground.page.evaluate("ptx.isDark()") == dark


def test_a_reload_changes_nothing(playground: Playground) -> None:
    before = arrange(playground)
    address_follows(playground.page)
    playground.reload()
    playground.page.wait_for_function("window.ptx?.store?.state.cursor === 9")
    assert picture(playground.page) == before


def test_a_text_too_long_for_a_link_says_so(playground: Playground) -> None:
    words = "".join(f"v{i * 7919 % 100_003} = {i * 104_729 % 99_991}\n" for i in range(900))
    playground.prompt(words)
    playground.page.wait_for_function("ptx.store.state.ids.length > 1000")
    playground.page.click("#copy-link")
    problem = playground.page.locator("#header-panel .message.error")
    expect(problem).to_contain_text("shorten the prompt")
    expect(problem).to_contain_text("8,000")


@pytest.mark.parametrize(
    "letters",
    [
        "x",
        "AAAA",
        "!!!!",
        "%00",
        "i={m:1}",
        # packed: lists, numbers, wrong types, ids outside the vocabulary, heads that are not there
        "PACK:[1,2]",
        "PACK:7",
        'PACK:{"m":"../../etc","w":3,"i":["a"],"k":{"temperature":"<img>"},"h":["9.9"],"c":-4}',
        'PACK:{"m":"","w":"x = 1","i":[16384,99999999],"n":1,"c":1}',
        'PACK:{"m":"","w":"x = 1","h":["01.0","0x1.0"],"k":{"temperature":-5,"top_p":0}}',
        'PACK:{"m":"","w":"x = 1","h":[1.1],"u":[1.1]}',
        'PACK:{"m":"","w":"<img src=x onerror=window.hacked=1>","v":"<b>","u":[{}],"h":[null]}',
    ],
)
def test_a_broken_link_opens_the_page_all_the_same(
    page: Page, playground: Playground, app_url: str, letters: str
) -> None:
    if letters.startswith("PACK:"):
        value = letters.removeprefix("PACK:")
        letters = page.evaluate("text => ptx.link.pack(JSON.parse(text))", value)
    page.goto("about:blank")
    page.goto(f"{app_url}/#{letters}")
    page.wait_for_function("window.ptx?.store?.state.ids.length > 1")
    page.wait_for_timeout(500)
    heads = playground.state("pinned") + playground.state("muted")
    assert all(isinstance(head, str) and re.fullmatch(r"[0-9]\.[0-9]", head) for head in heads)
    knobs = playground.state("knobs")
    assert knobs["temperature"] >= 0
    assert knobs["top_p"] > 0
    playground.set("length", 3)
    playground.generate()
    assert page.evaluate("window.hacked") is None


def write_on(page: Page) -> None:
    """A thousand tokens more, at once: the address follows no text that is being written."""
    page.evaluate(
        """() => {
            ptx.store.set({ knobs: { ...ptx.store.state.knobs, temperature: 2, length: 1000 } });
            ptx.writing.goOn();
        }"""
    )


def paste(playground: Playground, href: str, expected: dict[str, Any]) -> None:
    """Puts a link into the address and waits for the picture that it is of."""
    playground.page.evaluate("href => (location.href = href)", href)
    opened = "!state.writing && state.cursor === arg.cursor && state.ids.length === arg.ids.length"
    playground.wait_for(opened, expected)
    assert picture(playground.page) == expected


def test_a_link_pasted_while_a_text_is_written_opens_there(playground: Playground) -> None:
    before = arrange(playground)
    href = link(playground.page)
    playground.read("import os\n")
    playground.page.wait_for_function("href => location.href !== href", arg=href)
    write_on(playground.page)
    playground.wait_for("state.status.generated > 2")
    paste(playground, href, before)


def test_a_link_that_the_address_holds_already_opens_there_too(playground: Playground) -> None:
    before = arrange(playground)
    href = link(playground.page)
    playground.page.wait_for_function("href => location.href === href", arg=href)
    write_on(playground.page)
    playground.wait_for("state.status.generated > 2")
    paste(playground, href, before)


def test_a_link_of_a_model_that_is_not_here_opens_its_prompt_alone(
    playground: Playground,
) -> None:
    page = playground.page
    value = {"m": "runs/gone/step_000400", "l": "step_000400", "w": "import re\n",
             "i": [0, 1, 2, 3], "n": 1, "c": 2}  # fmt: skip
    page.evaluate("async value => (location.hash = await ptx.link.pack(value))", value)
    playground.wait_for("state.tokens.map(t => t.text).join('') === 'import re\\n'")
    problem = page.locator("#header-panel .message.error")
    expect(problem).to_contain_text("runs/gone/step_000400, which is not here")
    # what one page opened with, another has in its list, and the other way round
    value |= {"m": "mini", "l": "mini", "w": "x = 1", "i": []}
    page.evaluate("async value => (location.hash = await ptx.link.pack(value))", value)
    playground.wait_for("state.tokens.map(t => t.text).join('') === 'x = 1'")
    expect(problem).to_be_hidden()


def test_the_python_computes_what_the_page_shows(playground: Playground) -> None:
    playground.prompt('name = "quo\\te 🐍"  # $x `y` {z}\ndef f(')
    playground.set("length", 6)
    playground.set("seed", 3)
    playground.generate()
    page = playground.page
    page.evaluate("ptx.store.set({ cursor: 12, following: false, muted: ['0.1'] })")
    page.wait_for_function("ptx.store.state.look?.at === 12")
    page.click("#show-python")
    code = page.locator(".code-window pre").text_content() or ""
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count(playground.text) == 1
    assert page.evaluate("ptx.store.state.look.entropy") == pytest.approx(
        float(ran.stdout.split("entropy ")[1].split()[0]), abs=1e-4
    )
    page.get_by_role("button", name="Close", exact=True).last.click()
    expect(page.locator(".code-window")).to_have_count(0)


def saved(page: Page, picture: str, kind: str) -> Path:
    """What the button `kind` of a picture saves."""
    group = page.get_by_role("group", name=f"Save {picture}", exact=True)
    with page.expect_download() as download:
        group.get_by_role("button", name=kind, exact=True).click()
    return download.value.path()


@pytest.mark.parametrize("picture", ["attention", "why", "next-token"])
def test_a_picture_is_saved_as_it_is_seen(playground: Playground, picture: str) -> None:
    with Image.open(saved(playground.page, picture, "PNG")) as image:
        assert image.width > 300
        assert image.height > 150
        assert len(image.convert("RGB").getcolors(1 << 20) or ()) > 40  # text, lines, colours


def test_saved_attention_is_exact(playground: Playground) -> None:
    page = playground.page
    page.evaluate("ptx.store.set({ pinned: ['2.1', '0.3'] })")
    rows = list(csv.DictReader(saved(page, "attention", "CSV").open(newline="")))
    model, _, _ = load_model(ROOT / "checkpoints" / "mini")
    weights = lens.attention(model, playground.ids)
    size = len(playground.ids)
    assert len(rows) == size * (size + 1)
    for row in rows:
        layer, head, q, k = (int(row[n]) for n in ("layer", "head", "query", "key"))
        assert float(row["weight"]) == pytest.approx(float(weights[layer, head, q, k]), abs=1e-5)


def test_saved_numbers_are_the_librarys(playground: Playground) -> None:
    playground.set("length", 6)
    playground.set("top-k", 30)
    playground.generate()
    page, ids = playground.page, playground.ids
    at = len(ids) - 2
    playground.cursor_to(at)
    model, _, _ = load_model(ROOT / "checkpoints" / "mini")
    seen = lens.trace(model, ids[:at])
    choice = Choice(seen.logits[-1], replace(USUAL, top_k=30), ids[:at])
    for row in json.loads(saved(page, "next-token", "JSON").read_text("utf-8")):
        assert row["raw"] == pytest.approx(float(choice.raw[row["id"]]), abs=1e-4)
        assert row["final"] == pytest.approx(float(choice.final[row["id"]]), abs=1e-4)
        assert (row["cut_by"] or None) == choice.cut_by(row["id"])
    found = json.loads(saved(page, "why", "JSON").read_text("utf-8"))
    parts = [row["value"] for row in found if row["kind"] in ("embedding", "head", "MLP", "biases")]
    [total] = [row["value"] for row in found if row["kind"] == "total"]
    assert sum(parts) == pytest.approx(total, abs=1e-3)
    layers = [row["value"] for row in found if row["kind"] == "layer"]
    told = lens.logit_lens(model, seen, token=ids[at])
    assert layers == pytest.approx(told.prob.tolist(), abs=1e-5)


def test_the_text_is_saved_token_by_token(playground: Playground) -> None:
    playground.set("length", 5)
    playground.generate()
    with playground.page.expect_download() as download:
        playground.page.locator("#text-panel").get_by_role("button", name="JSON").click()
    rows = [json.loads(line) for line in download.value.path().read_text("utf-8").splitlines()]
    assert [row["id"] for row in rows] == playground.ids
    assert "".join(row["text"] for row in rows) == playground.text
    assert all(0 < row["probability"] <= 1 for row in rows if not row["prompt"])
