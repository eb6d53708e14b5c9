"""Which kernels a CPU trains fastest with, at the `mini` preset's shape.

    python tests/bench/kernels.py [--quick] [--json]

Each row times two ways of the same arithmetic in turns, in processes of their own, and gives the
median seconds of both; the first is what training takes here.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
import torch.nn.functional as F
from torch import Tensor

from ptx.config import preset
from ptx.loss import cross_entropy
from ptx.model import GPT
from tests.bench.report import Row, arguments, report
from tests.bench.training.turns import Side
from train.device import keep_freed_memory
from train.kernels import Kernels, block_seconds, compiler
from train.optim import Muon

SHAPE = preset("mini")
ROWS = 16
CPU = torch.device("cpu")


class Steps:
    """Forward and backward of the whole network, by the allocator."""

    def __init__(self, keep: bool) -> None:
        if keep:
            keep_freed_memory()
        self.model = GPT(SHAPE)
        self.ids = torch.randint(SHAPE.vocab_size, (ROWS, SHAPE.context))

    def seconds(self) -> float:
        return timed(lambda: self.model(self.ids, self.ids).backward())


class Loss:
    """Head and cross-entropy of one batch, forward and backward."""

    def __init__(self, way: str) -> None:
        keep_freed_memory()
        n = ROWS * SHAPE.context
        self.loss = {"ours": ours, "torch's": torchs, "plain": plain}[way]
        self.hidden = torch.randn(n, SHAPE.d_model, requires_grad=True)
        self.weight = (torch.randn(SHAPE.vocab_size, SHAPE.d_model) * 0.02).requires_grad_()
        self.targets = torch.randint(SHAPE.vocab_size, (n,))

    def seconds(self) -> float:
        return timed(lambda: self.loss(self.hidden, self.weight, self.targets).backward())


def ours(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    return cross_entropy(hidden, weight, None, targets)


def torchs(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    return F.linear_cross_entropy(hidden, weight, targets)


def plain(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(hidden @ weight.T, targets)


class Update:
    """An optimizer's step for all matrices of the blocks."""

    def __init__(self, way: str) -> None:
        keep_freed_memory()
        self.matrices = [p for p in GPT(SHAPE).blocks.parameters() if p.ndim == 2]
        for p in self.matrices:
            p.grad = torch.randn_like(p)
        stacked, theirs = Muon, torch.optim.Muon
        self.optimizer = {"ours": stacked, "torch's": theirs}[way](self.matrices, lr=0.02)

    def seconds(self) -> float:
        return timed(self.optimizer.step)


class OneBlock:
    """Forward and backward of one block, by its kernels."""

    def __init__(self, kernels: Kernels) -> None:
        keep_freed_memory()
        self.kernels = kernels

    def seconds(self) -> float:
        return block_seconds([self.kernels], SHAPE, ROWS, CPU)[0]


def timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def compare(label: str, kind: type, ours: object, other: object, rounds: int) -> Row:
    """Median seconds of both, in turns, after one round to warm up."""
    sides = Side(kind, ours), Side(kind, other)
    rounds_of_both = [[side("seconds") for side in sides] for _ in range(rounds + 1)][1:]
    for side in sides:
        side.close()
    first, second = (statistics.median(seconds) for seconds in zip(*rounds_of_both))
    return label, first, second, None


def main() -> None:
    args = arguments(__doc__)
    rounds = 2 if args.quick else 5
    fused, math = Kernels(), Kernels(attention="math")
    pairs: list[tuple[str, type, object, object]] = [
        ("step: freed memory kept | given back", Steps, True, False),
        ("loss: in chunks | all logits at once", Loss, "ours", "plain"),
        ("loss: in chunks | F.linear_cross_entropy", Loss, "ours", "torch's"),
        ("block: attention fused | math", OneBlock, fused, math),
        ("Muon: stacked | torch.optim.Muon", Update, "ours", "torch's"),
    ]
    if compiler() and not args.quick:
        pairs.append(("block: compiled | eager", OneBlock, Kernels(compiled=True), fused))
    report([compare(*pair, rounds) for pair in pairs], args)


if __name__ == "__main__":
    main()
