"""speed_vs_fp32_peer, speed_vs_compiled_peer and mfu: whole optimizer steps of `mini`, in turns."""

from __future__ import annotations

import statistics
import sys
import time
from contextlib import nullcontext
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from ptx.config import ModelConfig, preset
from ptx.model import GPT
from tests.bench.report import Row
from tests.bench.training.ceiling import Spent, spent
from tests.bench.training.peers import gpt2, qwen3
from tests.bench.training.turns import Side
from train.device import keep_freed_memory
from train.kernels import (
    Kernels,
    Precision,
    flops_per_token,
    kernels_of,
    matmul_peak,
    prepare,
    running,
    settle,
)
from train.optim import make_optimizers
from train.settings import Settings, complete

KEYS = {"speed_vs_fp32_peer", "speed_vs_compiled_peer", "mfu"}
CPU = torch.device("cpu")
HOPELESS_SECONDS = 90.0
"""Given to a single step of two sequences in a precision that the machine has to emulate."""
AT_REST = 0.02
"""Share of a core that a side which waits may use before the figures are in doubt."""


class Stepper:
    """One way to train a shape: times its optimizer steps on random text."""

    shape: ModelConfig
    model: nn.Module
    optimizers: list[torch.optim.Optimizer]

    def step(self, seed: int, rows: int) -> float:
        """Tokens per second of one step of `rows` sequences."""
        torch.manual_seed(seed)
        ids = torch.randint(self.shape.vocab_size, (rows, self.shape.context + 1))
        started = time.perf_counter()
        self.accumulate(ids[:, :-1], ids[:, 1:])
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return rows * self.shape.context / (time.perf_counter() - started)

    def accumulate(self, ids: Tensor, targets: Tensor) -> None:
        raise NotImplementedError


class Ours(Stepper):
    """As the training loop does it, clipping included."""

    def __init__(
        self, shape: ModelConfig, optimizer: str, compile: str, kernels: Kernels | None = None
    ) -> None:
        """kernels: those that a run's start chooses, if left out; compile: as --compile."""
        keep_freed_memory()
        self.shape = shape
        # So many steps that they pay for compiling.
        told = Settings(preset="mini", optimizer=optimizer, compile=compile, steps=10**6)
        self.settings = complete(told)
        self.kernels = kernels or kernels_of(settle(self.settings, shape, CPU))
        self.model = GPT(shape)
        prepare(self.model, self.kernels)
        told = replace(self.settings, precision=self.kernels.precision)
        self.optimizers = make_optimizers(self.model, told)

    def chosen(self) -> Kernels:
        return self.kernels

    def accumulate(self, ids: Tensor, targets: Tensor) -> None:
        with running(self.kernels, CPU):
            loss = self.model(ids, targets)
        loss.backward()
        clip_grad_norm_(self.model.parameters(), self.settings.clip)

    def spent(self, rows: int) -> Spent:
        return spent(lambda: self.step(0, rows))

    def peak(self, precision: Precision) -> float:
        return matmul_peak(precision, CPU)


class Plain(Stepper):
    """The peer that everyone starts from: fp32, eager, torch's AdamW as it comes."""

    def __init__(self, shape: ModelConfig) -> None:
        self.shape, self.model = shape, gpt2(shape)
        self.optimizers = [torch.optim.AdamW(self.model.parameters(), 3e-4)]

    def accumulate(self, ids: Tensor, targets: Tensor) -> None:
        self.model(ids, targets).backward()


class Compiled(Stepper):
    """The peer of the same graph, through torch.compile with its loss."""

    def __init__(self, shape: ModelConfig, precision: Precision) -> None:
        self.shape, self.model, self.precision = shape, qwen3(shape), precision
        self.compiled = torch.compile(self.model, dynamic=False)
        self.optimizers = [torch.optim.AdamW(self.model.parameters(), 3e-4)]

    def accumulate(self, ids: Tensor, targets: Tensor) -> None:
        bf16 = self.precision == "bf16"
        with torch.autocast("cpu", dtype=torch.bfloat16) if bf16 else nullcontext():
            loss = self.compiled(ids, targets)
        loss.backward()


def measure(wanted: set[str], quick: bool) -> tuple[list[Row], list[Row]]:
    """The wanted figures, and the measurements they are made of."""
    shape, rows, rounds = preset("mini"), complete(Settings(preset="mini")).batch_size, 7
    compile = "auto"
    if quick:
        shape = replace(shape, n_layer=1, vocab_size=4096, context=128)
        rows, rounds, compile = 4, 3, "off"
    muon = Side(Ours, shape, "muon", compile)
    kernels = muon("chosen")
    sides = {"muon": muon, "adamw": Side(Ours, shape, "adamw", compile, kernels)}
    if "speed_vs_fp32_peer" in wanted:
        sides["gpt2"] = Side(Plain, shape)
    emulated = muon("peak", "bf16") < muon("peak", "fp32")
    if wanted & {"speed_vs_compiled_peer", "mfu"}:
        sides["qwen3 fp32"] = Side(Compiled, shape, "fp32")
        if not emulated:
            sides["qwen3 bf16"] = Side(Compiled, shape, "bf16")
    rates, peaks = take_turns(sides, rows, rounds, kernels.precision)
    warn_of_restlessness(sides)
    profiled = muon("spent", rows) if "mfu" in wanted else None
    for side in sides.values():
        side.close()
    if emulated and "speed_vs_compiled_peer" in wanted and not quick:
        rates["qwen3 bf16"] = [one_step_of_two(shape)]
    return rows_of(wanted, shape, rows, kernels, rates, statistics.median(peaks), profiled)


def take_turns(
    sides: dict[str, Side], rows: int, rounds: int, precision: Precision
) -> tuple[dict[str, list[float]], list[float]]:
    """Tokens per second of each side's steps, and the machine's peak measured between them."""
    rates: dict[str, list[float]] = {name: [] for name in sides}
    peaks = []
    for side in sides.values():  # warms up, and compiles
        side("step", 0, rows)
        side("step", 1, rows)
    for turn in range(rounds):
        peaks.append(sides["muon"]("peak", precision))
        for name, side in sides.items():
            rates[name].append(side("step", 2 + turn, rows))
    return rates, peaks


def warn_of_restlessness(sides: dict[str, Side]) -> None:
    for name, side in sides.items():
        if side.cpu_waiting > AT_REST * side.waited:
            share = side.cpu_waiting / side.waited
            print(f"{name} used {share:.0%} of a core while it waited", file=sys.stderr)


def one_step_of_two(shape: ModelConfig) -> float:
    """Tokens per second of the bf16 peer on two sequences; 0 where even that does not end."""
    side = Side(Compiled, shape, "bf16")
    try:
        side("step", 0, 2, timeout=HOPELESS_SECONDS)  # compiles
        return side("step", 1, 2, timeout=HOPELESS_SECONDS)
    except TimeoutError:
        return 0.0
    finally:
        side.close()


def rows_of(
    wanted: set[str],
    shape: ModelConfig,
    rows: int,
    kernels: Kernels,
    rates: dict[str, list[float]],
    peak: float,
    profiled: Spent | None,
) -> tuple[list[Row], list[Row]]:
    """The table: figures, and what they are made of."""
    median = {name: statistics.median(values) for name, values in rates.items()}
    figures: list[Row] = []
    details: list[Row] = []

    def compare(key: str, peer: str, label: str, target: float) -> None:
        for side, optimizer in (("muon", "Muon + AdamW"), ("adamw", "AdamW")):
            ours = f"{optimizer} ({kernels})"
            figure = f"tokens/s, {rows} x {shape.context} a step, {ours} against {label}"
            details.append((figure, median[side], median[peer], None))
        figures.append((key, ratio(rates["muon"], rates[peer]), 1.0, target))
        details.append((f"{key}, AdamW alone", ratio(rates["adamw"], rates[peer]), 1.0, None))

    if "speed_vs_fp32_peer" in wanted:
        compare("speed_vs_fp32_peer", "gpt2", "GPT-2, fp32, eager", 5.0)
    if "speed_vs_compiled_peer" in wanted:
        peers = [name for name in rates if name.startswith("qwen3")]
        faster = max(peers, key=median.__getitem__)
        label = f"{faster}, compiled"
        for other in set(peers) - {faster}:
            label += f" ({other.split()[1]}: {median[other]:,.0f})"
        compare("speed_vs_compiled_peer", faster, label, 1.3)
    if "mfu" in wanted:
        flops = flops_per_token(shape)
        details.append((f"peak of {kernels.precision} products, GFLOP/s", peak / 1e9, None, None))
        peer = median["qwen3 fp32"] * flops / peak if kernels.precision == "fp32" else None
        figures.append(("mfu", median["muon"] * flops / peak, peer, 0.55))
    if profiled:
        ideal = rows * shape.context * flops_per_token(shape) / peak
        details.append(("a step at the peak alone, ms", 1000 * ideal, None, None))
        for part, seconds in profiled._asdict().items():
            details.append((f"a step's {part}, ms (profiled)", 1000 * seconds, None, None))
    return figures, details


def ratio(ours: list[float], theirs: list[float]) -> float:
    """The median of the ratios of paired turns; inf against a peer that did not get anywhere."""
    return statistics.median(a / b if b else float("inf") for a, b in zip(ours, theirs))
