"""Training tokens per second, against a plain loop over transformers' model of the same shape.

    python tests/bench/train.py [--quick] [--json]

Both do whole optimizer steps at the `mini` preset's shape on the same random batches, in fp32, in
turn. The peer is what a reader of a tutorial writes: Qwen3ForCausalLM's own loss and AdamW.
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from torch import Tensor

from ptx.config import preset
from ptx.model import GPT
from tests.bench.report import arguments, report
from tests.peers import as_qwen3
from train.optim import make_optimizers
from train.settings import Settings, complete

BATCH = 8


class Ours:
    def __init__(self, optimizer: str) -> None:
        torch.manual_seed(0)
        self.model = GPT(preset("mini"))
        settings = complete(Settings(preset="mini", optimizer=optimizer))
        self.optimizers = make_optimizers(self.model, settings)

    def step(self, ids: Tensor, targets: Tensor) -> None:
        self.model(ids, targets).backward()
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)


class Theirs:
    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = as_qwen3(GPT(preset("mini")), "sdpa").train()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=3e-4)

    def step(self, ids: Tensor, targets: Tensor) -> None:
        self.model(ids, labels=ids).loss.backward()  # shifts its labels by one itself
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


def main() -> None:
    args = arguments(__doc__)
    config = preset("mini")
    sides = {"muon": Ours("muon"), "adamw": Ours("adamw"), "peer": Theirs()}
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for repeat in range(4 if args.quick else 12):
        torch.manual_seed(repeat)
        ids = torch.randint(config.vocab_size, (BATCH, config.context + 1))
        for name, side in sides.items():
            start = time.perf_counter()
            side.step(ids[:, :-1], ids[:, 1:])
            rates[name].append(BATCH * config.context / (time.perf_counter() - start))
    warm = {name: values[1:] for name, values in rates.items()}
    median = {name: statistics.median(values) for name, values in warm.items()}
    ratio = {
        name: statistics.median(a / b for a, b in zip(warm[name], warm["peer"], strict=True))
        for name in ("muon", "adamw")
    }
    report(
        [
            ("training tokens/s, Muon + AdamW", median["muon"], median["peer"], None),
            ("training tokens/s, AdamW", median["adamw"], median["peer"], None),
            ("ratio to transformers, Muon + AdamW", ratio["muon"], 1.0, 1.0),
            ("ratio to transformers, AdamW", ratio["adamw"], 1.0, 1.0),
        ],
        args,
    )


if __name__ == "__main__":
    main()
