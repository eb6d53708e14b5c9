"""What a run has logged, followed while it goes on: its curves and the texts it wrote.

A week of training is millions of numbers. They are read once, whoever asks, and kept thinned out:
every extreme stays, so a spike can be seen however old it is. A browser gets what it lacks.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import time
from collections import deque
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from ptx.playground.answers import clean, is_number
from ptx.runlog import METRICS, SAMPLES, tail

KEPT = 4000
"""About so many points of a curve are kept; up to twice as many before they are thinned again."""
AT_ONCE = 8_000_000
"""Bytes of a log that are read before an answer: a long one is shown in parts."""
TEXTS = 8
TRAIN = ("step", "tokens", "elapsed", "bpb", "lr", "muon_lr", "grad_norm", "tokens_per_s")
VAL = ("step", "tokens", "elapsed", "val_bpb")
WATCHED = ("bpb", "grad_norm", "tokens_per_s", "val_bpb")
"""Figures whose extremes are kept; the rates follow a rule and have no others."""
FIGURES = (
    "step", "tokens", "loss", "bpb", "val_bpb", "lr", "muon_lr", "grad_norm", "tokens_per_s", "mfu",
    "memory_gib", "elapsed",
)  # fmt: skip

_epochs = itertools.count(time.time_ns() // 1_000_000)  # also different after a restart


def thin(rows: np.ndarray, watched: list[int], kept: int) -> np.ndarray:
    """About `kept` of `rows` (n, k), whose first column grows: spread evenly over it, with the
    first and the last row, and in each part those with the least and the greatest value of every
    watched column. NaN is no value."""
    parts = max(1, kept // (2 * len(watched)))
    x = rows[:, 0]
    edges = np.searchsorted(x, np.linspace(x[0], x[-1], parts + 1)[1:-1])
    wanted = {0, len(rows) - 1}
    for start, end in itertools.pairwise([0, *edges.tolist(), len(rows)]):
        for column in watched:
            values = rows[start:end, column]
            if np.isfinite(values).any():
                wanted |= {start + int(np.nanargmin(values)), start + int(np.nanargmax(values))}
    return rows[sorted(wanted)]


class Table:
    """Points of one curve or of several with the same steps; the first column is the step."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names
        self._watched = [i for i, name in enumerate(names) if name in WATCHED]
        self._rows = np.empty((0, len(names)))

    def extend(self, rows: list[list[float]]) -> bool:
        """Adds rows, NaN where a record had no such number. What is there of the same or of later
        steps is replaced: the run was continued from an earlier one. Whether that happened."""
        if not rows:
            return False
        before, joined = len(self._rows), np.concatenate([self._rows, np.array(rows, dtype=float)])
        steps = np.append(joined[:, 0], math.inf)
        kept = steps[:-1] < np.minimum.accumulate(steps[::-1])[::-1][1:]  # than all that follow
        self._rows = joined[kept]
        if len(self._rows) > 2 * KEPT:
            self._rows = thin(self._rows, self._watched, KEPT)
        return not kept[:before].all()

    def after(self, step: float) -> dict[str, list[float | None]]:
        """{name: values} of the steps after `step`."""
        rows = self._rows[np.searchsorted(self._rows[:, 0], step, side="right") :]
        return {name: [_json(v) for v in column] for name, column in zip(self.names, rows.T)}


class History:
    """The log of one run directory. For any number of threads."""

    def __init__(self, run: Path) -> None:
        self.run = run
        self._lock = Lock()
        self._reset()

    def _reset(self) -> None:
        self.epoch = next(_epochs)
        self._files: dict[str, tuple[int, int]] = {}  # which are read: their devices and inodes
        self._read = {METRICS: 0, SAMPLES: 0}
        self._train, self._val = Table(TRAIN), Table(VAL)
        self._latest: dict[str, float] = {}
        self._texts: deque[dict[str, Any]] = deque(maxlen=TEXTS)
        self._written = 0  # texts in all

    def since(self, request: Any) -> dict[str, Any]:
        """What is new for a browser since its last question.

        request: {"epoch", "train", "val", "texts"} of the last answer, and {} at first; from any
            client, so what does not fit counts as absent.
        Returns {"epoch": changes when the log was rewritten, and all of it comes anew,
            "train", "val": {name: values} of new points, "latest": {name: newest value},
            "texts": new ones, "read": {"epoch", "train", "val", "texts"} to ask with next time,
            "more": whether there is more to read at once}.
        """
        request = request if isinstance(request, dict) else {}
        with self._lock:
            more = self._update()
            if request.get("epoch") != self.epoch:
                request = {}
            seen = max(0, self._written - int(_number(request.get("texts"), 0)))
            train = self._train.after(_number(request.get("train"), -math.inf))
            val = self._val.after(_number(request.get("val"), -math.inf))
            return {
                "epoch": self.epoch,
                "train": train,
                "val": val,
                "latest": dict(self._latest),
                "texts": list(self._texts)[-seen:] if seen else [],
                "read": {
                    "epoch": self.epoch,
                    "train": _last(train, request.get("train")),
                    "val": _last(val, request.get("val")),
                    "texts": self._written,
                },
                "more": more,
            }

    def _update(self) -> bool:
        """Reads on; whether there is more. Where a log was replaced (the run went back to a
        checkpoint) or became shorter, both are read from their start. One that cannot be read now
        has nothing new."""
        try:
            size = self._look()
            records, end = tail(self.run / METRICS, self._read[METRICS], AT_ONCE)
            texts, read = tail(self.run / SAMPLES, self._read[SAMPLES], AT_ONCE)
        except OSError:
            return False
        more = end < size and end > self._read[METRICS]
        self._read = {METRICS: end, SAMPLES: read}
        self._take(records)
        for text in filter(None, map(as_text, texts)):
            self._texts.append(text)
            self._written += 1
        return more

    def _look(self) -> int:
        """Bytes of the log of metrics."""
        stats = {METRICS: os.stat(self.run / METRICS)}
        with contextlib.suppress(FileNotFoundError):
            stats[SAMPLES] = os.stat(self.run / SAMPLES)
        files = {name: (stat.st_dev, stat.st_ino) for name, stat in stats.items()}
        replaced = any(self._files.get(name, file) != file for name, file in files.items())
        if replaced or any(stat.st_size < self._read[name] for name, stat in stats.items()):
            self._reset()
        self._files |= files
        return stats[METRICS].st_size

    def _take(self, records: list[dict[str, Any]]) -> None:
        train, val = [], []
        for record in records:
            self._latest |= {n: record[n] for n in FIGURES if is_number(record.get(n))}
            if not is_number(record.get("step")):
                continue
            for name, names, rows in (("bpb", TRAIN, train), ("val_bpb", VAL, val)):
                if is_number(record.get(name)):
                    rows.append([_number(record.get(n), math.nan) for n in names])
        replaced = [self._train.extend(train), self._val.extend(val)]
        if any(replaced):
            self.epoch = next(_epochs)


def as_text(record: dict[str, Any]) -> dict[str, Any] | None:
    """A line of samples.jsonl, if it is one."""
    step, prompt, text = (record.get(name) for name in ("step", "prompt", "text"))
    if not (is_number(step) and isinstance(prompt, str) and isinstance(text, str)):
        return None
    # a file may hold half of a surrogate pair, which no answer can carry
    return {"step": step, "prompt": clean(prompt), "text": clean(text)}


def _number(value: Any, default: float) -> float:
    return value if is_number(value) else default


def _last(columns: dict[str, list[float | None]], before: Any) -> float:
    steps = columns["step"]
    return steps[-1] if steps else _number(before, -1)


def _json(value: float) -> float | int | None:
    """Six digits are more than a screen shows."""
    if math.isnan(value):
        return None
    return int(value) if abs(value) < 2**53 and value == int(value) else float(f"{value:.6g}")
