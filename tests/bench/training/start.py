"""start_seconds: from the command to the first step's line in metrics.jsonl."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ptx import runlog
from tests.bench.report import Row

ROOT = Path(__file__).resolve().parents[3]
PATIENCE = 120.0


def measure(data: Path, quick: bool) -> tuple[list[Row], list[Row]]:
    """The figure: the median of some fresh processes."""
    seconds = [start_seconds(data) for _ in range(1 if quick else 5)]
    return [("start_seconds", statistics.median(seconds), None, 8.0)], []


def start_seconds(data: Path) -> float:
    with tempfile.TemporaryDirectory() as runs:
        command = [sys.executable, ROOT / "train" / "run.py", "--preset", "nano", "--data", data]
        options = ["--runs", runs, "--name", "start", "--steps", "1", "--compile", "off"]
        started = time.perf_counter()
        child = subprocess.Popen([*command, *options], stdout=subprocess.DEVNULL)
        try:
            while not runlog.tail(Path(runs) / "start" / runlog.METRICS)[0]:
                if child.poll() is not None or time.perf_counter() - started > PATIENCE:
                    raise RuntimeError(f"no step within {PATIENCE:g} s: see above")
                time.sleep(0.01)
            return time.perf_counter() - started
        finally:
            child.kill()
            child.wait()
