"""Typing Python into the page and watching the model go on."""

from __future__ import annotations

import re

import pytest
from gradio_client import Client
from playwright.sync_api import Browser, Page, expect

from ptx.playground.limits import LIMITS
from ptx.sampling import USUAL
from tests.browser.driving import Playground

HOSTILE = (
    "x = \"<img src=x onerror='window.hacked=1'>\"  # ${window.hacked=1} `${window.hacked=1}`\n"
    "</pre><script>window.hacked=1</script> {{window.hacked}} \\n \\u0041 &lt;b&gt;\n"
    "access = 'user\u202e \u2066# admin\u2069 \u2066'"
    "  # zero\u200bwidth\ufeff \u00a0 \x1b[31m \x85\n"
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
        prompt, length=24, seed=7, api_name="/generate"
    )
    assert playground.text == prompt + expected
    prompt_share = playground.page.evaluate(
        "[...document.querySelectorAll('#text-panel :is(.token, .token > *)')]"
        ".filter(e => !e.childElementCount && !e.matches('.new'))"
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
    playground.set("length", 80)
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


def test_nothing_is_closed_for_who_types_and_an_indent_is_four_blanks(
    playground: Playground,
) -> None:
    playground.prompt("")
    playground.page.keyboard.type('def f(x):\nif g("a')
    playground.wait_for("state.tokens.map(t => t.text).join('') === arg", 'def f(x):\n    if g("a')
    playground.prompt("")
    playground.page.keyboard.type("a = [\n1,\n2]\n")
    playground.page.keyboard.press("Shift+Tab")
    playground.page.keyboard.type("b")
    playground.page.keyboard.press("Tab")
    playground.page.keyboard.type("c")
    wanted = "a = [\n    1,\n    2]\nb   c"
    playground.wait_for("state.tokens.map(t => t.text).join('') === arg", wanted)
    playground.page.keyboard.press("Control+a")
    playground.page.keyboard.press("Tab")
    wanted = "    a = [\n        1,\n        2]\n    b   c"
    playground.wait_for("state.tokens.map(t => t.text).join('') === arg", wanted)
    playground.page.keyboard.press("Escape")
    playground.page.keyboard.press("Tab")
    expect(playground.page.get_by_role("button", name="function")).to_be_focused()


def test_the_editor_keeps_its_height_and_one_long_line_scrolls_in_it(
    playground: Playground,
) -> None:
    editor = playground.page.locator("#prompt")
    before = editor.bounding_box()["height"]
    playground.read("def g():")
    assert editor.bounding_box()["height"] == before
    playground.read(f"x = [{', '.join(map(str, range(900)))}")
    assert editor.bounding_box()["height"] < 500


def test_of_many_presses_of_generate_the_last_one_is_written(playground: Playground) -> None:
    """Without an error of the server: a text that nothing is known of yet cannot be stopped."""
    playground.set("temperature", 2)
    playground.set("length", 60)
    for pause in (0, 50, 200):
        for _ in range(6):
            playground.page.click("#generate")
            playground.page.wait_for_timeout(pause)
        playground.wait_for("!state.writing")
        assert playground.state("status")["finish"] in ("length", "end of text")
        assert playground.state("status")["generated"] > 0


def test_the_prompt_is_tokens_as_it_is_typed(playground: Playground) -> None:
    playground.read("for i in range(10):\n    print(i)\n")
    expect(playground.syntax).to_have_text("✓ parses as Python")
    assert playground.state("cursor") == playground.state("ids.length")
    playground.read("def f(x:\n    pass\n")
    expect(playground.syntax).to_contain_text("line 1")
    playground.read("def f(x")
    expect(playground.syntax).to_have_text("… unfinished Python")


def test_a_slider_moved_to_temperature_zero_makes_the_seed_irrelevant(
    playground: Playground,
) -> None:
    playground.set("length", 12)
    slider = playground.page.get_by_label("Temperature, slider")
    slider.focus()
    slider.press("Home")
    expect(playground.page.get_by_label("Temperature", exact=True)).to_have_value("0")
    texts = []
    for seed in (1, 2):
        playground.set("seed", seed)
        playground.generate()
        expect(playground.page.locator("#text-panel .stats")).to_contain_text(f"seed {seed}")
        playground.finished("length", "end of text")
        texts.append(playground.text)
    assert texts[0] == texts[1]


def test_a_number_that_cannot_be_is_put_right(playground: Playground) -> None:
    playground.set("temperature", -3)
    expect(playground.page.get_by_label("Temperature", exact=True)).to_have_value("0")
    playground.set("length", 10**9)
    assert playground.state("knobs.length") <= 4096
    playground.set("length", 0)
    assert playground.state("knobs.length") == 1
    playground.page.get_by_role("button", name="Reset", exact=True).click()
    for knob in ("temperature", "top_k", "top_p", "min_p", "repetition_penalty"):
        assert playground.state(f"knobs.{knob}") == getattr(USUAL, knob)


def test_stop_keeps_what_was_written_and_continue_goes_on(playground: Playground) -> None:
    playground.set("temperature", 2)
    playground.set("length", 1000)
    playground.generate(wait=False)
    expect(playground.page.locator("#text-panel .stats")).to_contain_text("tokens/s")
    playground.page.keyboard.press("Escape")
    playground.finished("stopped")
    kept, ids = playground.text, playground.state("ids")
    assert len(kept) > len("def count_words(text):")
    playground.page.wait_for_timeout(500)
    assert playground.text == kept
    playground.set("length", 5)
    playground.page.click("#continue")
    playground.finished("length", "end of text")
    assert playground.text.startswith(kept.rstrip("\ufffd"))
    assert playground.state("ids")[: len(ids)] == ids
    assert playground.state("prompt") < len(ids)


def test_a_text_asked_for_in_the_moment_in_which_another_ends_is_written(
    playground: Playground,
) -> None:
    """What comes with the last frame is no Stop any more: Gradio would tell of two ends, and the
    second would be taken for the new text's."""
    playground.set("temperature", 2)
    playground.set("length", 20)
    for delay in (0, 3, 8):
        playground.page.evaluate(
            """(delay) => {
                const { take } = ptx.writing;
                window.asked = false;
                ptx.writing.take = (frame) => {
                    take(frame);
                    if (!frame?.finish) return;
                    ptx.writing.take = take;
                    setTimeout(() => {
                        ptx.writing.generate();
                        window.asked = true;
                    }, delay);
                };
            }""",
            delay,
        )
        playground.generate(wait=False)
        playground.page.wait_for_function("window.asked && !ptx.store.state.writing")
        assert playground.state("status")["finish"] in ("length", "end of text")
        assert len(playground.state("ids")) > playground.state("prompt")


def test_the_end_of_a_stopped_text_told_twice_is_not_that_of_the_next(
    playground: Playground,
) -> None:
    playground.set("temperature", 2)
    playground.set("length", 300)
    playground.generate(wait=False)
    expect(playground.page.locator("#text-panel .stats")).to_contain_text("tokens/s")
    playground.page.evaluate(
        """() => {
            const { ended } = ptx.writing;
            ptx.writing.ended = () => {
                ptx.writing.ended = ended;
                ended(); // asks for the next text
                ended(); // before that one has a frame
            };
            ptx.writing.generate();
        }"""
    )
    playground.finished("length", "end of text")
    assert len(playground.state("ids")) > playground.state("prompt")


def test_the_end_of_a_text_told_late_and_often_is_not_that_of_the_next(
    playground: Playground,
) -> None:
    playground.set("temperature", 2)
    playground.set("length", 300)
    playground.generate(wait=False)
    playground.wait_for("state.status.generated > 3")
    playground.page.evaluate("() => { for (let i = 0; i < 3; i += 1) ptx.writing.ended(); }")
    playground.page.wait_for_timeout(50)
    assert playground.state("status")["finish"] != "interrupted"
    playground.finished("length", "end of text")
    playground.page.wait_for_timeout(3500)
    assert playground.state("status")["finish"] in ("length", "end of text")


def test_a_server_that_takes_no_more_texts_ends_the_waiting(browser: Browser, app_url: str) -> None:
    page = browser.new_page()  # whose console may tell of the refusal
    playground = Playground(page, app_url)
    full = {"status": 503, "json": {"detail": "Queue is full."}}
    page.route("**/queue/join*", lambda route: route.fulfill(**full))
    playground.generate(wait=False)
    playground.finished("interrupted")
    page.unroute("**/queue/join*")
    playground.set("length", 4)
    playground.generate()
    playground.wait_for("!state.writing && state.status.generated === 4")
    page.close()


def test_a_late_answer_about_the_prompt_does_not_take_the_place_of_the_text(
    playground: Playground,
) -> None:
    playground.page.evaluate(
        """() => {
            const real = ptx.ask;
            const ended = new Promise((resolve) => (window.release = resolve));
            ptx.ask = async (name, request) => {
                const answer = await real(name, request);
                if (name === "tokens") {
                    window.held = true;
                    await ended;
                }
                return answer;
            };
        }"""
    )
    playground.set("length", 4)
    playground.prompt("import json")
    playground.page.wait_for_function("window.held")
    playground.generate()
    playground.wait_for("!state.writing")
    text, ids = playground.text, playground.ids
    playground.page.evaluate("release()")
    playground.page.wait_for_timeout(500)
    assert (playground.text, playground.ids) == (text, ids)
    assert text.startswith("import json")


def test_what_is_typed_while_a_text_streams_stays_and_is_read_then(
    playground: Playground,
) -> None:
    editor = playground.page.locator("#prompt .cm-content")
    playground.set("temperature", 2)
    playground.set("length", 1000)
    playground.generate(wait=False)
    playground.wait_for("state.status.generated > 3")
    editor.click()
    playground.page.keyboard.press("Control+End")
    playground.page.keyboard.type("  # typed", delay=60)
    written = playground.state("status.generated")
    playground.wait_for("state.status.generated > arg + 20", written)
    expect(editor).to_have_text("def count_words(text):  # typed")
    playground.page.click("#stop")
    playground.wait_for(
        "!state.writing && state.tokens.map(t => t.text).join('') === arg",
        "def count_words(text):  # typed",
    )
    expect(editor).to_have_text("def count_words(text):  # typed")
    playground.page.get_by_role("button", name="Undo", exact=True).click()
    playground.wait_for("state.ids.length > state.prompt + arg", written)
    expect(editor).to_have_text("def count_words(text):")


def test_undo_brings_the_text_and_its_prompt_back_and_redo_the_next(
    playground: Playground,
) -> None:
    editor = playground.page.locator("#prompt .cm-content")
    playground.set("length", 4)
    playground.generate()
    first = playground.text
    playground.read("import os\n")
    playground.generate()
    second = playground.text
    assert second.startswith("import os\n")
    undo = playground.page.get_by_role("button", name="Undo", exact=True)
    undo.click()  # the prompt alone
    undo.click()
    expect(editor).to_have_text("def count_words(text):")
    assert playground.text == first
    undo.click()
    assert playground.text == "def count_words(text):"
    expect(undo).to_be_disabled()
    for _ in range(3):
        playground.page.get_by_role("button", name="Redo", exact=True).click()
    assert playground.text == second
    expect(editor).to_have_text("import os")


def test_hostile_text_is_only_text_and_what_hides_is_shown(playground: Playground) -> None:
    playground.prompt(HOSTILE)
    playground.set("length", 4)
    playground.generate()
    assert playground.text.startswith(HOSTILE)
    playground.page.locator("#text-panel .token", has_text="<").first.hover()
    expect(playground.page.locator("#text-panel .tip")).to_be_visible()
    assert playground.page.evaluate("window.hacked") is None
    assert playground.page.locator("#text-panel img, #text-panel script").count() == 0
    marks = playground.page.locator("#text-panel .blank-unseen").evaluate_all(
        "nodes => nodes.map(node => node.dataset.mark)"
    )
    heights = playground.page.locator("#text-panel .blank-unseen").evaluate_all(
        "nodes => nodes.map(node => node.getBoundingClientRect().height)"
    )
    assert min(heights) > 8  # there to be read
    assert {"U+202E", "U+2066", "U+2069", "U+200B", "U+FEFF", "U+00A0", "␛", "U+0085"} <= set(marks)
    # the bench and the words about the cursor too
    for _ in range(3):
        playground.page.keyboard.press("Tab")
    playground.cursor_to(6)
    assert playground.page.evaluate("window.hacked") is None
    assert playground.page.locator(".panel img, .panel script").count() == 0


def test_a_lone_surrogate_does_not_break_the_page(playground: Playground) -> None:
    playground.set("length", 3)
    playground.page.evaluate("ptx.writing.edit('x = \"\\ud800\"\\n')")
    playground.wait_for("state.tokens.map(t => t.text).join('').includes('\\ufffd')")
    playground.generate()
    assert playground.text.startswith('x = "')


def test_the_focus_stays_where_something_can_be_done(playground: Playground) -> None:
    playground.set("length", 3)
    playground.page.locator("#continue").press("Enter")
    playground.finished("length", "end of text")
    expect(playground.page.locator("#generate")).to_be_focused()
    playground.page.locator("#undo").press("Enter")
    expect(playground.page.locator("#redo")).to_be_focused()


def test_a_window_over_the_page_has_the_keys(playground: Playground) -> None:
    page = playground.page
    playground.set("temperature", 2)
    playground.set("length", 400)
    playground.generate(wait=False)
    playground.wait_for("state.status.generated > 3")
    page.click("#show-python")
    page.keyboard.press("Escape")
    expect(page.locator(".code-window")).to_have_count(0)
    assert playground.state("writing")
    page.keyboard.press("Escape")
    playground.finished("stopped")
    page.click("#show-python")
    page.keyboard.press("Control+Enter")
    page.wait_for_timeout(200)
    assert not playground.state("writing")


def test_a_prompt_that_is_no_longer_too_long_is_not_complained_of(playground: Playground) -> None:
    before = playground.text
    playground.prompt("x" * (LIMITS.prompt_bytes + 1))
    expect(playground.error).to_contain_text("are read: shorten it")
    playground.prompt(before)
    expect(playground.error).to_be_hidden()


def test_what_a_token_is_fits_a_phone(page: Page, app_url: str) -> None:
    playground = Playground(page, app_url)
    page.set_viewport_size({"width": 390, "height": 800})
    page.evaluate(
        """() => {
            const { tokens } = ptx.store.state;
            const refused = [[1, "a_long_identifier"], [2, "and_another_one"], [3, "x"]];
            const all = tokens.map((token) => ({ ...token, p: 0.5, bits: 1, refused }));
            ptx.store.set({ tokens: all });
        }"""
    )
    playground.code.locator(".token", has_text="def").hover()
    tip = page.locator("#text-panel .tip")
    expect(tip).to_contain_text("and 1 more")
    assert tip.evaluate("tip => tip.scrollWidth <= tip.clientWidth")


def test_a_token_tells_what_it_is(playground: Playground) -> None:
    playground.set("length", 4)
    playground.generate()
    playground.page.locator("#text-panel .token", has_text="def").hover()
    tip = playground.page.locator("#text-panel .tip")
    expect(tip).to_have_text(re.compile(r"^defid \d+ · prompt( · [\d.]+ bits)?$"))
    playground.page.locator("#text-panel .token:is(.new, :has(.new))").last.hover()
    expect(tip).to_have_text(re.compile(r"id \d+ · [\d.]+ bits · drawn with [\d.]+ %$"))


def test_colours_are_those_of_the_legend(playground: Playground) -> None:
    playground.set("length", 12)
    playground.generate()
    playground.wait_for("state.tokens.every((token, i) => !i || token.bits !== null)")
    ramp = """at => {
        const ramp = document.querySelector(".heat-ramp");
        const probe = document.body.appendChild(document.createElement("div"));
        probe.style.background = `color-mix(in oklch, var(--heat-low), var(--heat-high) ${at}%)`;
        const color = getComputedStyle(probe).backgroundColor;
        probe.remove();
        return color;
    }"""
    page = playground.page
    for name, place in (("Surprise", lambda b: b / 12), ("Probability", lambda b: 1 - 2**-b)):
        page.get_by_label("Colours").select_option(label=name)
        shown = page.locator("#text-panel .token").evaluate_all(
            "nodes => nodes.map(node => getComputedStyle(node).backgroundColor)"
        )
        bits = playground.state("tokens.map(token => token.bits)")
        for i in range(1, len(bits)):
            at = round(100 * min(1, place(bits[i])))
            assert shown[i] == page.evaluate(ramp, at), (name, i, bits[i])
    gradient = page.locator(".heat-ramp").evaluate("e => getComputedStyle(e).backgroundImage")
    assert "in oklch" in gradient
    expect(page.locator(".heat-legend")).to_contain_text("percent")


def test_blanks_are_shown_on_request_and_never_copied(playground: Playground) -> None:
    playground.read("if x:\n\ty = 1\n    # two  spaces\n")
    text = playground.text
    button = playground.page.get_by_role("button", name="· → ↵")
    button.click()
    expect(button).to_have_attribute("aria-pressed", "true")
    mark = "e => getComputedStyle(e, '::before').content"
    assert playground.page.locator(".blank-line").first.evaluate(mark) == '"↵"'
    assert playground.page.locator(".blank-tab").first.evaluate(mark) == '"→"'
    assert playground.text == text


@pytest.mark.parametrize(
    ("prompt", "message"),
    [("a\0b", "NUL"), ("x = 1\n" * 170_000, "1,020,000 bytes")],
    ids=["NUL", "1 MB"],
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
    unseen = playground.page.locator("#text-panel .token.unseen")
    newest = playground.state("cursor")
    assert unseen.count() == playground.page.evaluate("c => ptx.store.visibleFrom(c)", newest)
    expect(playground.seen).to_contain_text("it saw the last")
    playground.cursor_to(3)
    expect(unseen).to_have_count(0)


def test_an_example_fills_the_editor(playground: Playground) -> None:
    playground.page.get_by_role("button", name="docstring", exact=True).click()
    expect(playground.page.locator("#prompt .cm-content")).to_contain_text("read_config")
    playground.wait_for("state.tokens.map(t => t.text).join('').includes('read_config')")


def test_a_text_that_waits_says_how_many_are_before_it(playground: Playground) -> None:
    playground.page.evaluate(
        "ptx.store.set({ writing: true, status: { place: 3, waiting: true } })"
    )
    expect(playground.finish).to_have_text("waiting: 3 texts are before this one")
    playground.page.evaluate("ptx.store.set({ status: { place: 0, waiting: true } })")
    expect(playground.finish).to_have_text("waiting for the model…")


def test_nothing_moves_while_a_text_streams(playground: Playground) -> None:
    """A visitor may read, or point at something, meanwhile."""
    page = playground.page
    page.evaluate(
        """() => {
            window.places = new Set();
            const names = ["#text-panel", "#knobs-panel", "#bench-panel", "#text-panel .seen"];
            const note = () => {
                window.places.add(JSON.stringify(names.map((name) => {
                    const box = document.querySelector(name).getBoundingClientRect();
                    const height = name.endsWith("panel") ? box.height : 0;
                    return [box.x, box.y + scrollY, height].map(Math.round);
                })));
                requestAnimationFrame(note);
            };
            note();
        }"""
    )
    playground.set("temperature", 2)
    playground.set("length", 60)
    playground.generate()
    assert page.evaluate("window.places.size") == 1, page.evaluate("[...window.places]")


BELOW = """() => {  // pixels of the text under its frame
    const code = document.querySelector("#text-panel pre.code");
    return Math.round(code.scrollHeight - code.clientHeight - code.scrollTop);
}"""


@pytest.mark.parametrize("lines", [1, 60])  # 60 are more than the frame shows
def test_a_text_that_is_followed_is_in_sight_to_its_end(playground: Playground, lines: int) -> None:
    page = playground.page
    playground.read("def fibonacci(n):\n    return 1\n" * (lines // 2) + "def fibonacci(n):")
    playground.set("length", 200)
    for seed in range(3):
        playground.set("seed", seed)
        playground.generate()
        page.wait_for_function(f"({BELOW})() === 0")
        page.wait_for_timeout(300)  # nor does it move away
        assert page.evaluate(BELOW) == 0


def test_a_text_that_streams_is_scrolled_before_the_frame_it_is_drawn_in(
    playground: Playground,
) -> None:
    page = playground.page
    playground.read("def fibonacci(n):\n    return 1\n" * 30)
    page.evaluate(
        f"""() => {{  // panels are told in the order of their listeners: the text before this one
            const {{ state, on }} = ptx.store;
            window.below = [];
            on(["tokens"], () => state.status.generated && window.below.push(({BELOW})()));
        }}"""
    )
    playground.set("length", 300)
    playground.generate()
    below = page.evaluate("window.below")
    assert len(below) >= 2
    assert set(below) == {0}


def test_blocks_of_a_long_text_are_laid_out_in_sight_but_for_the_last(
    playground: Playground,
) -> None:
    playground.read("a = 1\n" * 200)
    found = playground.code.evaluate(
        "code => [...code.children].map(block => getComputedStyle(block).contentVisibility)"
    )
    assert len(found) > 4
    assert found == ["auto"] * (len(found) - 2) + ["visible"] * 2


def test_a_token_of_one_colour_is_one_node(playground: Playground) -> None:
    playground.read("import os\n\n\ndef f(name):  # why\n")
    token = playground.page.locator("#text-panel .token")
    found = [
        token.filter(has_text=text).evaluate("e => [e.childElementCount, e.className]")
        for text in ("def", "name", " why")
    ]
    assert found == [[0, "token py-keyword"], [0, "token py-other"], [0, "token py-comment"]]


def test_white_space_is_a_node_of_its_own_only_where_blanks_are_shown(
    playground: Playground,
) -> None:
    playground.read("def f(x):\n    return x, [1]  # why\n")
    alone = """() => [...document.querySelectorAll("#text-panel .token > *")]
        .filter(({ textContent, parentElement }) =>
            !textContent.trim() && parentElement.childElementCount > 1).length"""
    nodes = "document.querySelectorAll('#text-panel .token > *').length"
    button, text = playground.page.get_by_role("button", name="· → ↵"), playground.text
    before = playground.page.evaluate(nodes)
    assert playground.page.evaluate(alone) == 0
    button.click()
    assert playground.page.evaluate(alone) > 0
    button.click()
    assert playground.page.evaluate(nodes) == before
    assert playground.text == text


def test_a_person_who_scrolls_up_is_not_taken_back(playground: Playground) -> None:
    page = playground.page
    playground.set("length", 1000)
    playground.generate(wait=False)
    page.wait_for_function("document.querySelector('#text-panel pre.code').scrollTop > 200")
    playground.code.hover()
    page.mouse.wheel(0, -10_000)
    page.wait_for_function("document.querySelector('#text-panel pre.code').scrollTop === 0")
    before = playground.state("ids.length")
    playground.wait_for("state.ids.length > arg", before + 100)
    assert playground.code.evaluate("code => code.scrollTop") == 0
    page.mouse.wheel(0, 100_000)
    page.wait_for_function(f"({BELOW})() === 0")
    before = playground.state("ids.length")
    playground.wait_for("state.ids.length > arg", before + 100)
    page.wait_for_function(f"({BELOW})() === 0")


def test_hints_can_be_followed_and_stay_closed(playground: Playground, app_url: str) -> None:
    page = playground.page
    hints = page.get_by_role("complementary", name="Hints")
    expect(hints).to_contain_text("1/5")
    playground.set("length", 3)
    page.get_by_role("button", name="Show me").click()
    playground.finished("length", "end of text")
    for _ in range(2):
        page.get_by_role("button", name="Next hint").click()
    expect(hints).to_contain_text("3/5")
    page.get_by_role("button", name="Show me").click()
    expect(page.get_by_label("Temperature, slider")).to_be_focused()
    page.get_by_role("button", name="Close the hints").press("Enter")
    expect(page.get_by_role("button", name="Show the hints")).to_be_focused()
    playground.reload()
    expect(page.get_by_role("button", name="Show the hints")).to_be_visible()
    expect(hints).to_be_hidden()
