"""Following a training run from the page."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.driving import Playground

HOSTILE = "<img src=x onerror='window.hacked=1'>${window.hacked=1}"


def append(run: Path, first: int, last: int) -> None:
    run.mkdir(exist_ok=True)
    with (run / "metrics.jsonl").open("a") as file:
        for step in range(first, last + 1):
            bpb = 1 + 3 / step**0.5 + 0.1 * (step % 3)
            file.write(json.dumps({"step": step, "bpb": bpb, "lr": 0.001, "elapsed": step}) + "\n")
            if step % 10 == 0:
                file.write(json.dumps({"step": step, "val_bpb": bpb + 0.2}) + "\n")


@pytest.fixture
def run(runs_dir: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A run of 50 steps that the page can choose."""
    path = runs_dir / re.sub(r"\W+", "-", request.node.name)
    append(path, 1, 50)
    yield path
    for file in path.iterdir():
        file.unlink()
    path.rmdir()


@pytest.fixture
def playground(page: Page, app_url: str, run: Path) -> Playground:
    playground = Playground(page, app_url)
    playground.tab("Training")
    page.get_by_label("Run").select_option(run.name)
    expect(figure(playground, "step")).to_have_text("50")
    return playground


def figure(playground: Playground, name: str):
    term = playground.page.locator("dt").get_by_text(name, exact=True)
    return playground.page.locator("#curves-panel .figures div").filter(has=term).locator("dd")


def test_the_curve_is_drawn(playground: Playground) -> None:
    assert playground.colors("#curves-panel canvas") > 20
    playground.page.locator("#curves-panel canvas").hover()
    readout = playground.page.locator("#curves-panel .readout")
    expect(readout).to_have_text(
        re.compile(r"step \d+ · training [\d.]+ · smoothed [\d.]+ · validation [\d.]+ \(step \d+\)")
    )


def test_the_curve_grows_while_the_run_goes_on(playground: Playground, run: Path) -> None:
    before = playground.page.locator("#curves-panel canvas").evaluate("c => c.toDataURL()")
    append(run, 51, 60)
    expect(figure(playground, "step")).to_have_text("60")
    after = playground.page.locator("#curves-panel canvas").evaluate("c => c.toDataURL()")
    assert after != before


def test_a_zoom_survives_new_points_and_a_double_click_ends_it(
    playground: Playground, run: Path
) -> None:
    whole = playground.page.get_by_role("button", name="Show all")
    expect(whole).to_be_disabled()
    canvas = playground.page.locator("#curves-panel canvas")
    box = canvas.bounding_box()
    assert box
    y = box["y"] + box["height"] / 2
    playground.page.mouse.move(box["x"] + box["width"] * 0.3, y)
    playground.page.mouse.down()
    playground.page.mouse.move(box["x"] + box["width"] * 0.6, y, steps=4)
    playground.page.mouse.up()
    expect(whole).to_be_enabled()
    append(run, 51, 60)
    expect(figure(playground, "step")).to_have_text("60")
    expect(whole).to_be_enabled()
    canvas.dblclick()
    expect(whole).to_be_disabled()


def test_a_run_that_begins_later_appears_by_itself(playground: Playground, runs_dir: Path) -> None:
    later = runs_dir / "later"
    try:
        append(later, 1, 3)
        options = playground.page.get_by_label("Run").locator("option")
        expect(options.get_by_text("later", exact=True)).to_be_attached()
    finally:
        (later / "metrics.jsonl").unlink()
        later.rmdir()


def test_the_log_scale_and_smoothing_redraw(playground: Playground) -> None:
    canvas = playground.page.locator("#curves-panel canvas")
    seen = {canvas.evaluate("c => c.toDataURL()")}
    playground.page.get_by_label("log scale").check()
    seen.add(canvas.evaluate("c => c.toDataURL()"))
    playground.page.get_by_label("Smoothing").press("Home")
    seen.add(canvas.evaluate("c => c.toDataURL()"))
    assert len(seen) == 3


def test_names_and_samples_of_a_run_are_only_text(page: Page, app_url: str, runs_dir: Path) -> None:
    run = runs_dir / HOSTILE.replace("/", "")
    append(run, 1, 5)
    sample = {"step": 5, "prompt": "def ", "text": f"f():\n\treturn '{HOSTILE}'"}
    (run / "samples.jsonl").write_text(json.dumps(sample) + "\n")
    try:
        playground = Playground(page, app_url)
        playground.tab("Training")
        page.get_by_label("Run").select_option(run.name)
        shown = page.locator("#curves-panel .samples pre").first
        expect(shown).to_have_text(sample["prompt"] + sample["text"])
        assert shown.text_content() == sample["prompt"] + sample["text"]
        assert page.evaluate("window.hacked") is None
        assert page.locator("#curves-panel img").count() == 0
    finally:
        for file in run.iterdir():
            file.unlink()
        run.rmdir()
