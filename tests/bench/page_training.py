"""Figures of page.py about training on the page, and about many visitors at once."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from gradio_client import Client
from playwright.sync_api import Browser, Page, Response, sync_playwright

from tests.bench.playground import free_port, started

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = Path("/usr/bin/chromium")
POINTS = 10_000
USERS = 20
LESSON = "ptx/model.py ptx/engine.py ptx/stream.py ptx/corpus.py ptx/sampling.py ptx/decoder.py"


@contextmanager
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=CHROMIUM if CHROMIUM.exists() else None,
            args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"],
        )
        yield chromium
        chromium.close()


@contextmanager
def training_tab(*options: str) -> Iterator[tuple[Page, int]]:
    """The page on its Training tab, and its port."""
    port = free_port()
    with started("app.py", "--port", str(port), *options, port=port), browser() as chromium:
        page = chromium.new_page(viewport={"width": 1280, "height": 900})
        page.goto(f"http://127.0.0.1:{port}/")
        page.get_by_role("tab", name="Training").click()
        page.locator("#run-choice, #train-start").first.wait_for(state="attached")
        yield page, port


def plot_tick_ms(ticks: int) -> float:
    """Main-thread milliseconds of one update while a run with 10,000 points goes on."""
    with tempfile.TemporaryDirectory() as place:
        run = Path(place) / "long"
        run.mkdir()
        log(run, 1, POINTS)
        with training_tab("--runs", place) as (page, _):
            page.locator("#run-choice").select_option("runs/long")
            page.wait_for_function("document.querySelector('.run-bar .stats').textContent > ''")
            time.sleep(5)
            return per_update(page, run, ticks)


def per_update(page: Page, run: Path, ticks: int) -> float:
    updates = 0

    def count(response: Response) -> None:
        nonlocal updates
        if "component_server" in response.url and "follow" in (response.request.post_data or ""):
            updates += 1

    devtools = page.context.new_cdp_session(page)
    devtools.send("Performance.enable", {"timeDomain": "threadTicks"})  # its own time, not waits
    page.on("response", count)
    step, before = POINTS, busy_seconds(devtools)
    while updates < ticks:
        log(run, step + 1, step + 10)  # ten steps a second
        step += 10
        page.wait_for_timeout(1000)
    return 1000 * (busy_seconds(devtools) - before) / updates


def busy_seconds(devtools) -> float:
    """Processor time of the page's main thread, since it began."""
    metrics = devtools.send("Performance.getMetrics")["metrics"]
    return next(m["value"] for m in metrics if m["name"] == "TaskDuration")


def log(run: Path, first: int, last: int) -> None:
    with (run / "metrics.jsonl").open("a") as file:
        for step in range(first, last + 1):
            noise = (step * 7919 % 1000) / 1000
            record = {
                "step": step, "tokens": 1024 * step, "elapsed": step / 10,
                "bpb": 1 + 2 / step**0.3 + 0.2 * noise, "lr": 0.01, "muon_lr": 0.02,
                "grad_norm": 1 + noise, "tokens_per_s": 5000 + 100 * noise,
            }  # fmt: skip
            file.write(json.dumps(record) + "\n")
            if step % 100 == 0:
                file.write(json.dumps({"step": step, "val_bpb": record["bpb"]}) + "\n")


def training_slowdown(rounds: int) -> tuple[float, float]:
    """Seconds until the first token: on an idle page, and while the page trains `nano`."""
    with tempfile.TemporaryDirectory() as place:
        text = Path(place) / "lesson.py"
        text.write_text("\n\n".join((ROOT / name).read_text("utf-8") for name in LESSON.split()))
        data = Path(place) / "data" / "lesson"
        prepare = [sys.executable, "prepare/run.py", "text", str(text), "--out", str(data)]
        subprocess.run(prepare, cwd=ROOT, check=True, capture_output=True)
        options = ("--runs", f"{place}/runs", "--data", f"{place}/data")
        with training_tab(*options) as (page, port):
            client = Client(f"http://127.0.0.1:{port}", verbose=False)
            for _ in range(3):
                first_token_s(client, "warm")
            time.sleep(15)  # the engine has compiled
            idle = [first_token_s(client, f"idle{i}") for i in range(rounds)]
            page.locator("#train-length").fill("100000")
            page.locator("#train-start").click()
            page.wait_for_function(
                "/step [1-9]/.test(document.querySelector('.run-bar .stats').textContent)",
                timeout=300_000,
            )
            time.sleep(5)
            busy = [first_token_s(client, f"busy{i}") for i in range(rounds)]
            return statistics.median(idle), statistics.median(busy)


def first_token_s(client: Client, name: str, length: int = 1) -> float:
    """Until the first text comes back, over Gradio's own client and queue."""
    start = time.perf_counter()
    job = client.submit(prompt=f"def {name}(n):", length=length, api_name="/generate")
    while not job.outputs():  # its iterator looks a thousand times a second, beside the page
        if job.done():
            job.result()  # raises what went wrong
        time.sleep(0.01)
    return time.perf_counter() - start


def users20() -> tuple[float, float]:
    """20 visitors ask together, each for 300 tokens: the longest wait for a first token, and the
    seconds in which a browser loads the page while they are being served."""
    port = free_port()
    with started("app.py", "--port", str(port), port=port), browser() as chromium:
        url = f"http://127.0.0.1:{port}"
        with ThreadPoolExecutor(USERS) as pool:
            # verifying reads all certificates for every request, on the processor of the page
            clients = list(
                pool.map(lambda _: Client(url, verbose=False, ssl_verify=False), range(USERS))
            )
            first_token_s(clients[0], "warm")
            page = chromium.new_page()
            page.goto(url)  # as a visitor's browser, it has seen Gradio's own files before
            time.sleep(15)  # the engine has compiled
            waits = pool.map(lambda i: first_token_s(clients[i], f"user{i}", 300), range(USERS))
            start = time.perf_counter()
            page.goto(url)
            load = time.perf_counter() - start
            return max(waits), load
