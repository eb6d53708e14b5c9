"""Training: the loss curves of a run, live while it goes on, and what it writes.

The browser asks every two seconds for what it lacks, naming the byte offsets it has read to, so a
chart is never sent twice and a run needs no connection to the page.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

from ptx.playground.served import Served
from ptx.playground.web import panel
from ptx.runlog import METRICS, SAMPLES, tail

MAX_POINTS = 4000
"""Training points of one answer; a longer history is thinned evenly."""
MAX_SAMPLES = 4
LIVE_SECONDS = 60.0
"""A run that wrote something this recently is going on."""

FIGURES = (
    "step", "tokens", "loss", "bpb", "val_bpb", "lr", "muon_lr", "grad_norm", "tokens_per_s", "mfu",
    "memory_gib", "elapsed",
)  # fmt: skip


class Runs:
    """The runs a page can show: the model's own training, and those of the runs directory."""

    def __init__(self, model: Served, runs: Path) -> None:
        self.model, self.runs = model, runs

    def paths(self) -> dict[str, Path]:
        """{key: directory} of everything that has metrics; the run written to last comes first."""
        found = {}
        own = self.model.directory
        if own.parent.name == "checkpoints" and not (own / METRICS).is_file():
            own = own.parent.parent  # a checkpoint's curve is its run's
        if (own / METRICS).is_file():
            found["model"] = own
        folders = self.runs.iterdir() if self.runs.is_dir() else ()
        dated = [(_written(path), path) for path in folders if (path / METRICS).is_file()]
        for _, path in sorted(dated, reverse=True):
            found[f"runs/{path.name}"] = path
        return found

    def listing(self, paths: dict[str, Path]) -> list[dict[str, Any]]:
        now = time.time()
        return [
            {
                "key": key,
                "name": f"{self.model.name} (the model on this page)"
                if key == "model"
                else path.name,
                "live": key != "model" and now - _written(path) < LIVE_SECONDS,
            }
            for key, path in paths.items()
        ]

    def follow(self, request: Any) -> dict[str, Any]:
        """What is new in a run since the browser last asked.

        request: {"run": key, or "" for the most interesting one, "metrics": byte offset read to,
            "samples": likewise}; from any client, so whatever does not fit counts as absent.
        """
        request = request if isinstance(request, dict) else {}
        paths = self.paths()
        listing = self.listing(paths)
        key = request.get("run")
        if not isinstance(key, str) or key not in paths:
            key = next((run["key"] for run in listing if run["live"]), next(iter(paths), ""))
            request = {}
        answer: dict[str, Any] = {"runs": listing, "run": key}
        if key:
            metrics, read = tail(paths[key] / METRICS, _offset(request.get("metrics")))
            samples, samples_read = tail(paths[key] / SAMPLES, _offset(request.get("samples")))
            answer |= {
                "metrics": read,
                "samples": samples_read,
                "train": points(metrics, "bpb", MAX_POINTS),
                "val": points(metrics, "val_bpb", MAX_POINTS),
                "latest": latest(metrics),
                "texts": [text for record in samples if (text := _text(record))][-MAX_SAMPLES:],
            }
        return answer


def points(records: list[dict[str, Any]], name: str, limit: int) -> list[list[float]]:
    """[steps, values] of one figure, at most about `limit`, always with the last."""
    rows = [
        (r["step"], r[name]) for r in records if _number(r.get("step")) and _number(r.get(name))
    ]
    stride = max(1, math.ceil(len(rows) / limit))
    rows = rows[(len(rows) - 1) % stride :: stride]
    return [[step for step, _ in rows], [round(value, 5) for _, value in rows]]


def latest(records: list[dict[str, Any]]) -> dict[str, float]:
    """The newest value of every figure that `records` mention."""
    found: dict[str, float] = {}
    for record in records:
        found |= {name: record[name] for name in FIGURES if _number(record.get(name))}
    return found


def _text(record: dict[str, Any]) -> dict[str, Any] | None:
    step, prompt, text = (record.get(name) for name in ("step", "prompt", "text"))
    if not (_number(step) and isinstance(prompt, str) and isinstance(text, str)):
        return None
    # a sample file may hold half of a surrogate pair, which no answer can carry
    return {"step": step, "prompt": _clean(prompt), "text": _clean(text)}


def _clean(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _offset(value: Any) -> int:
    return value if type(value) is int and 0 <= value < 2**53 else 0


def _written(run: Path) -> float:
    try:
        return (run / METRICS).stat().st_mtime
    except OSError:
        return 0.0


def build(served: Served, runs: Path) -> None:
    """The panel; everything it does happens between its script and `follow`."""
    source = Runs(served, runs)

    def follow(request: Any) -> dict[str, Any]:
        return source.follow(request)

    panel("curves", server=[follow])
