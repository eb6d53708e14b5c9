"""Looking at attention: all heads small, some large, lines over the text, heads that are muted."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from playwright.sync_api import Locator, Page, Route, expect

from ptx import lens, load_model
from ptx.lens.trace import Mute
from ptx.stream import visible_from
from tests.browser.driving import Playground

MODEL, TOKENIZER, _ = load_model(Path(__file__).parents[2] / "checkpoints" / "mini")
CONTEXT = MODEL.config.context
HEADS = [(i, j) for i in range(MODEL.config.n_layer) for j in range(MODEL.config.n_head)]
PROMPT = "def mean(values):\n    total = sum(values)\n    return total / len(values)\n\ndef "
# half a step of the byte that a weight travels in, which holds its square root
ENCODING = 0.5 / 255 + 1e-5
SQUARE = """name => {
    const { start, from, rows, size, scale, values } = ptx.attention.square(name);
    return { start, from, rows, size, scale, values: Array.from(values) };
}"""
HAS = "name => ptx.attention.square(name) !== null"


@pytest.fixture
def playground(page: Page, app_url: str) -> Playground:
    return Playground(page, app_url)


def written(playground: Playground, prompt: str, length: int) -> list[int]:
    """A prompt and what the model makes of it; its ids."""
    playground.prompt(prompt)
    playground.set("length", length)
    playground.generate()
    playground.page.wait_for_function("() => !ptx.store.state.writing")
    return playground.ids


COLORS_OF_PICTURES = """() => {
    const canvas = document.querySelector("#heads-panel .atlas .pictures");
    const frame = canvas.getBoundingClientRect();
    const scale = canvas.width / frame.width;
    return [...document.querySelectorAll("#heads-panel .thumb")].map((thumb) => {
        const box = thumb.getBoundingClientRect();
        const place = [box.left - frame.left, box.top - frame.top, box.width, box.height];
        const { data } = canvas.getContext("2d").getImageData(...place.map((n) => n * scale));
        return new Set(new Uint32Array(data.buffer)).size;
    });
}"""
"""How many each head's has."""


def thumb(playground: Playground, name: str) -> Locator:
    return playground.page.get_by_role("button", name=re.compile(rf"^head {re.escape(name)}\b"))


def pin(playground: Playground, *names: str) -> None:
    """These heads, and no others."""
    playground.page.evaluate("names => ptx.store.set({ pinned: names })", list(names))
    for name in names:
        playground.page.wait_for_function(HAS, arg=name)


def map_of(playground: Playground, i: int = 0) -> Locator:
    return playground.page.locator("#heads-panel .maps > .card .map").nth(i)


def square(playground: Playground, name: str) -> tuple[dict[str, Any], torch.Tensor]:
    """What the page holds of a large map, and its weights with their roots, (T, T)."""
    playground.page.wait_for_function(HAS, arg=name)
    told = playground.page.evaluate(SQUARE, name)
    return told, roots(told["values"], told["rows"])


CODED = """({ values, rows }) => {
    const bytes = values.subarray(0, (rows * (rows + 1)) / 2);
    let text = "";
    for (let i = 0; i < bytes.length; i += 8192)
        text += String.fromCharCode(...bytes.subarray(i, i + 8192));
    return btoa(text);
}"""
"""The rows of a square that are known, as letters: as numbers they travel for seconds."""


def decoded(letters: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(letters), np.uint8)


def roots(values: list[int] | np.ndarray, rows: int) -> torch.Tensor:
    found = np.zeros((rows, rows))
    found[np.tril_indices(rows)] = np.array(values[: rows * (rows + 1) // 2]) / 255
    return torch.from_numpy(found)


def in_view(ids: list[int], view: str, mute: Mute | None = None) -> tuple[torch.Tensor, float]:
    """All heads (L, H, T, T) from 0 to 1, and the weight that 1 stands for."""
    seen = lens.trace(MODEL, ids, mute)
    if view == "no sink":
        return lens.without_sink(seen.attention), 1.0
    if view == "weighted":
        weighted = lens.value_weighted(MODEL, seen)
        return lens.to_unit(weighted), float(weighted.max())
    return seen.attention, 1.0


MARKS = """() => {
    const canvas = document.querySelector("#heads-panel .atlas .pictures");
    const frame = canvas.getBoundingClientRect();
    const probe = new OffscreenCanvas(1, 1).getContext("2d");
    probe.fillStyle = ptx.color("--color-accent");
    probe.fillRect(0, 0, 1, 1);
    const wanted = new Uint32Array(probe.getImageData(0, 0, 1, 1).data.buffer)[0];
    return [...document.querySelectorAll("#heads-panel .thumb")].map((thumb) => {
        const box = thumb.getBoundingClientRect();
        const [width, height] = [Math.floor(box.width), Math.floor(box.height)];
        const place = [box.left - frame.left, box.top - frame.top, width, height];
        const { data } = canvas.getContext("2d").getImageData(...place);
        const pixels = new Uint32Array(data.buffer);
        const line = (y) => pixels.subarray(y * width, (y + 1) * width);
        const lines = Array.from({ length: height }, (_, y) => y);
        return lines.filter((y) => line(y).includes(wanted)).map((y) => y / height);
    });
}"""
"""Where each head's picture has the mark of the cursor, as shares of its height."""


# ---- maps ---------------------------------------------------------------------------------------


def test_the_cursor_is_marked_in_every_small_picture(playground: Playground) -> None:
    written(playground, PROMPT, 20)
    for cursor in (10, 30):
        playground.cursor_to(cursor)
        playground.page.wait_for_function("() => ptx.attention.picture()")
        playground.drawn()
        size = playground.page.evaluate("ptx.attention.picture().size")
        marks = playground.page.evaluate(MARKS)
        assert len(marks) == len(HEADS)
        for lines in marks:
            assert len(lines) == 1
            assert lines[0] == pytest.approx((cursor - 0.5) / size, abs=0.04)  # two pixels of 56


def test_every_head_has_a_picture_and_the_legend_has_every_colour(playground: Playground) -> None:
    playground.page.wait_for_function("() => ptx.attention.picture()")
    playground.wait_for("ptx.pins.shown(state).every(ptx.attention.square)")
    playground.drawn()
    colors = playground.page.evaluate(COLORS_OF_PICTURES)
    assert len(colors) == len(HEADS)
    assert min(colors) > 3
    assert playground.colors(playground.map) > 8
    assert playground.colors("#heads-panel .ramp") > 200


@pytest.mark.parametrize("view", ["raw", "without first token", "value-weighted"])
def test_a_pinned_map_is_the_lenss(playground: Playground, view: str) -> None:
    ids = written(playground, PROMPT, 30)
    pin(playground, "4.1", "2.3")
    playground.page.get_by_role("button", name=view, exact=True).click()
    name = {"without first token": "no sink", "value-weighted": "weighted"}.get(view, view)
    weights, scale = in_view(ids, name)
    for layer, head in ((4, 1), (2, 3)):
        told, shown = square(playground, f"{layer}.{head}")
        assert told["rows"] == told["size"] == len(ids)
        assert told["scale"] == pytest.approx(scale, rel=1e-4)
        assert float((shown - weights[layer, head].sqrt()).abs().max()) <= ENCODING


def test_a_view_does_not_change_the_raw_map(playground: Playground) -> None:
    written(playground, PROMPT, 8)
    pin(playground, "4.1")
    before, _ = square(playground, "4.1")
    playground.page.evaluate("window.raw = ptx.attention.square('4.1').values")
    picture = map_of(playground).evaluate("canvas => canvas.toDataURL()")
    for view in ("without first token", "value-weighted"):
        playground.page.get_by_role("button", name=view, exact=True).click()
        playground.page.wait_for_function(HAS, arg="4.1")
        playground.page.wait_for_function(
            "before => document.querySelector('.maps > .card .map').toDataURL() !== before",
            arg=picture,
        )
        picture = map_of(playground).evaluate("canvas => canvas.toDataURL()")
    assert playground.page.evaluate("Array.from(window.raw)") == before["values"]
    playground.page.get_by_role("button", name="raw", exact=True).click()
    assert square(playground, "4.1")[0] == before


def test_the_colours_of_a_map_are_those_of_its_legend(playground: Playground) -> None:
    pin(playground, "4.1")
    told, _ = square(playground, "4.1")
    playground.drawn()
    # the prompt is short, so that a cell is many pixels; the cursor's row has a frame, so not that
    wrong = playground.page.evaluate(
        """({ rows, size, values }) => {
            const map = document.querySelector(".maps > .card .map");
            const ramp = document.querySelector("#heads-panel .ramp").getContext("2d");
            const g = map.getContext("2d");
            const gutter = 58, side = map.clientWidth, ratio = map.width / side;
            const cell = (side - gutter - 1) / size;
            const wrong = [];
            for (let q = 0; q < rows - 1; q += 1) {
                for (let k = 0; k <= q; k += 1) {
                    const at = (i) => Math.round((gutter + (i + 0.5) * cell) * ratio);
                    const shown = g.getImageData(at(k), at(q), 1, 1).data.join();
                    const value = values[(q * (q + 1)) / 2 + k];
                    const legend = ramp.getImageData(value, 0, 1, 1).data.join();
                    if (shown !== legend) wrong.push([q, k, shown, legend]);
                }
            }
            return wrong;
        }""",
        told,
    )
    assert wrong == []


@pytest.mark.parametrize("where", ["prompt", "generated", "cropped", "cropped again"])
def test_cells_are_named_by_their_tokens(playground: Playground, where: str) -> None:
    length = 10 if where in ("prompt", "generated") else CONTEXT + 80
    ids = written(playground, PROMPT, length)
    at = {
        "prompt": 6,
        "generated": len(ids) - 3,
        "cropped": min(len(ids) - 1, CONTEXT + 3),
        "cropped again": len(ids) - 2,
    }[where]
    if where.startswith("cropped") and len(ids) <= CONTEXT + 4:
        pytest.skip("the model ended the text before it left the context")
    playground.look(at)
    pin(playground, "4.1")
    told, shown = square(playground, "4.1")
    start = visible_from(at, CONTEXT)
    window = ids[start : start + CONTEXT]
    assert (told["start"], told["rows"]) == (start, len(window))
    weights = lens.attention(MODEL, window)[4, 1]
    assert float((shown - weights.sqrt()).abs().max()) <= ENCODING

    map_of(playground).focus()
    playground.page.keyboard.press("ArrowUp")  # the first key shows the row of the cursor
    for _ in range(2):
        playground.page.keyboard.press("ArrowRight")
    query, key = at - 1, start + 2
    line = playground.readout.locator("p").first
    expect(line.locator("code").first).to_have_text(label(ids, query))
    expect(line.locator("code").nth(1)).to_have_text(label(ids, key))
    assert line.locator("small").all_text_contents() == [str(query), str(key)]
    said = float(line.locator("b").text_content() or "nan")
    assert said == pytest.approx(float(weights[query - start, key - start]), abs=0.006)


def label(ids: list[int], i: int) -> str:
    """A token as the page writes it, short enough to be whole; whitespace as its marks."""
    if ids[i] == TOKENIZER.eot:
        return "⟨start⟩" if i == 0 else "⟨end⟩"
    marks = {" ": "·", "\n": "↵", "\t": "→"}
    text = "".join(marks.get(c, c) for c in TOKENIZER.text([ids[i]]))
    return text if len(text) <= 24 else text[:23] + "…"


def test_a_cell_that_the_text_has_no_more_is_not_told_of(playground: Playground) -> None:
    playground.read(PROMPT)
    pin(playground, "4.1")
    large = map_of(playground)
    large.focus()
    large.press("ArrowUp")
    expect(playground.readout).to_contain_text("looks at")
    playground.page.evaluate("ptx.writing.edit('x = 1')")
    expect(playground.readout).to_contain_text("it looks at")


def test_a_view_that_is_left_and_taken_again_is_asked_for_again(playground: Playground) -> None:
    """Its first answer was overtaken; that is no refusal, after which it would have to wait."""
    playground.read(PROMPT)
    playground.page.wait_for_function("ptx.attention.picture()")
    asked: list[str] = []
    held: list[Route] = []

    def hold(route: Route) -> None:
        data = route.request.post_data or ""
        if '"maps"' in data:
            asked.append("no sink" if '"no sink"' in data else "weighted")
        held.append(route) if asked == ["no sink"] else route.continue_()

    playground.page.route("**/component_server/", hold)
    for view, wanted in (("no sink", 1), ("weighted", 2), ("no sink", 2)):
        playground.page.evaluate("view => ptx.store.set({ view })", view)
        playground.drawn()
        while len(asked) < wanted:
            playground.page.wait_for_timeout(10)
    assert asked == ["no sink", "weighted"]
    while held:
        held.pop().continue_()
    playground.page.wait_for_function("ptx.attention.picture()", timeout=4000)
    assert asked == ["no sink", "weighted", "no sink"]
    playground.page.unroute("**/component_server/")


def test_the_roles_are_the_librarys(playground: Playground) -> None:
    ids = written(playground, PROMPT * 3, 60)
    told = playground.page.evaluate(
        """async () => {
            while (!ptx.attention.picture()) await new Promise((r) => setTimeout(r, 20));
            return ptx.attention.picture().roles;
        }"""
    )
    weights = lens.attention(MODEL, ids[visible_from(len(ids), CONTEXT) :])
    roles = lens.roles(TOKENIZER, ids[visible_from(len(ids), CONTEXT) :], weights)
    for layer, head in HEADS:
        here = told[layer][head]
        if here["here"] and here["label"] in lens.ROLES:
            score = roles.lift()[lens.ROLES.index(here["label"]), layer, head]
            assert here["score"] == pytest.approx(float(score), abs=1e-4)
        short = playground.page.evaluate("label => ptx.roles[label][0]", here["label"])
        expect(
            thumb(playground, f"{layer}.{head}").locator("xpath=../*[@class='role']")
        ).to_have_text(short)


def test_the_first_head_to_see_does_something(playground: Playground) -> None:
    playground.page.wait_for_function("() => ptx.pins.chosen()")
    [name] = playground.page.evaluate("ptx.store.state.pinned")
    role = playground.page.locator("#heads-panel .maps > .card .role").first
    expect(role).to_have_text(re.compile("induction|same name|definition|bracket|previous"))
    expect(thumb(playground, name)).to_have_attribute("aria-pressed", "true")


# ---- peeking and pinning ------------------------------------------------------------------------


def test_pointing_peeks_and_moves_nothing(playground: Playground) -> None:
    boxes = """() => [".atlas", ".readout", ".legend", ".price"].map((name) => {
        const { x, y, width, height } = document.querySelector("#heads-panel " + name)
            .getBoundingClientRect();
        return [x, y, width, height];
    })"""
    before = playground.page.evaluate(boxes)
    thumb(playground, "3.2").hover()
    peek = playground.page.locator("#heads-panel .peek")
    expect(peek).to_be_visible()
    expect(peek.locator("b")).to_have_text("3.2")
    expect(playground.readout.locator("p.look b")).to_have_text("3.2")
    playground.page.wait_for_function("() => document.querySelector('.peek .map').width > 100")
    assert playground.page.evaluate(boxes) == before
    playground.page.mouse.move(5, 5)
    expect(peek).to_be_hidden()


def test_the_lines_of_a_head_have_its_colour_when_a_click_pins_it(playground: Playground) -> None:
    pin(playground)
    line = playground.page.locator(".attention-lines .line").first
    thumb(playground, "2.1").hover()
    expect(line).to_have_attribute("style", "stroke: var(--head-peek)")
    thumb(playground, "2.1").click()
    expect(line).to_have_attribute("style", re.compile(r"stroke: var\(--head-\d\)"))
    colour = playground.page.evaluate("ptx.pins.colour('2.1')")
    expect(line).to_have_attribute("style", f"stroke: var({colour})")


def test_a_click_pins_up_to_four_and_again_unpins(playground: Playground) -> None:
    pin(playground)
    titles = playground.page.locator("#heads-panel .maps > .card:not([hidden]) b")
    for name in ("0.1", "1.2", "2.3", "3.0"):
        thumb(playground, name).click()
    expect(titles).to_have_text(["0.1", "1.2", "2.3", "3.0"])
    colours = playground.page.evaluate(
        "() => ['0.1', '1.2', '2.3', '3.0'].map((name) => ptx.pins.colour(name))"
    )
    assert len(set(colours)) == 4
    thumb(playground, "1.2").click()
    expect(titles).to_have_text(["0.1", "2.3", "3.0"])
    for name in ("4.0", "4.1"):  # the fifth takes the place of the oldest
        thumb(playground, name).click()
    expect(titles).to_have_text(["2.3", "3.0", "4.0", "4.1"])
    # a head keeps its colour while it is pinned
    assert playground.page.evaluate("ptx.pins.colour('2.3')") == colours[2]
    playground.page.get_by_role("button", name="Unpin head 4.0").click()
    expect(titles).to_have_text(["2.3", "3.0", "4.1"])


def test_no_head_stays_pinned_where_a_person_wants_none(page: Page, app_url: str) -> None:
    page.goto(app_url)
    # at the first moment at which it can be done: before there is a picture to choose a head by
    unpinned = "() => window.ptx?.attention?.picture && !ptx.store.set({ pinned: [] })"
    page.wait_for_function(unpinned)
    page.wait_for_function("ptx.attention.picture() !== null")
    page.evaluate("() => new Promise((drawn) => requestAnimationFrame(() => setTimeout(drawn)))")
    assert page.evaluate("ptx.store.state.pinned") == []


def test_by_keyboard_alone(playground: Playground) -> None:
    page = playground.page
    page.evaluate("ptx.store.set({ pinned: [] })")
    page.locator("#heads-panel .segments button").first.focus()
    for _ in range(10):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.classList.contains('thumb')"):
            break
    assert page.evaluate("document.activeElement.getAttribute('aria-label')").startswith("head 0.0")
    for key in ("ArrowDown", "ArrowRight", "ArrowDown"):
        page.keyboard.press(key)
    expect(page.locator("#heads-panel .peek b")).to_have_text("2.1")  # focus peeks
    page.keyboard.press("Enter")
    page.keyboard.press("m")
    assert page.evaluate("[ptx.store.state.pinned, ptx.store.state.muted]") == [["2.1"], ["2.1"]]
    page.keyboard.press("m")
    for _ in range(6):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.classList.contains('map')"):
            break
    page.wait_for_function(HAS, arg="2.1")
    cursor = page.evaluate("ptx.store.state.cursor")
    for key in ("ArrowUp", "ArrowUp", "Enter"):
        page.keyboard.press(key)
    page.wait_for_function("at => ptx.store.state.cursor === at", arg=cursor - 1)


# ---- lines --------------------------------------------------------------------------------------


def test_lines_go_where_the_pinned_heads_look(playground: Playground) -> None:
    ids = written(playground, PROMPT, 10)
    at = len(ids) - 4
    playground.look(at)
    pin(playground, "4.1", "5.1")
    weights = lens.attention(MODEL, ids)
    wanted = sorted(
        (
            (float(weights[layer, head, at - 1, k]), f"{layer}.{head}", k)
            for layer, head in ((4, 1), (5, 1))
            for k in range(at)
        ),
        reverse=True,
    )
    wanted = [line for line in wanted if line[0] >= 0.025][:12]
    lines = playground.page.locator(".attention-lines .line")
    expect(lines.first).to_be_attached()
    playground.drawn()
    drawn = lines.evaluate_all(
        "all => all.map(({ dataset: d }) => [Number(d.weight), d.head, Number(d.to)])"
    )
    assert len(drawn) <= 12
    assert {(head, to) for _, head, to in wanted} <= {(head, to) for _, head, to in drawn}
    for weight, head, to in drawn:
        layer, number = map(int, head.split("."))
        assert weight == pytest.approx(float(weights[layer, number, at - 1, to]), abs=0.006)
    # they start and end at tokens
    ends = playground.page.evaluate(
        """() => {
            const path = document.querySelector(".attention-lines .line");
            const code = document.querySelector("#text-panel pre.code").getBoundingClientRect();
            const token = document.querySelector(`.token[data-i="${path.dataset.to}"]`);
            const box = token.getClientRects()[0];
            const { x, y } = path.getPointAtLength(path.getTotalLength());
            return [box.left - 2 <= x + code.left, x + code.left <= box.right + 2,
                    box.top <= y + code.top, y + code.top <= box.bottom];
        }"""
    )
    assert all(ends)
    playground.page.get_by_role("button", name="lines in the text").click()
    expect(lines).to_have_count(0)


def test_lines_go_with_a_text_that_is_scrolled(playground: Playground) -> None:
    playground.read("".join(f"value_{n} = {n}\n" for n in range(60)))
    pin(playground, "4.1")
    playground.look(len(playground.ids))
    line = playground.page.locator(".attention-lines .line").first
    expect(line).to_be_attached()
    playground.drawn()
    for _ in range(4):  # a late answer may draw them anew just then
        moved = line.evaluate(
            """async (line) => {
                const code = document.querySelector("#text-panel pre.code");
                const top = () => line.getBoundingClientRect().top;
                const [place, before] = [code.scrollTop, top()];
                code.scrollTop -= 30;
                for (let i = 0; i < 3; i += 1) await new Promise(requestAnimationFrame);
                return [line.isConnected, place - code.scrollTop, top() - before];
            }"""
        )
        if moved[0]:
            break
    assert moved == [True, 30, pytest.approx(30, abs=0.5)]


def test_a_map_is_faded_until_it_is_the_heads_own(playground: Playground) -> None:
    page = playground.page
    pin(playground, "4.1")
    frame = page.locator("#heads-panel .map-frame").first
    expect(frame).to_have_class("map-frame")
    held: list[Route] = []

    def hold(route: Route) -> None:
        asks = '"head"' in (route.request.post_data or "")
        held.append(route) if asks else route.continue_()

    page.route("**/component_server/", hold)
    page.evaluate("ptx.store.set({ pinned: ['2.3'] })")
    expect(frame).to_have_class("map-frame old")
    while held:
        held.pop().continue_()
    page.unroute("**/component_server/")
    expect(frame).to_have_class("map-frame")


def test_the_last_card_that_is_closed_leaves_the_focus_among_the_heads(
    playground: Playground,
) -> None:
    pin(playground, "4.1", "5.1")
    playground.page.get_by_label("Unpin head 5.1").press("Enter")
    expect(playground.page.get_by_label("Unpin head 4.1")).to_be_focused()
    playground.page.keyboard.press("Enter")
    expect(playground.page.locator("#heads-panel .thumb:focus")).to_have_count(1)


# ---- muting -------------------------------------------------------------------------------------


def test_the_line_of_the_price_is_not_said_again(playground: Playground) -> None:
    playground.page.evaluate(
        """() => {
            window.said = 0;
            new MutationObserver(() => (window.said += 1))
                .observe(document.querySelector(".price-line"), { childList: true, subtree: true });
        }"""
    )
    playground.cursor_to(3)
    assert playground.page.evaluate("window.said") == 0


def test_muting_says_what_it_costs(playground: Playground) -> None:
    ids = written(playground, PROMPT, 20)
    at = len(ids) - 5
    playground.look(at)
    pin(playground, "4.1")
    whole = square(playground, "4.1")[0]["values"]
    for name in ("1.2", "3.2"):
        thumb(playground, name).hover()
        playground.page.get_by_role("button", name=f"Mute head {name}", exact=True).first.click()
    mute = Mute(heads=((1, 2), (3, 2)))
    found = lens.ablate(MODEL, ids[:at], [mute], ids[at])
    bits = [-x / np.log(2) for x in (found.base_logprob, float(found.next_logprob[0]))]
    loss = [x / np.log(2) for x in (found.base_loss, float(found.loss[0]))]
    line = playground.page.locator("#heads-panel .price-line:not(.stale)")
    expect(line.locator("b")).to_have_count(2)
    playground.page.wait_for_function("() => ptx.store.state.muted.length === 2")
    expect(line).to_contain_text(f"{bits[0]:.2f} → {bits[0] + bits[1]:.2f} bits")
    expect(line).to_contain_text(f"{loss[0]:.2f} → {loss[0] - -loss[1]:.2f} bits")
    expect(line).to_contain_text("Generate writes with all heads")
    for panel in ("text", "bench", "why"):  # whose figures are the muted model's
        place = playground.page.locator(f"#{panel}-panel")
        expect(place).to_contain_text("without heads 1.2, 3.2")
    # the heads above read something else now
    weights, _ = in_view(ids, "raw", mute)
    playground.page.wait_for_function(HAS, arg="4.1")
    told, shown = square(playground, "4.1")
    assert told["values"] != whole
    assert float((shown - weights[4, 1].sqrt()).abs().max()) <= ENCODING
    playground.page.get_by_role("button", name="Let head 1.2 write again").click()
    playground.page.get_by_role("button", name="Let head 3.2 write again").click()
    assert square(playground, "4.1")[0]["values"] == whole


def test_the_price_of_each_head_stands_under_its_picture(playground: Playground) -> None:
    ids = playground.ids
    playground.look(4)
    found = lens.ablate(MODEL, ids[:4], lens.single_heads(MODEL.config), ids[4])
    for button, nats in (("price, this token", -found.next_logprob), ("price, text", found.loss)):
        playground.page.get_by_role("button", name=button).click()
        roles = playground.page.locator("#heads-panel .atlas .role")
        expect(roles.first).to_have_text(re.compile(r"^[+−]\d"))
        shown = [float(text.replace("−", "-")) for text in roles.all_text_contents()]
        assert shown == pytest.approx((nats / np.log(2)).tolist(), abs=0.0051)


# ---- while a text is written --------------------------------------------------------------------


def told_as_generated(playground: Playground, least: int, most: int) -> None:
    """So many new tokens are told of a text whatever there are, and its end 1.5 seconds later: the
    pictures of one that comes fast begin after a second, of one that can be followed sooner."""
    playground.page.evaluate(
        """([least, most]) => {
            const { take, ended } = ptx.writing;
            const told = (n) => n && Math.min(most, Math.max(least, n));
            ptx.writing.take = (v) => {
                if (!v?.finish || v.late) take(v && { ...v, generated: told(v.generated) });
                else setTimeout(() => ptx.writing.take({ ...v, late: true }), 1500);
            };
            ptx.writing.ended = () => setTimeout(ended, 1500);
        }""",
        [least, most],
    )


def test_the_pictures_grow_row_by_row(playground: Playground) -> None:
    pin(playground, "4.1")
    told_as_generated(playground, 1, 40)
    playground.set("length", CONTEXT - 20)
    playground.page.evaluate(
        "() => { const coded = "
        + CODED
        + """;
            window.seen = [];
            const panels = ["#why-panel", "#heads-panel .legend"];
            const watch = () => {
                const { writing, ids } = ptx.store.state;
                const square = writing && ptx.attention.square("4.1");
                const picture = ptx.growing.picture();
                const top = (name) => document.querySelector(name).getBoundingClientRect().top;
                const tops = panels.map((name) => top(name) + scrollY);
                if (square && picture) window.seen.push({
                    ids, rows: square.rows, from: square.from, room: square.size, tops,
                    values: coded(square), pictured: picture.rows });
                if (!window.done) setTimeout(watch, 30);
            };
            watch();
        }"""
    )
    playground.generate()
    playground.page.evaluate("window.done = true")
    seen = playground.page.evaluate("window.seen")
    ids = playground.ids
    weights = lens.attention(MODEL, ids[:CONTEXT])[4, 1].sqrt()
    assert len({s["rows"] for s in seen}) >= 2  # it grew
    rows = [s["rows"] for s in seen if s["ids"] == ids[: len(s["ids"])]]
    assert rows == sorted(rows)
    assert len({str(s["tops"]) for s in seen}) == 1  # and nothing moved
    for s in seen:
        assert s["rows"] <= s["room"]
        shown = roots(decoded(s["values"]), s["rows"])[s["from"] :]
        # the end of a prompt may be cut into other tokens once the first new one is chosen
        # (and rows may come before the text that they are of)
        cut = s["ids"] != ids[: len(s["ids"])] and s["rows"] <= len(s["ids"])
        then = lens.attention(MODEL, s["ids"])[4, 1].sqrt() if cut else weights
        wanted = then[s["from"] : s["rows"], : s["rows"]]
        # the engine reads in another order than the lens, in other precision
        assert float((shown - wanted).abs().max()) <= ENCODING + 0.02
    told, shown = square(playground, "4.1")
    assert told["rows"] == len(ids)
    assert float((shown - weights[: len(ids), : len(ids)]).abs().max()) <= ENCODING


def test_a_text_may_begin_before_any_head_has_a_role(page: Page, app_url: str) -> None:
    held: list[Route] = []

    def hold(route: Route) -> None:
        asks_for_maps = '"maps"' in (route.request.post_data or "")
        held.append(route) if asks_for_maps else route.continue_()

    playground = Playground(page, app_url)
    page.route("**/component_server/", hold)
    page.goto(f"{app_url}/?anew")
    page.wait_for_function("window.ptx?.store?.state.look")
    playground.set("length", 40)
    playground.generate()
    assert held
    assert not playground.page.evaluate("ptx.attention.roles().length")
    while held:
        held.pop().continue_()
    page.unroute("**/component_server/")
    # and one that has a role is chosen once they are known
    role = page.locator("#heads-panel .maps > .card .role").first
    expect(role).to_have_text(re.compile("induction|same name|definition|bracket|previous"))


def test_what_is_known_of_a_prompt_is_not_read_again_while_it_goes_on(
    playground: Playground,
) -> None:
    pin(playground, "4.1")
    playground.read("def area(width, height):\n    return width")
    playground.page.wait_for_function(
        "() => ptx.attention.picture() && ptx.attention.square('4.1')"
    )
    playground.set("length", CONTEXT - 40)
    told_as_generated(playground, 1, 40)
    playground.page.evaluate(
        "() => { const coded = "
        + CODED
        + """;
            const real = ptx.ask;
            window.asked = [];
            window.grown = [];
            ptx.ask = async (name, request) => {
                const answer = await real(name, request);
                const { writing, ids } = ptx.store.state;
                if (writing) {
                    asked.push(name);
                    const square = ptx.growing.square("4.1");
                    if (square) grown.push({
                        ids, rows: square.rows, from: square.from,
                        values: coded(square), picture: ptx.growing.picture().from });
                }
                return answer;
            };
        }"""
    )
    playground.generate()
    assert not {"maps", "head"} & set(playground.page.evaluate("asked"))
    grown = playground.page.evaluate("grown")
    weights = lens.attention(MODEL, playground.ids)[4, 1].sqrt()
    assert grown
    for seen in grown:
        assert (seen["from"], seen["picture"]) == (0, 0)
        rows = seen["rows"]
        if seen["ids"] == playground.ids[: len(seen["ids"])]:
            shown = roots(decoded(seen["values"]), rows)
            assert float((shown - weights[:rows, :rows]).abs().max()) <= ENCODING + 0.02


def test_a_text_that_may_have_ended_in_a_second_has_its_pictures_then(
    playground: Playground,
) -> None:
    told_as_generated(playground, 1000, 2000)
    playground.set("length", CONTEXT - 20)
    playground.page.evaluate(
        """() => {
            const { ask } = ptx;
            const { state, on } = ptx.store;
            let first = null; // when the first token was there
            on(["status"], ({ writing, status }) => {
                if (writing && status.generated) first ??= performance.now();
            });
            window.asked = [];
            ptx.ask = (name, request) => {
                if (state.writing && first) asked.push([name, performance.now() - first]);
                return ask(name, request);
            };
        }"""
    )
    playground.generate()
    pictures = {"rows", "maps", "head"}
    when = [when for name, when in playground.page.evaluate("asked") if name in pictures]
    assert when
    assert min(when) > 990


HELD_AT_40_ROWS = """() => {
    const { take } = ptx.writing;
    ptx.writing.take = (frame) => ptx.growing.picture()?.rows > 40 || take(frame);
    ptx.writing.ended = () => {};
}"""
"""The text stops growing on the page then, and nothing says that it has ended."""
GROWN = """() => [ptx.growing.picture(), ptx.growing.square("4.1")].map(
    (one) => [one?.rows, one?.from, one?.read].join())"""
PIXELS = """() => [".atlas .pictures", ".maps > .card .map"].map((name) => {
    const canvas = document.querySelector(`#heads-panel ${name}`);
    return canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data.join();
})"""


def test_pictures_that_grew_look_like_those_that_are_painted_at_once(
    playground: Playground,
) -> None:
    pin(playground, "4.1")
    playground.read("def area(width, height):\n    return width")
    playground.page.wait_for_function("() => ptx.attention.picture()")
    playground.set("length", CONTEXT - 40)
    told_as_generated(playground, 1, 40)
    playground.page.evaluate(HELD_AT_40_ROWS)
    playground.generate(wait=False)
    playground.page.wait_for_function("() => ptx.growing.picture()?.rows > 40")
    before, now = None, playground.page.evaluate(GROWN)
    while before != now:  # the server goes on to the end of the text
        playground.page.wait_for_timeout(1500)
        before, now = now, playground.page.evaluate(GROWN)
    grown = playground.page.evaluate(PIXELS)
    playground.page.evaluate(
        """() => {
            for (const one of [ptx.growing.picture(), ptx.growing.square("4.1")]) one.read = 99;
            ptx.store.set({ peek: "0.0" });
        }"""
    )
    playground.page.wait_for_timeout(500)
    assert playground.page.evaluate(PIXELS) == grown


def test_maps_that_are_refused_while_a_text_is_written_are_not_asked_for_all_the_time(
    playground: Playground,
) -> None:
    playground.page.evaluate(
        """() => {
            const real = ptx.ask;
            window.refused = 0;
            ptx.ask = (name, request) => {
                if (name !== "maps" || !ptx.store.state.writing) return real(name, request);
                window.refused += 1;
                return Promise.resolve(null);
            };
        }"""
    )
    told_as_generated(playground, 1, 40)
    playground.page.evaluate(HELD_AT_40_ROWS)
    playground.prompt("import os\n")  # begins like no text before it
    playground.page.evaluate("ptx.attention.nearest = () => null")
    playground.set("length", 200)
    playground.generate(wait=False)
    playground.page.wait_for_function("() => window.refused")
    playground.page.wait_for_timeout(2000)
    assert playground.page.evaluate("window.refused") == 1


@pytest.mark.parametrize("pause", [420, 500, 580])
def test_the_view_may_change_while_a_text_is_written(playground: Playground, pause: int) -> None:
    pin(playground, "4.1")
    playground.set("length", CONTEXT - 20)
    told_as_generated(playground, 1, 40)
    playground.generate(wait=False)
    playground.wait_for("state.writing && state.status.generated > 1")
    playground.page.wait_for_timeout(pause)
    playground.page.evaluate("ptx.store.set({ view: 'weighted' })")
    playground.wait_for("!state.writing")
    playground.page.wait_for_function(HAS, arg="4.1")
    assert playground.page.locator(".message.error:visible").count() == 0


def test_on_a_phone_in_the_dark(page: Page, app_url: str) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    playground = Playground(page, app_url, dark=True)
    written(playground, PROMPT, 10)
    pin(playground, "4.1", "5.1", "3.2", "2.1")
    assert playground.overflow() <= 0
    playground.wait_for("ptx.pins.shown(state).every(ptx.attention.square)")
    playground.drawn()
    for i in range(4):
        assert playground.colors(map_of(playground, i)) > 4
