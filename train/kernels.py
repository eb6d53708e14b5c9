"""Which kernels one training step runs on: chosen by timing them at the shape that is trained."""

from __future__ import annotations

import math
import os
import shutil
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import nn

from ptx.config import ModelConfig
from ptx.loss import exponentials
from ptx.model import GPT, Block, rotary_table
from train.device import synchronize
from train.settings import Settings

# Under autocast the norms' gains stay fp32, on purpose: sums and gains are never rounded to bf16.
warnings.filterwarnings("ignore", message="Mismatch dtype between input and weight")

Precision = Literal["fp32", "bf16"]
Attention = Literal["fused", "math"]

LONG_SECONDS = 600
"""Of training from which on the compiler is tried: it takes a fraction of a minute itself."""
ROUNDS = 6
"""In which two kernels are compared."""
CLEARLY = 0.9
"""Share of fused attention's time below which plain attention is taken."""
WORTH_COMPILING = 1.03
"""Speed-up of a compiled block below which the plain one is kept: simpler, and starts at once."""
EMULATED = 0.25
"""Share of the speed of fp32 products below which bf16 ones are surely not done by the hardware:
only then are whole blocks not timed in bf16, which would take a minute."""


@dataclass(frozen=True)
class Kernels:
    """What a run computes with; kept in its config.json, so that a resumed run computes alike."""

    precision: Precision = "fp32"
    """Of the matrix products. Weights, their sums and the loss stay fp32."""
    attention: Attention = "fused"
    """torch's fused scaled_dot_product_attention, or its plain matrix products and softmax."""
    compiled: bool = False
    """Whether the blocks and the loss go through torch.compile."""

    def __str__(self) -> str:
        compiled = "compiled" if self.compiled else "not compiled"
        return f"{self.precision}, {self.attention} attention, {compiled}"


@contextmanager
def running(kernels: Kernels, device: torch.device) -> Iterator[None]:
    """The context to run a forward in, with a model that `prepare` has seen."""
    bf16 = kernels.precision == "bf16"
    with torch.autocast(device.type, dtype=torch.bfloat16) if bf16 else nullcontext():
        yield


def prepare(model: GPT, kernels: Kernels) -> None:
    """Make a model attend as `kernels` say, and compile it if they do.

    The blocks share their code, so one compilation serves all of them.
    """
    attend(model.blocks, kernels.attention)
    if kernels.compiled:
        # A block's graph is to be the same within DDP's forward and without it.
        torch._dynamo.config.optimize_ddp = False
        model.exponentials = torch.compile(exponentials, dynamic=False)
        for block in model.blocks:
            block.compile(dynamic=False)


def attend(blocks: Iterable[nn.Module], attention: Attention) -> None:
    """Make the blocks' attention torch's fused one, or plain products and a softmax."""
    future = None
    for block in blocks:
        if attention == "math" and future is None:  # one for all of them
            size, device = block.attn.config.context, block.attn.q.weight.device
            future = torch.full((size, size), float("-inf"), device=device).triu(1)
        block.attn.future = future


def kernels_of(settings: Settings) -> Kernels:
    """The kernels that settled settings name."""
    return Kernels(settings.precision, settings.attention, settings.compile == "on")


def settle(settings: Settings, shape: ModelConfig, device: torch.device) -> Settings:
    """`settings` with every `auto` among the kernels decided; says how the compiler fared."""
    open_choices = {
        name for name in ("precision", "attention") if getattr(settings, name) == "auto"
    }
    requested = Kernels(
        "fp32" if settings.precision == "auto" else settings.precision,
        "fused" if settings.attention == "auto" else settings.attention,
    )
    rows = settings.micro_batch
    best, _ = choose(requested, open_choices, shape, rows, device)
    asked = settings.compile == "on"
    if asked or (settings.compile == "auto" and _is_long(settings, shape, best, device)):
        compiled, gain, note = compile_gain(best, open_choices, shape, rows, device)
        worth_it = gain >= WORTH_COMPILING or (asked and gain > 0)
        best = compiled if worth_it else best
        print(note if worth_it or not gain else f"{note}: not worth it", flush=True)
    return replace(
        settings,
        precision=best.precision,
        attention=best.attention,
        compile="on" if best.compiled else "off",
    )


def choose(
    requested: Kernels, open_choices: set[str], shape: ModelConfig, rows: int, device: torch.device
) -> tuple[Kernels, list[str]]:
    """The fastest kernels for one block of `shape`, and what was found, a sentence a choice.

    requested: taken as it is, except for the fields named in `open_choices` (precision, attention),
        which are measured; on a GPU they are known.
    rows: sequences read at once.
    """
    best, notes, few = requested, [], min(rows, 4)
    if "precision" in open_choices:
        best = replace(best, precision="fp32")
        units = _bf16_has_units(device)
        if units and device.type == "cuda":  # a small block takes as long as its launches there
            best = replace(best, precision="bf16")
            notes.append("precision: bf16, as on every GPU that has units for it")
        elif units:
            ways = [replace(best, precision=p) for p in get_args(Precision)]
            seconds = block_seconds(ways, shape, few, device)
            best = ways[seconds.index(min(seconds))]
            notes.append(f"precision: {_compared(get_args(Precision), seconds)}")
        else:
            notes.append("precision: fp32, because bf16 products are slower here")
    if "attention" in open_choices and device.type != "cuda":
        ways = [replace(best, attention=a) for a in get_args(Attention)]
        fused, plain = block_seconds(ways, shape, few, device)
        # Plain attention holds every pair of positions: it has to be worth that, not just noise.
        best = replace(best, attention="math" if plain < CLEARLY * fused else "fused")
        notes.append(f"attention: {_compared(get_args(Attention), (fused, plain))}")
    return best, notes


def _bf16_has_units(device: torch.device) -> bool:
    """Whether bf16 products may be done by the hardware; a CPU is asked with a stopwatch."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    fp32, bf16 = (product_rate(precision, device, 256) for precision in get_args(Precision))
    return bf16 > EMULATED * fp32


def _compared(names: Iterable[str], seconds: Iterable[float]) -> str:
    return ", ".join(
        f"{name} wrong gradients" if s == math.inf else f"{name} {1000 * s:.1f} ms a block"
        for name, s in zip(names, seconds)
    )


def compile_gain(
    kernels: Kernels, open_choices: set[str], shape: ModelConfig, rows: int, device: torch.device
) -> tuple[Kernels, float, str]:
    """The fastest compiled kernels, how many times as fast as `kernels` they are (0 where compiling
    fails), and a sentence.

    open_choices: where "attention" is among them, both are compiled: the compiler fuses what plain
        attention does between its products, so the faster one may be another than before.
    """
    if device.type == "cpu" and not compiler():
        note = "not compiled: no C++ compiler here; install g++ for faster long runs"
        return kernels, 0.0, note
    both = "attention" in open_choices and device.type != "cuda"
    attentions = get_args(Attention) if both else (kernels.attention,)
    ways = [replace(kernels, attention=a, compiled=True) for a in attentions]
    started = time.perf_counter()
    try:
        plain, *compiled = block_seconds([kernels, *ways], shape, rows, device)
    except Exception as error:  # whatever the compiler raises, eager works
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        return kernels, 0.0, f"not compiled: torch.compile failed here ({reason})"
    took, fastest = time.perf_counter() - started, min(compiled)
    if fastest == math.inf:
        return kernels, 0.0, "not compiled: compiled blocks compute wrong gradients here"
    best, gain = ways[compiled.index(fastest)], plain / fastest
    note = f"a compiled block runs {gain:.2f} times as fast ({took:.0f} s to find out)"
    return best, gain, note


def _is_long(
    settings: Settings, shape: ModelConfig, kernels: Kernels, device: torch.device
) -> bool:
    """Whether a run takes long enough, at half the device's peak, for compiling to pay."""
    tokens = settings.steps * settings.batch_size * shape.context
    seconds = 2 * tokens * flops_per_token(shape) / matmul_peak(kernels.precision, device)
    return seconds > LONG_SECONDS


def compiler() -> str | None:
    """The C++ compiler that torch.compile would use on a CPU, or None."""
    return shutil.which(os.environ.get("CXX", "g++")) or shutil.which("clang++")


def block_seconds(
    ways: Sequence[Kernels], shape: ModelConfig, rows: int, device: torch.device
) -> list[float]:
    """Seconds of one block's forward and backward on (rows, context, C), each way: the best of
    ROUNDS, in turns, so that whatever else the machine does meets all of them. Infinite for a way
    whose gradients are not numbers: a compiler's or a library's error, seen on one kind of CPU."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        blocks = [Block(shape, 0).to(device) for _ in ways]
        x = torch.randn(rows, shape.context, shape.d_model, device=device)  # (B, T, C)
    rotary = None
    if shape.position == "rotary":
        rotary = tuple(table.to(device) for table in rotary_table(shape))
    times: list[list[float]] = [[] for _ in ways]
    for block, kernels in zip(blocks, ways):
        attend([block], kernels.attention)
        if kernels.compiled:
            block.compile(dynamic=False)
    for _ in range(1 + ROUNDS):  # the first warms up, and compiles
        for block, kernels, seconds in zip(blocks, ways, times):
            started = time.perf_counter()
            with running(kernels, device):
                y = block(x, rotary, None, None)
            y.float().sum().backward()
            synchronize(device)
            seconds.append(time.perf_counter() - started)
    return [
        min(seconds[1:]) if has_finite_gradients(block) else math.inf
        for block, seconds in zip(blocks, times)
    ]


def has_finite_gradients(module: nn.Module) -> bool:
    """Whether what the last backward left are numbers."""
    return all(bool(p.grad.isfinite().all()) for p in module.parameters() if p.grad is not None)


def matmul_peak(precision: Precision, device: torch.device) -> float:
    """FLOP/s of large matrix products: the ceiling that a step's speed is compared with."""
    return product_rate(precision, device, 8192 if device.type == "cuda" else 1024)


def product_rate(precision: Precision, device: torch.device, size: int) -> float:
    """FLOP/s of the fastest of four products of square matrices of `size`, warmed up."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = (torch.ones(size, size, dtype=dtype, device=device) for _ in range(2))
    out = torch.empty_like(a)
    times = []
    for _ in range(5):
        started = time.perf_counter()
        torch.mm(a, b, out=out)
        synchronize(device)
        times.append(time.perf_counter() - started)
    return 2 * size**3 / min(times[1:])


def flops_per_token(shape: ModelConfig) -> float:
    """Of a training step (forward and backward), as PaLM counts them (Chowdhery et al., 2022,
    appendix B): 6 per weight that a token is multiplied with, and the causal half of attention."""
    attention = shape.d_model * shape.head_size * (2 * shape.n_head + 2 * shape.n_kv_head)
    mlp = shape.d_model * shape.d_mlp * (3 if shape.mlp == "swiglu" else 2)
    weights = shape.n_layer * (attention + mlp) + shape.d_model * shape.vocab_size
    scores = shape.n_layer * shape.n_head * shape.head_size * shape.context
    return 6.0 * weights + 6.0 * scores
