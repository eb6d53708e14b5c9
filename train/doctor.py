"""python train/run.py doctor : what this machine trains with, and how long each preset takes.

Nothing is guessed. Speed is timed on the real network with its own optimizer. Memory is counted
by a step on tensors that have a shape but no contents, so it is known before it is taken.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import time
import warnings
import weakref
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from ptx.config import preset
from ptx.errors import UserError
from ptx.model import GPT
from train.device import (
    GIB,
    keep_freed_memory,
    peak_memory,
    pick_device,
    processor,
    synchronize,
)
from train.kernels import (
    WORTH_COMPILING,
    Kernels,
    choose,
    compile_blocks,
    compile_gain,
    compiler,
    flops_per_token,
    matmul_peak,
    product_rate,
    running,
)
from train.optim import make_optimizers
from train.settings import RECIPES, Settings, complete

SECONDS = 2.0
"""That the sequences read at once should take; a preset is timed for at least twice as long."""
HELD = 1.3
"""Times the bytes of its tensors: about what a process holds, as freed blocks do not fit the next
tensor. Resident memory of `mini` and `reference` on a CPU with glibc, less that before them."""
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
    runs: Path = Path("runs")
    """Where runs would be kept."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps ..."""
    json: bool = False
    """End with all figures as one line of JSON."""


@dataclass(frozen=True)
class Machine:
    """What is there, without measuring."""

    device: str
    name: str
    cores: int
    threads: int
    memory_gib: float
    """Of the GPU, or of the machine."""
    free_gib: float
    base_gib: float
    """What a process holds there before it has a model."""
    torch: str
    compiler: str | None
    """Path of the C++ compiler."""
    disk_free_gib: float
    tensorboard: bool
    gpus: int


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


@dataclass(frozen=True)
class Footprint:
    """What the tensors of one optimizer step take, and those of a checkpoint."""

    parameters: int
    step_bytes: int
    checkpoint_bytes: int


@dataclass(frozen=True)
class Cost:
    """Where the seconds of an optimizer step go."""

    a_pass: float
    """Of each forward and backward, however little it reads: all weights and their gradients."""
    a_row: float
    """Of each sequence read."""
    an_update: float
    """Of the optimizers, however much was read."""

    def seconds(self, settings: Settings) -> float:
        """Of the whole step that `settings` describe."""
        passes = settings.batch_size // settings.micro_batch
        return passes * self.a_pass + settings.batch_size * self.a_row + self.an_update


@dataclass(frozen=True)
class Estimate:
    """What training one preset takes on this machine, on one device."""

    preset: str
    parameters: int
    tokens: int
    """To train on."""
    tokens_per_s: float | None
    """With the optimizer; None where the recipe's step does not fit."""
    minutes: float | None
    memory_gib: float
    """About the most that the process holds during a step."""
    fits: bool
    """Whether so much memory is free."""
    checkpoint_gib: float
    kernels: Kernels


def doctor(args: Doctor) -> None:
    """Measures, and prints what it finds."""
    names = [args.preset] if args.preset is not None else list(RECIPES)
    settings = [complete(Settings(preset=name)) for name in names]
    if args.tokens is not None and args.tokens < 1:
        raise UserError(f"--tokens must be at least 1, not {args.tokens}")
    device = pick_device(args.device)
    machine = look(device, args.runs)
    keep_freed_memory()
    with Console(stderr=True).status("") as status, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # compilers and emulated bf16 have much to say
        probes, estimates = measure(settings, args.tokens, machine, device, status.update)
    advice = advise(machine, probes, estimates)
    console = Console()
    console.print(facts_table(machine, probes, args.runs))
    console.print(estimates_table(estimates, machine))
    console.print(advice, highlight=False)
    if args.json:
        found = {"machine": asdict(machine), "probes": asdict(probes)}
        found |= {"presets": [asdict(e) for e in estimates], "advice": advice}
        print(json.dumps(found, allow_nan=False))


def look(device: torch.device, runs: Path) -> Machine:
    """The facts that need no measurement."""
    free, total = memory(device)
    place = next(p for p in (runs.resolve(), *runs.resolve().parents) if p.exists())
    return Machine(
        device=str(device),
        name=torch.cuda.get_device_name(device) if device.type == "cuda" else processor(),
        cores=os.cpu_count() or 1,
        threads=torch.get_num_threads(),
        memory_gib=round(total / GIB, 2),
        free_gib=round(free / GIB, 2),
        base_gib=round(peak_memory(device) or 0.0, 2),
        torch=torch.__version__,
        compiler=compiler(),
        disk_free_gib=round(shutil.disk_usage(place).free / GIB, 2),
        tensorboard=importlib.util.find_spec("tensorboard") is not None,
        gpus=torch.accelerator.device_count(),
    )


def memory(device: torch.device) -> tuple[int, int]:
    """Free and all bytes of memory: the GPU's, or the machine's; all is free where none can say."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        sizes = {name: int(size.split()[0]) for name, size in (s.split(":") for s in lines)}
        return sizes["MemAvailable"] * 1024, sizes["MemTotal"] * 1024
    except OSError:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return total, total


def measure(
    settings: list[Settings],
    tokens: int | None,
    machine: Machine,
    device: torch.device,
    say: Callable[[str], None],
) -> tuple[Probes, list[Estimate]]:
    """Probes the arithmetic, then times each preset.

    What is costly to probe (bf16 where it is emulated, compiling) is probed at one shape only.
    """
    typical = next((s for s in settings if s.preset == "mini"), settings[0])
    shape = preset(typical.preset)
    say("timing large matrix products")
    peak = {"fp32": matmul_peak("fp32", device)}
    say("comparing kernels")
    auto = {"precision", "attention"}
    rows = {s.preset: rows_in(SECONDS, peak["fp32"], s) for s in settings}
    chosen = {name: choose(Kernels(), auto, preset(name), n, device) for name, n in rows.items()}
    kernels, notes = chosen[typical.preset]
    if kernels.precision == "bf16":
        peak["bf16"] = matmul_peak("bf16", device)
    say("compiling a block")
    gain, compile_note = compile_gain(kernels, shape, rows[typical.preset], device)
    kernels = replace(kernels, compiled=gain >= WORTH_COMPILING)

    estimates = []
    for s in settings:
        say(f"training {s.preset} ({len(estimates) + 1} of {len(settings)})")
        own = kernels if s is typical else chosen[s.preset][0]
        estimates.append(estimate(s, own, rows[s.preset], tokens, machine, device))
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


def rows_in(seconds: float, peak: float, settings: Settings) -> int:
    """Sequences, one at least and the recipe's at most, that half of `peak` (FLOP/s) learns from
    in `seconds`."""
    shape = preset(settings.preset)
    flops = flops_per_token(shape) * shape.context
    return max(1, min(settings.micro_batch, int(seconds * peak / 2 / flops)))


def estimate(
    settings: Settings,
    kernels: Kernels,
    rows: int,
    tokens: int | None,
    machine: Machine,
    device: torch.device,
) -> Estimate:
    """Counts the memory of the recipe's step; if there is so much, times a step of `rows`."""
    footprint = count(settings, kernels, device)
    memory_gib = machine.base_gib + HELD * footprint.step_bytes / GIB
    batch_tokens = settings.batch_size * preset(settings.preset).context
    tokens = tokens or settings.steps * batch_tokens
    fits, speed = memory_gib <= machine.free_gib, None
    if fits:
        speed = batch_tokens / step_cost(settings, kernels, rows, device).seconds(settings)
    return Estimate(
        preset=settings.preset,
        parameters=footprint.parameters,
        tokens=tokens,
        tokens_per_s=speed and round(speed, 1),
        minutes=speed and round(tokens / speed / 60, 2),
        memory_gib=round(memory_gib, 2),
        fits=fits,
        checkpoint_gib=round(footprint.checkpoint_bytes / GIB, 3),
        kernels=kernels,
    )


class Trainer:
    """A preset's network with its recipe's optimizers, and the two halves of a training step.

    rows: sequences read at once, of random tokens.
    """

    def __init__(
        self, settings: Settings, kernels: Kernels, rows: int, device: torch.device
    ) -> None:
        shape = preset(settings.preset)
        with device:
            self.model = GPT(shape).train()
            self.ids = torch.randint(shape.vocab_size, (rows, shape.context))  # (B, T)
        self.optimizers = make_optimizers(self.model, settings)
        self.kernels, self.device = kernels, device

    def learn(self, ids: Tensor) -> None:
        """Forward and backward of `ids` (B, T)."""
        self.model.zero_grad(set_to_none=True)
        with running(self.kernels, self.device):
            loss = self.model(ids, ids)
        loss.backward()

    def update(self) -> None:
        for optimizer in self.optimizers:
            optimizer.step()


def step_cost(settings: Settings, kernels: Kernels, rows: int, device: torch.device) -> Cost:
    """Times passes over `rows` sequences and over a single token, and updates: the best of each."""
    trainer = Trainer(settings, kernels, rows, device)
    token = trainer.ids[:1, :1]

    def timed(work: Callable[..., None], *args: Tensor) -> float:
        started = time.perf_counter()
        work(*args)
        synchronize(device)
        return time.perf_counter() - started

    a_pass = min(timed(trainer.learn, token) for _ in range(3))
    if kernels.compiled:  # only now: one token would be compiled for, too
        compile_blocks(trainer.model)
    rounds: list[tuple[float, float]] = []
    started = time.perf_counter()
    # The first round warms up, and compiles; a long one need not be repeated for the former.
    while len(rounds) < 1 + kernels.compiled or time.perf_counter() - started < 2 * SECONDS:
        rounds.append((timed(trainer.learn, trainer.ids), timed(trainer.update)))
    reading, updating = (min(times) for times in zip(*rounds))
    return Cost(a_pass, max(0.0, reading - a_pass) / rows, updating)


def count(settings: Settings, kernels: Kernels, device: torch.device) -> Footprint:
    """Runs two of the recipe's steps (the first makes the optimizer's state) on fake tensors."""
    with FakeTensorMode(), Allocations() as held:
        trainer = Trainer(settings, kernels, settings.micro_batch, device)
        for _ in range(2):
            trainer.learn(trainer.ids)
            trainer.update()
        parameters = list(trainer.model.parameters())
        state = [t for o in trainer.optimizers for s in o.state.values() for t in s.values()]
        return Footprint(
            parameters=trainer.model.n_params(),
            step_bytes=held.peak,
            checkpoint_bytes=sum(t.nbytes for t in [*parameters, *state]),
        )


class Allocations(TorchDispatchMode):
    """Adds up the bytes of all tensors alive, fake ones too, that are made under this mode."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._alive: set[int] = set()

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        return tree_map_only(Tensor, self._add, func(*args, **(kwargs or {})))

    def _add(self, tensor: Tensor) -> Tensor:
        """Views share a storage, which counts once, until nobody holds it any more."""
        storage = tensor.untyped_storage()
        if storage._cdata not in self._alive:
            self._alive.add(storage._cdata)
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._drop, storage._cdata, storage.nbytes())
        return tensor

    def _drop(self, key: int, size: int) -> None:
        self._alive.remove(key)
        self.now -= size


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


def advise(machine: Machine, probes: Probes, estimates: list[Estimate]) -> str:
    """The one thing to do next."""
    before, after = probes.peak_gflops["fp32"], probes.peak_again_gflops
    if min(before, after) < DISTURBED * max(before, after):
        return (
            f"Matrix products ran at {before:,.0f} GFLOP/s at first and at {after:,.0f} in the "
            "end: close other programs and ask again."
        )
    timed = [e for e in estimates if e.fits]
    if not timed:
        return "No step fits into free memory: close other programs, or lower --micro-batch."
    if machine.device == "cpu" and machine.compiler is None:
        return "Install a C++ compiler (g++): compiled, long runs are faster."
    ours = [e for e in timed if e.preset != "reference"] or timed
    quick = [e for e in ours if e.minutes <= PATIENCE]
    best = max(quick, key=lambda e: e.tokens) if quick else min(ours, key=lambda e: e.minutes)
    return f"Start with: python train/run.py --preset {best.preset} ({duration(best.minutes)})."
