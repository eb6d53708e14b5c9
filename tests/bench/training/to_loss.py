"""time_to_peer_bpb: how much sooner we reach the bits per byte that GPT-2 with AdamW ends at.

Both train on the same files and are scored on the same windows by the same function, in turns, and
the clock of each runs only while it starts or trains. Its schedule fills its own budget.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch.nn.utils import clip_grad_norm_

from ptx.config import preset
from ptx.corpus import Corpus
from tests.bench.report import Row
from tests.bench.training.peers import adamw, gpt2
from tests.bench.training.turns import Side
from train.device import keep_freed_memory
from train.kernels import Kernels, flops_per_token, matmul_peak
from train.loop import Run
from train.score import validate
from train.settings import Settings, complete

ROOT = Path(__file__).resolve().parents[3]
NEVER = 10**9
TURNS = 16
"""Each side trains for this part of its budget, then is scored."""
TRIAL_SECONDS = 15.0
PEER_LR, PEER_ROWS = 3e-3, 4
"""The best of `--tune --tune-minutes 1.5` on 2 cores of an AMD EPYC (Zen 3), 2026-11-22, in bits
per byte: 2.539. At 1e-3 2.551; with 16 sequences a step 2.543 at 1e-3 and 2.557 at 3e-3."""
OUR_CHOICE = {"batch_size": 4, "warmup": 10}
"""The recipe's, but for what minutes of training want (train/ABLATIONS.md)."""
TUNED_LR, TUNED_ROWS = (1e-3, 3e-3), (4, 16)
PEER_WARMUP = 0.02
"""Share of the peer's budget; then its rate falls along a cosine to a tenth."""


@dataclass(frozen=True)
class Plan:
    """What both sides are given."""

    data: Path
    peer_minutes: float
    our_minutes: float
    windows: int = 64
    turns: int = TURNS


@dataclass(frozen=True)
class Point:
    """A side's state after a turn."""

    seconds: float
    """Of starting and training so far."""
    steps: int
    tokens: int
    bpb: float
    done: bool


class Peer:
    """What nanoGPT does on a CPU."""

    def __init__(self, plan: Plan, minutes: float, lr: float, rows: int) -> None:
        started = time.perf_counter()
        self.corpus = Corpus(plan.data)
        shape = replace(preset("mini"), vocab_size=self.corpus.tokenizer.n_vocab)
        torch.manual_seed(0)
        self.model = gpt2(shape)
        self.lr, self.rows, self.context = lr, rows, shape.context
        self.optimizer = adamw(self.model, lr)
        self.windows = self.corpus.val_windows(shape.context, plan.windows)
        self.budget, self.steps = 60 * minutes, 0
        self.seconds = time.perf_counter() - started

    def train(self, share: float) -> Point:
        """Trains until `share` of the budget is used."""
        while self.seconds < share * self.budget:
            started = time.perf_counter()
            self.step()
            self.seconds += time.perf_counter() - started
        lengths = self.corpus.tokenizer.byte_lengths
        _, bpb = validate(self.model, self.windows, lengths, Kernels())
        tokens = self.steps * self.rows * self.context
        return Point(self.seconds, self.steps, tokens, bpb, self.seconds >= self.budget)

    def step(self) -> None:
        """Its schedule follows the clock: it ends with the budget, however fast the machine is."""
        x, y = self.corpus.batch(self.steps, self.rows, self.context, seed=0)  # (B, T) each
        done = self.seconds / self.budget
        cosine = 0.55 + 0.45 * math.cos(math.pi * (done - PEER_WARMUP) / (1 - PEER_WARMUP))
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr * min(cosine, (done + 0.1 * PEER_WARMUP) / PEER_WARMUP)
        self.model(torch.from_numpy(x), torch.from_numpy(y)).backward()
        clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.steps += 1


class Ours:
    """A run by the `mini` recipe, as the command line starts it."""

    def __init__(self, plan: Plan, runs: Path, name: str, steps: int, cache: str) -> None:
        """cache: an empty directory, so that whatever is compiled is compiled anew."""
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache
        started = time.perf_counter()
        keep_freed_memory()
        quiet = {"val_every": NEVER, "sample_every": NEVER, "save_every": NEVER, "val_windows": 1}
        told = {"preset": "mini", "data": plan.data, "name": name, "runs": runs, "steps": steps}
        self.run = Run.start(Settings(**told, **OUR_CHOICE, **quiet))
        self.windows = self.run.corpus.val_windows(self.run.model.config.context, plan.windows)
        self.budget = 60 * plan.our_minutes
        self.starting = time.perf_counter() - started

    @property
    def seconds(self) -> float:
        return self.starting + self.run.progress.elapsed

    @property
    def done(self) -> bool:
        return self.run.progress.step >= self.run.settings.steps

    def train(self, share: float) -> Point:
        """Trains until `share` of the budget is used; all steps that are left for all of it."""
        while not self.done and (share >= 1 or self.seconds < share * self.budget):
            self.run.step()
        lengths = self.run.corpus.tokenizer.byte_lengths
        with torch.compiler.set_stance("force_eager"):
            _, bpb = validate(self.run.model, self.windows, lengths, self.run.kernels)
        progress = self.run.progress
        return Point(self.seconds, progress.step, progress.tokens, bpb, self.done)

    def steps_in_budget(self) -> int:
        """Those that fit in it after the start, by a trial of some warm ones."""
        progress = self.run.progress
        for _ in range(2):
            self.run.step()
        before, first = progress.elapsed, progress.step
        while progress.elapsed < before + TRIAL_SECONDS:
            self.run.step()
        each = (progress.elapsed - before) / (progress.step - first)
        return max(1, int((self.budget - self.starting) / each))


def measure(plan: Plan, quick: bool) -> tuple[list[Row], list[Row]]:
    """The figure, and what both sides ended at; the curves are printed and, unless `quick`, kept in
    runs/, beside our run."""
    name = time.strftime("bench-%Y%m%d-%H%M%S")
    steps = 2 if quick else plan_steps(plan)
    rows = 2 if quick else PEER_ROWS
    with tempfile.TemporaryDirectory() as scratch:
        runs = Path(scratch) if quick else ROOT / "runs"
        sides = {
            "ours": Side(Ours, plan, runs, name, steps, f"{scratch}/compiled"),
            "peer": Side(Peer, plan, plan.peer_minutes, PEER_LR, rows),
        }
        curves = train_both(sides, plan, runs / f"{name}.jsonl")
    print_curves(curves)
    goal = curves["peer"][-1].bpb
    reached = [point.seconds for point in curves["ours"] if point.bpb <= goal]
    share = reached[0] / (60 * plan.peer_minutes) if reached else math.inf
    details: list[Row] = [
        ("last bits per byte", curves["ours"][-1].bpb, goal, None),
        ("seconds trained", curves["ours"][-1].seconds, curves["peer"][-1].seconds, None),
        ("tokens trained on", curves["ours"][-1].tokens, curves["peer"][-1].tokens, None),
    ]
    return [("time_to_peer_bpb", share, 1.0, 0.2)], details


def plan_steps(plan: Plan) -> int:
    """The steps that fit in our budget, starting included."""
    settings, shape = complete(Settings(preset="mini", **OUR_CHOICE)), preset("mini")
    at_half_peak = 2 * settings.batch_size * shape.context * flops_per_token(shape)
    seconds = at_half_peak / matmul_peak("fp32", torch.device("cpu"))
    guess = max(1, int(60 * plan.our_minutes / seconds))
    with tempfile.TemporaryDirectory() as runs:
        side = Side(Ours, plan, Path(runs), "trial", guess + 100, f"{runs}/compiled")
        steps = side("steps_in_budget")
        side.close()
    return steps


def train_both(sides: dict[str, Side], plan: Plan, log: Path) -> dict[str, list[Point]]:
    """The points of both sides, each also a line in `log` as soon as it is known."""
    curves: dict[str, list[Point]] = {name: [] for name in sides}
    log.parent.mkdir(exist_ok=True)
    for turn in range(1, plan.turns + 1):
        for name, side in sides.items():
            if not curves[name] or not curves[name][-1].done:
                point = side("train", turn / plan.turns)
                curves[name].append(point)
                keep(log, {"side": name} | vars(point))
    for side in sides.values():
        side.close()
    return curves


def keep(log: Path, record: dict[str, Any]) -> None:
    with log.open("a") as file:
        file.write(json.dumps(record) + "\n")


def print_curves(curves: dict[str, list[Point]]) -> None:
    table = Table(title="bits per byte over time")
    for side in curves:
        for column in (f"{side}: s", "tokens", "bpb"):
            table.add_column(column, justify="right")
    for turn in range(max(map(len, curves.values()))):
        cells = []
        for points in curves.values():
            point = points[turn] if turn < len(points) else None
            cells += (
                [f"{point.seconds:,.0f}", f"{point.tokens:,}", f"{point.bpb:.4f}"]
                if point
                else ["", "", ""]
            )
        table.add_row(*cells)
    Console().print(table)


def tune(plan: Plan, minutes: float) -> None:
    """Short trainings of the peer: which rate and batch end at the fewest bits per byte."""
    table = Table(title=f"GPT-2 after {minutes:g} minutes")
    for column in ("rate", "sequences a step", "steps", "bits per byte"):
        table.add_column(column, justify="right")
    log = ROOT / "runs" / time.strftime("bench-tune-%Y%m%d-%H%M%S.jsonl")
    log.parent.mkdir(exist_ok=True)
    for rows in TUNED_ROWS:
        for lr in TUNED_LR:
            side = Side(Peer, plan, minutes, lr, rows)
            point = side("train", 1.0)
            side.close()
            keep(log, {"lr": lr, "rows": rows} | vars(point))
            table.add_row(f"{lr:g}", str(rows), f"{point.steps:,}", f"{point.bpb:.4f}")
    Console().print(table)
