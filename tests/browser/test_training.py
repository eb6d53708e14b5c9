"""Following training runs from the page."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.driving import Playground

HOSTILE = "<img src=x onerror='window.hacked=1'>${window.hacked=1}"
CANVAS = "#training-panel canvas >> nth=0"


def append(run: Path, first: int, last: int) -> None:
    run.mkdir(exist_ok=True)
    with (run / "metrics.jsonl").open("a") as file:
        for step in range(first, last + 1):
            bpb = 1 + 3 / step**0.5 + 0.1 * (step % 3)
            more = {"tokens": 1000 * step, "lr": 0.001, "grad_norm": 2.0, "tokens_per_s": 500.0}
            record = {"step": step, "bpb": bpb, "elapsed": 60.0 * step}
            file.write(json.dumps(record | more) + "\n")
            if step % 10 == 0:
                file.write(json.dumps({"step": step, "tokens": 1000 * step, "val_bpb": bpb}) + "\n")


def configure(run: Path, **values: object) -> None:
    base = {"preset": "nano", "steps": 100, "lr": 0.01, "batch_size": 8}
    (run / "config.json").write_text(json.dumps(base | values))


def remove(run: Path) -> None:
    for file in run.iterdir():
        file.unlink()
    run.rmdir()


@pytest.fixture
def run(runs_dir: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A run of 50 steps that the page can choose."""
    path = runs_dir / re.sub(r"\W+", "-", request.node.name)
    append(path, 1, 50)
    yield path
    remove(path)


@pytest.fixture
def playground(page: Page, app_url: str, run: Path) -> Playground:
    playground = Playground(page, app_url)
    playground.tab("Training")
    choose(page, run)
    return playground


def choose(page: Page, run: Path) -> None:
    page.get_by_label("Run", exact=True).select_option(f"runs/{run.name}")
    expect(figure(page, "step")).to_have_text("50")


def figure(page: Page, name: str) -> Locator:
    term = page.locator("dt").get_by_text(name, exact=True)
    return page.locator("#training-panel .figures div").filter(has=term).locator("dd")


def picture(page: Page) -> str:
    return page.locator(CANVAS).evaluate("c => c.toDataURL()")


def drag(page: Page, start: float, end: float) -> None:
    """Over so much of the large chart's width."""
    box = page.locator(CANVAS).bounding_box()
    assert box
    y = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] * start, y)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * end, y, steps=4)
    page.mouse.up()


def test_the_curve_is_drawn_and_read_by_pointer_and_keys(playground: Playground) -> None:
    page = playground.page
    assert playground.colors(CANVAS) > 20
    page.locator(CANVAS).hover()
    readout = page.locator("#training-panel .readout")
    words = r"training [\d.]+ · smoothed [\d.]+ · validation [\d.]+ \(step \d+\)"
    expect(readout).to_have_text(re.compile(rf"step \d+ · {words}"))
    page.mouse.move(0, 0)
    page.locator(CANVAS).focus()
    page.keyboard.press("ArrowLeft")
    expect(readout).to_have_text(re.compile(rf"step 50 · {words}"))
    page.keyboard.press("ArrowLeft")
    expect(readout).to_have_text(re.compile(rf"step 49 · {words}"))
    page.keyboard.press("+")
    expect(page.get_by_role("button", name="Show all")).to_be_enabled()
    page.keyboard.press("0")
    expect(page.get_by_role("button", name="Show all")).to_be_disabled()


def test_the_curve_grows_while_the_run_goes_on(playground: Playground, run: Path) -> None:
    before = picture(playground.page)
    append(run, 51, 60)
    expect(figure(playground.page, "step")).to_have_text("60")
    assert picture(playground.page) != before


def test_only_new_points_travel(playground: Playground, run: Path) -> None:
    def is_follow(response) -> bool:
        return "component_server" in response.url and "follow" in (response.request.post_data or "")

    with playground.page.expect_response(
        lambda r: is_follow(r) and '"step":[51,52]' in r.text().replace(" ", "")
    ) as found:
        append(run, 51, 52)
    part = json.loads(found.value.text())["shown"][f"runs/{run.name}"]
    assert part["train"]["step"] == [51, 52]
    assert part["val"]["step"] == []
    assert part["texts"] == []


def test_a_zoom_survives_new_points_and_a_double_click_ends_it(
    playground: Playground, run: Path
) -> None:
    whole = playground.page.get_by_role("button", name="Show all")
    expect(whole).to_be_disabled()
    drag(playground.page, 0.3, 0.6)
    expect(whole).to_be_enabled()
    append(run, 51, 60)
    expect(figure(playground.page, "step")).to_have_text("60")
    expect(whole).to_be_enabled()
    playground.page.locator(CANVAS).dblclick()
    expect(whole).to_be_disabled()


def test_the_focus_goes_to_the_chart_once_all_is_shown(playground: Playground) -> None:
    drag(playground.page, 0.3, 0.6)
    playground.page.get_by_role("button", name="Show all").press("Enter")
    expect(playground.page.locator(CANVAS)).to_be_focused()


def test_the_browsers_keys_stay_its_own(playground: Playground) -> None:
    ours = """canvas => [{}, { ctrlKey: true }, { metaKey: true }, { altKey: true }].map((held) => {
        const options = { key: "ArrowLeft", cancelable: true, bubbles: true, ...held };
        return !canvas.dispatchEvent(new KeyboardEvent("keydown", options));
    })"""
    assert playground.page.locator(CANVAS).evaluate(ours) == [True, False, False, False]
    playground.tab("Write")
    for picture in ("#heads-panel .maps > .card .map", "#why-panel canvas.parts"):
        found = playground.page.locator(picture).first.evaluate(ours)
        assert found == [True, False, False, False]


def test_the_curve_over_tokens_and_time(playground: Playground) -> None:
    page = playground.page
    readout = page.locator("#training-panel .readout")
    for over, words in (("tokens", r"[\d.]+k? tokens · training"), ("time", r"\d+ min 0 s · tr")):
        page.get_by_label("Over", exact=True).select_option(label=over)
        page.locator(CANVAS).focus()
        page.keyboard.press("ArrowLeft")
        expect(readout).to_have_text(re.compile(words))


def test_the_log_scale_and_smoothing_redraw(playground: Playground) -> None:
    seen = {picture(playground.page)}
    playground.page.get_by_label("log scale").check()
    seen.add(picture(playground.page))
    playground.page.get_by_label("Smoothing").press("Home")
    seen.add(picture(playground.page))
    assert len(seen) == 3


def test_a_run_beside_another_says_what_differs(
    playground: Playground, runs_dir: Path, run: Path
) -> None:
    page, other = playground.page, runs_dir / "other"
    try:
        configure(run)
        append(other, 1, 30)
        configure(other, batch_size=16, seed=3)
        playground.reload()
        playground.tab("Training")
        choose(page, run)
        alone = picture(page)
        page.get_by_role("checkbox", name="other").check()
        differences = page.locator("#training-panel .differences")
        expect(differences).to_contain_text(f"other batch size 16 ({run.name}: 8) · seed 3")
        expect(page.locator("#training-panel .legend")).to_contain_text("other")
        assert picture(page) != alone
        page.get_by_role("checkbox", name="other").uncheck()
        expect(differences).to_be_empty()
    finally:
        remove(other)


def test_a_run_that_begins_later_appears_by_itself(playground: Playground, runs_dir: Path) -> None:
    later = runs_dir / "later"
    try:
        append(later, 1, 3)
        options = playground.page.get_by_label("Run", exact=True).locator("option")
        expect(options.get_by_text(re.compile("^later"))).to_be_attached()
    finally:
        remove(later)


def test_names_and_samples_of_a_run_are_only_text(page: Page, app_url: str, runs_dir: Path) -> None:
    run = runs_dir / HOSTILE.replace("/", "")
    append(run, 1, 50)
    sample = {"step": 5, "prompt": "def ", "text": f"f():\n\treturn '{HOSTILE}'"}
    (run / "samples.jsonl").write_text(json.dumps(sample) + "\n")
    configure(run, data=f"data/{HOSTILE}")
    try:
        playground = Playground(page, app_url)
        playground.tab("Training")
        choose(page, run)
        shown = page.locator("#training-panel .samples pre").first
        expect(shown).to_have_text(sample["prompt"] + sample["text"])
        assert shown.text_content() == sample["prompt"] + sample["text"]
        assert page.evaluate("window.hacked") is None
        assert page.locator("#training-panel img").count() == 0
    finally:
        remove(run)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_panel_fits_a_phone(page: Page, app_url: str, run: Path, dark: bool) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    playground = Playground(page, app_url, dark)
    playground.tab("Training")
    choose(page, run)
    assert playground.colors(CANVAS) > 20
    assert playground.overflow() <= 0


def test_a_small_chart_reads_out_its_own_value(playground: Playground) -> None:
    page = playground.page
    page.mouse.move(0, 0)
    page.locator("#training-panel .small-charts canvas").nth(1).focus()
    page.keyboard.press("ArrowLeft")
    readout = page.locator("#training-panel .readout")
    expect(readout).to_have_text(re.compile(r"step 50 · gradient norm [\d.]+$"))
