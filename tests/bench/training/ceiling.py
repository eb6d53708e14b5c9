"""Where the time of a step goes: what says how far `mfu` can still rise."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch.profiler import ProfilerActivity, profile

PRODUCTS = {"aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "aten::_addmm_activation"}
COMPILED = "## Call CompiledFxGraph"  # how the profiler names one run of a compiled graph
STEPS = 5


class Spent(NamedTuple):
    """Seconds of one step."""

    products: float
    """In matrix products; Muon's too, which `mfu` does not count as useful."""
    compiled: float
    """In compiled passes: norms, rotations, softmaxes, gates, the loss's exponentials."""
    rest: float
    """In everything else: embedding, clipping, optimizers, copies."""


def spent(step: Callable[[], object]) -> Spent:
    """The mean of a few steps, by torch's profiler (which costs a few percent itself)."""
    with profile(activities=[ProfilerActivity.CPU]) as recorded:
        for _ in range(STEPS):
            step()
    sums = {"products": 0.0, "compiled": 0.0, "rest": 0.0}
    for event in recorded.key_averages():
        kind = "products" if event.key in PRODUCTS else "rest"
        kind = "compiled" if event.key.startswith(COMPILED) else kind
        sums[kind] += event.self_cpu_time_total / 1e6 / STEPS
    return Spent(**sums)
