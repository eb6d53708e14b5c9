"""A real run, started on the page: paused, found again after a reload, resumed, played with; and
what becomes of it when the page's process is ended or killed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
from playwright.sync_api import Browser, Page, expect

from ptx.checkpoint import checkpoints
from ptx.corpus import CorpusWriter
from ptx.tokenizer import python_tokenizer
from tests.browser.conftest import ROOT, _end_tree, _free_port, _wait_until_ready
from tests.browser.driving import Playground

PATIENCE = 240_000  # ms: a busy machine takes its time to start training
STEPS = 3000


@dataclass
class App:
    """`python app.py` on directories of its own; it can be started again."""

    place: Path
    process: subprocess.Popen[bytes] | None = field(default=None)
    url: str = ""

    @property
    def runs(self) -> Path:
        return self.place / "runs"

    def start(self, **variables: str) -> str:
        port, log = _free_port(), self.place / "app.txt"
        # the trainer lets others go first, and on a busy machine would wait for minutes
        eager = "from ptx.playground import jobs; jobs.NICE = 0; import app; app.main()"
        command = [sys.executable, "-c", eager, "--port", str(port), "--runs", str(self.runs)]
        command += ["--data", str(self.place / "data")]
        environment = {"GRADIO_ANALYTICS_ENABLED": "False", "PYTHONUNBUFFERED": "1"}
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=os.environ | environment | variables,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                # a suite that runs in the background ignores Ctrl+C, and so would the app
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )
        self.url = f"http://127.0.0.1:{port}"
        _wait_until_ready(self.process, self.url, log)
        return self.url

    def child(self) -> psutil.Process:
        """The process that trains."""
        assert self.process
        found = psutil.Process(self.process.pid).children()
        [trains] = [p for p in found if any("train/run.py" in word for word in p.cmdline())]
        return trains


@pytest.fixture
def app(tmp_path: Path) -> Iterator[App]:
    """With a module of the standard library as data, one token a byte."""
    tokenizer = python_tokenizer("bytes", {bytes([i]): i for i in range(256)})
    text = Path(json.__file__).read_bytes()
    tokens = [*tokenizer.encode(text), tokenizer.eot]
    project = {"name": "json", "version": "1", "licence": "PSF-2.0"}
    counts = {"files": 1, "bytes": len(text), "tokens": len(tokens)}
    with CorpusWriter(tmp_path / "data" / "tiny", tokenizer) as writer:
        for split in ("train", "val"):
            writer.write(split, tokens)
        writer.finish({split: [project | counts] for split in ("train", "val")})
    app = App(tmp_path)
    yield app
    if app.process:
        _end_tree(app.process)


def training(page: Page, url: str) -> Playground:
    playground = Playground(page, url)
    playground.tab("Training")
    expect(page.locator("#training-panel .curves, #training-panel .empty").first).to_be_attached()
    return playground


def start(page: Page, name: str, steps: int = STEPS) -> None:
    page.locator("#train-length").fill(str(steps))
    page.get_by_label("Batch size").fill("1")
    page.get_by_label("Name of the run").fill(name)
    page.get_by_role("button", name="Start training").click()


def state(page: Page):
    return page.locator(".run-bar .state")


def wait_for_step(page: Page, step: int) -> int:
    """Until the run at hand is that far; how far it is."""
    place = page.locator(".run-bar .stats")
    page.wait_for_function(
        """step => {
            const { textContent } = document.querySelector(".run-bar .stats");
            const found = /step ([\\d,]+) of/.exec(textContent);
            return found && Number(found[1].replaceAll(",", "")) >= step;
        }""",
        arg=step,
        timeout=PATIENCE,
    )  # fmt: skip
    return int((place.text_content() or "").split()[1].replace(",", ""))


def last_step(run: Path) -> int:
    return json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["step"]


@pytest.mark.timeout(900)
def test_a_run_is_started_watched_paused_resumed_and_played_with(
    app: App, page: Page, browser: Browser
) -> None:
    training(page, app.start())
    start(page, "mine")
    expect(page.get_by_label("Run", exact=True)).to_have_value("runs/mine", timeout=PATIENCE)
    wait_for_step(page, 3)
    expect(state(page)).to_have_text("training")
    canvas = page.locator("#training-panel canvas").first
    before = canvas.evaluate("c => c.toDataURL()")
    wait_for_step(page, 6)
    page.wait_for_function(  # the curve grows
        "before => document.querySelector('#training-panel canvas').toDataURL() !== before",
        arg=before,
        timeout=PATIENCE,
    )

    second = browser.new_page()  # sees the same
    training(second, app.url)
    wait_for_step(second, 6)
    second.get_by_role("button", name="Pause").click()
    expect(state(page)).to_have_text("paused", timeout=PATIENCE)
    second.close()
    paused = last_step(app.runs / "mine")
    assert checkpoints(app.runs / "mine")[-1].name == f"step_{paused:06d}"

    page.reload()
    page.get_by_role("tab", name="Training").click()
    expect(state(page)).to_have_text("paused")
    page.get_by_role("button", name="Resume").click()
    wait_for_step(page, paused + 3)
    expect(state(page)).to_have_text("training")

    page.get_by_role("button", name="Play with step").click()
    expect(page.get_by_role("tab", name="Write")).to_have_attribute("aria-selected", "true")
    expect(page.locator("#model-choice")).to_have_value(re.compile("^runs/mine/checkpoints/step_"))
    page.get_by_role("tab", name="Training").click()
    page.get_by_role("button", name="Stop").click()
    expect(state(page)).to_have_text("stopped", timeout=PATIENCE)
    expect(page.get_by_role("button", name="Resume")).to_be_enabled()
    assert not page.locator("#training-panel .message.error").first.is_visible()


@pytest.mark.timeout(900)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_ending_or_killing_the_app_saves_the_run_and_leaves_no_process(
    app: App, page: Page, number: int
) -> None:
    training(page, app.start())
    start(page, "mine")
    wait_for_step(page, 2)
    child = app.child()
    workers = child.children(recursive=True)
    page.goto("about:blank")
    assert app.process
    app.process.send_signal(number)
    app.process.wait(timeout=PATIENCE / 1000)
    if number != signal.SIGKILL:
        assert not child.is_running(), "the page waits until the run has saved"
    _, alive = psutil.wait_procs([child, *workers], timeout=PATIENCE / 1000)
    assert not alive
    step = last_step(app.runs / "mine")
    assert checkpoints(app.runs / "mine")[-1].name == f"step_{step:06d}"

    training(page, app.start())
    expect(state(page)).to_have_text("paused")
    page.get_by_role("button", name="Resume").click()
    wait_for_step(page, step + 1)


@pytest.mark.timeout(900)
def test_closing_the_page_stops_nothing(app: App, page: Page) -> None:
    training(page, app.start())
    start(page, "mine")
    wait_for_step(page, 1)
    page.goto("about:blank")
    step = last_step(app.runs / "mine")
    end = time.monotonic() + PATIENCE / 1000
    while last_step(app.runs / "mine") < step + 3:
        assert time.monotonic() < end
        time.sleep(0.2)
    training(page, app.url)
    wait_for_step(page, step + 3)


@pytest.mark.timeout(900)
def test_a_crash_shows_its_last_lines(app: App, page: Page) -> None:
    training(page, app.start())
    start(page, "mine")
    wait_for_step(page, 1)
    app.child().kill()
    expect(state(page)).to_have_text("failed", timeout=PATIENCE)
    message = page.locator("#training-panel .message.error").filter(visible=True)
    expect(message).to_contain_text("mine: the process was killed (signal 9)")
    expect(page.locator(".run-bar pre.output")).to_contain_text("nano")
    expect(page.get_by_role("button", name="Resume")).to_be_enabled()


@pytest.mark.timeout(900)
def test_an_uploaded_text_is_prepared_and_learned_from(app: App, page: Page) -> None:
    training(page, app.start())
    page.get_by_label("Learn from").select_option("text:")
    text = "\n\n".join(f"def f{i}(x, y):\n    return x * {i} + y" for i in range(1500))
    upload = {"name": "my code.py", "mimeType": "text/plain", "buffer": text.encode()}
    page.get_by_label("Or a text file").set_input_files(upload)
    expect(page.locator("#train-text")).to_have_value(text)
    expect(page.get_by_label("Name of this data")).to_have_value("my-code")
    page.locator("#train-length").fill("3")
    page.get_by_label("Batch size").fill("1")
    page.get_by_role("button", name="Prepare and train").click()
    expect(page.get_by_label("Run", exact=True)).to_have_value("runs/nano", timeout=PATIENCE)
    expect(state(page)).to_have_text("finished", timeout=PATIENCE)
    assert (app.place / "data" / "my-code" / "manifest.json").is_file()
    assert json.loads((app.runs / "nano/config.json").read_text())["data"].endswith("data/my-code")


@pytest.mark.timeout(900)
def test_training_turned_off_shows_curves_only(app: App, page: Page) -> None:
    run = app.runs / "old"
    run.mkdir(parents=True)
    (run / "metrics.jsonl").write_text('{"step": 1, "bpb": 2.0}\n')
    training(page, app.start(PTX_TRAINING="off"))
    expect(page.get_by_text("Training is turned off on this page.")).to_be_visible()
    expect(page.get_by_role("button", name="Start training")).to_be_hidden()
    expect(page.get_by_label("Run", exact=True)).to_be_visible()
