"""python train/run.py doctor : what this machine trains with, and how long each preset takes.

Nothing is guessed: arithmetic is timed, and each preset is trained for a few seconds.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ptx.config import ModelConfig, preset
from ptx.errors import UserError
from train.device import keep_freed_memory, pick_device
from train.estimate import SECONDS, Estimate, estimate, rows_in
from train.kernels import (
    WORTH_COMPILING,
    Kernels,
    choose,
    compile_gain,
    matmul_peak,
    product_rate,
)
from train.machine import Machine, look
from train.settings import RECIPES, Settings, complete

PATIENCE = 60.0
"""Minutes within which a first training should end."""
DISTURBED = 0.8
"""Ratio of the two measurements of one peak below which something else used the machine."""


@dataclass
class Doctor:
    """Say what this machine trains with, and how long each preset would take.

    Everything is measured now, in about a minute; other programs disturb it.

    For example:

    python train/run.py doctor

    python train/run.py doctor --preset mini --tokens 10000000
    """

    preset: str | None = None
    """The one preset to estimate; all of them if left out."""
    tokens: int | None = None
    """To estimate the training time for; as many as the preset's recipe takes if left out."""
    vocab_size: int | None = None
    """Tokens that the data's tokenizer has, such as 4096 of py4k; the presets' own if left out."""
    runs: Path = Path("runs")
    """Where runs would be kept."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps ..."""
    json: bool = False
    """End with all figures as one line of JSON."""


@dataclass(frozen=True)
class Probes:
    """What the machine's arithmetic does, measured."""

    bf16_gain: float
    """How many times faster than in fp32 matrix products run in bf16."""
    kernels: Kernels
    notes: list[str]
    """What the choice of the kernels rests on, in words."""
    compile_gain: float
    """How many times faster a compiled block runs; 0 where compiling fails."""
    compile: str
    """The same in words, with the seconds it took, or why it fails."""
    peak_gflops: dict[str, float]
    """Of matrix products, by precision."""
    peak_again_gflops: float
    """In fp32, measured after all the rest."""


def doctor(args: Doctor) -> None:
    """Measures, and prints what it finds."""
    names = [args.preset] if args.preset is not None else list(RECIPES)
    settings = [complete(Settings(preset=name)) for name in names]
    if args.tokens is not None and args.tokens < 1:
        raise UserError(f"--tokens must be at least 1, not {args.tokens}")
    if args.vocab_size is not None and args.vocab_size < 2:
        raise UserError(f"--vocab-size must be at least 2, not {args.vocab_size}")
    shapes = {name: shape_of(name, args.vocab_size) for name in names}
    device = pick_device(args.device)
    machine = look(device, args.runs)
    keep_freed_memory()
    with Console(stderr=True).status("") as status, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # compilers and emulated bf16 have much to say
        probes, estimates = measure(settings, shapes, args.tokens, machine, device, status.update)
    problem = trouble(probes, estimates)
    advice = problem or advise(machine, estimates)
    console = Console()
    console.print(facts_table(machine, probes, args.runs))
    console.print(estimates_table(estimates, machine))
    console.print(advice, highlight=False)
    if args.json:
        found = {"machine": asdict(machine), "probes": asdict(probes)}
        found |= {"presets": [asdict(e) for e in estimates], "trouble": problem, "advice": advice}
        print(json.dumps(found, allow_nan=False))


def shape_of(name: str, vocab_size: int | None) -> ModelConfig:
    """The preset's, with the data's vocabulary; that of `reference` is fixed (`loop.shape_for`)."""
    shape = preset(name)
    fixed = vocab_size is None or name == "reference"
    return shape if fixed else replace(shape, vocab_size=vocab_size)


def measure(
    settings: list[Settings],
    shapes: dict[str, ModelConfig],
    tokens: int | None,
    machine: Machine,
    device: torch.device,
    say: Callable[[str], None],
) -> tuple[Probes, list[Estimate]]:
    """Probes the arithmetic, then times each preset.

    What is costly to probe (bf16 where it is emulated, compiling) is probed at one shape only.
    """
    typical = next((s for s in settings if s.preset == "mini"), settings[0])
    shape = shapes[typical.preset]
    say("timing large matrix products")
    peak = {"fp32": matmul_peak("fp32", device)}
    say("comparing kernels")
    auto = {"precision", "attention"}
    rows = {s.preset: rows_in(SECONDS, peak["fp32"], s, shapes[s.preset]) for s in settings}
    chosen = {name: choose(Kernels(), auto, shapes[name], n, device) for name, n in rows.items()}
    kernels, notes = chosen[typical.preset]
    if kernels.precision == "bf16":
        peak["bf16"] = matmul_peak("bf16", device)
    say("compiling a block")
    compiled, gain, compile_note = compile_gain(kernels, auto, shape, rows[typical.preset], device)
    kernels = compiled if gain >= WORTH_COMPILING else kernels

    estimates = []
    for s in settings:
        say(f"training {s.preset} ({len(estimates) + 1} of {len(settings)})")
        own = kernels if s is typical else chosen[s.preset][0]
        n = rows[s.preset]
        estimates.append(estimate(s, shapes[s.preset], own, n, tokens, machine, device))
    say("timing large matrix products again")
    probes = Probes(
        bf16_gain=bf16_gain(peak, device),
        kernels=kernels,
        notes=notes,
        compile_gain=round(gain, 3),
        compile=compile_note,
        peak_gflops={name: round(flops / 1e9, 1) for name, flops in peak.items()},
        peak_again_gflops=round(matmul_peak("fp32", device) / 1e9, 1),
    )
    return probes, estimates


def bf16_gain(peak: dict[str, float], device: torch.device) -> float:
    """How many times faster than in fp32 products are in bf16; small ones if its peak is unknown,
    because where bf16 is emulated a large one takes a minute."""
    if "bf16" in peak:
        return peak["bf16"] / peak["fp32"]
    return product_rate("bf16", device, 256) / product_rate("fp32", device, 256)


def facts_table(machine: Machine, probes: Probes, runs: Path) -> Table:
    """What the machine is and does, a fact a line."""
    m, p = machine, probes
    peaks = ", ".join(f"{flops:,.0f} GFLOP/s in {name}" for name, flops in p.peak_gflops.items())
    timed = [n.removeprefix("attention: ") for n in p.notes if n.startswith("attention: ")]
    verdict = ("worth it: " if p.kernels.compiled else "not worth it: ") if p.compile_gain else ""
    facts = {
        "device": f"{m.device}: {m.name}",
        "cores": f"{m.cores}, of which torch uses {m.threads}",
        "memory": f"{m.free_gib:.1f} of {m.memory_gib:.1f} GiB free",
        "torch": m.torch,
        "precision": f"{p.kernels.precision}; products in bf16 are {times(p.bf16_gain)} in fp32",
        "attention": "; ".join([p.kernels.attention, *timed]),
        "C++ compiler": m.compiler or "none",
        "torch.compile": f"{verdict}{p.compile}",
        "matrix products": f"{peaks}; at the end {p.peak_again_gflops:,.0f} in fp32",
        "disk": f"{m.disk_free_gib:,.0f} GiB free for {runs}",
        "TensorBoard": "installed, for --track tensorboard"
        if m.tensorboard
        else "not installed: pip install tensorboard",
        "GPUs": gpu_use(m.gpus),
    }
    table = Table(show_header=False, box=None)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, fact in facts.items():
        table.add_row(name, escape(fact))
    return table


def times(gain: float) -> str:
    return f"{gain:.1f} times as fast as" if gain >= 1 else f"{1 / gain:.1f} times slower than"


def gpu_use(gpus: int) -> str:
    """How many GPUs there are, and the command that trains on all of them."""
    if gpus < 2:
        return "1, taken unless --device says otherwise" if gpus else "none"
    return f"{gpus}; all of them: torchrun --nproc-per-node={gpus} train/run.py --preset small"


def estimates_table(estimates: list[Estimate], machine: Machine) -> Table:
    """A preset a line."""
    footnotes = []
    if (compiled := [e.preset for e in estimates if e.kernels.compiled]) and estimates[1:]:
        footnotes.append(f"Only {compiled[0]} was timed compiled.")
    if not all(e.fits for e in estimates):
        footnotes.append("A smaller --micro-batch takes less memory.")
    table = Table(
        "preset",
        title=f"Training on {machine.device}",
        caption=" ".join(footnotes) or None,
        box=box.SIMPLE_HEAD,
        padding=(0, 0, 0, 1),
    )
    for heading in ("parameters", "tokens/s", "tokens", "time", "memory", "fits", "on disk"):
        table.add_column(heading, justify="right", no_wrap=True)
    for e in estimates:
        table.add_row(
            e.preset,
            millions(e.parameters),
            f"{e.tokens_per_s:,.0f}" if e.fits else "",
            millions(e.tokens),
            duration(e.minutes) if e.fits else "",
            f"{e.memory_gib:.1f} GiB",
            "yes" if e.fits else "no",
            f"{e.checkpoint_gib:.2f} GiB",
        )
    return table


def millions(n: int) -> str:
    return f"{n / 1e6:,.{0 if n >= 1e8 else 1}f}M"


def duration(minutes: float) -> str:
    """Minutes in the unit that a person would use."""
    for limit, size, unit in ((90, 1, "min"), (48 * 60, 60, "hours")):
        if minutes < limit:
            return f"{minutes / size:.1f} {unit}"
    return f"{minutes / 60 / 24:,.0f} days"


def trouble(probes: Probes, estimates: list[Estimate]) -> str | None:
    """What spoils the figures, and what to do about it."""
    before, after = probes.peak_gflops["fp32"], probes.peak_again_gflops
    if min(before, after) < DISTURBED * max(before, after):
        return (
            f"Matrix products ran at {before:,.0f} GFLOP/s at first and at {after:,.0f} in the "
            "end: close other programs and ask again."
        )
    if not any(e.fits for e in estimates):
        return (
            "There is not enough free memory for one step: close other programs, choose a smaller "
            "network, or lower --micro-batch in a terminal."
        )
    return None


def advise(machine: Machine, estimates: list[Estimate]) -> str:
    """The one thing to do next, where there is no trouble."""
    timed = [e for e in estimates if e.fits]
    if machine.device == "cpu" and machine.compiler is None:
        return "Install a C++ compiler (g++): compiled, long runs are faster."
    ours = [e for e in timed if e.preset != "reference"] or timed
    quick = [e for e in ours if e.minutes <= PATIENCE]
    best = max(quick, key=lambda e: e.tokens) if quick else min(ours, key=lambda e: e.minutes)
    return f"Start with: python train/run.py --preset {best.preset} ({duration(best.minutes)})."
