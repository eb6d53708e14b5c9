"""reference_memory: the most memory that a process takes for one step of the `reference` preset."""

from __future__ import annotations

import resource
import sys

import torch
import torch.nn.functional as F
from torch.nn.utils import clip_grad_norm_

from ptx.config import preset
from ptx.model import GPT
from tests.bench.report import Row
from tests.bench.training.turns import Side
from train.device import GIB, keep_freed_memory
from train.optim import make_optimizers
from train.settings import Settings, complete


class Ours:
    """A step as the training loop does it."""

    def __init__(self) -> None:
        keep_freed_memory()
        torch.manual_seed(0)
        self.settings = complete(Settings(preset="reference"))
        self.model = GPT(preset("reference"))
        self.optimizers = make_optimizers(self.model, self.settings)

    def step(self, rows: int) -> float:
        """The peak from the process's start on, in GiB."""
        ids, targets = random_text(rows)
        read_at_once = min(rows, self.settings.micro_batch)
        parts = rows // read_at_once
        for some, next_tokens in zip(ids.split(read_at_once), targets.split(read_at_once)):
            (self.model(some, next_tokens) / parts).backward()
        if self.settings.clip:
            clip_grad_norm_(self.model.parameters(), self.settings.clip)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return peak_gib()


class Plain:
    """The same network as it is usually written: all logits, then cross-entropy; AdamW as is."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = GPT(preset("reference"))
        self.optimizer = torch.optim.AdamW(self.model.parameters(), 3e-4)

    def step(self, rows: int) -> float:
        """The peak from the process's start on, in GiB."""
        ids, targets = random_text(rows)
        logits = self.model(ids)  # (B, T, V)
        F.cross_entropy(logits.flatten(0, 1), targets.flatten()).backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return peak_gib()


def random_text(rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and the tokens after them, (B, T) each."""
    shape = preset("reference")
    text = torch.randint(shape.vocab_size, (rows, shape.context + 1))
    return text[:, :-1], text[:, 1:]


def peak_gib() -> float:
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / GIB


def measure(quick: bool) -> tuple[list[Row], list[Row]]:
    """The figure, and the measurements it is made of; one process after the other: the plain one
    takes 21 GiB, and would take more in a second step."""
    rows = 2 if quick else complete(Settings(preset="reference")).batch_size
    peaks = []
    for kind in (Ours, Plain):
        side = Side(kind)
        peaks.append(side("step", rows))
        side.close()
    ours, plain = peaks
    details: list[Row] = [(f"peak GiB of a step of {rows} x 256 tokens", ours, plain, None)]
    return [("reference_memory", ours / plain, 1.0, 1 / 3)], details
