"""How fast a preset trains on a machine and how much memory it takes.

Speed is timed on the real network with its own optimizer. Memory is counted by a step on tensors
that have a shape but no contents, so it is known before it is taken.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from ptx.config import ModelConfig
from ptx.model import GPT
from train.device import GIB, synchronize
from train.kernels import Kernels, flops_per_token, prepare, running
from train.machine import Machine
from train.optim import make_optimizers
from train.settings import Settings

SECONDS = 2.0
"""That the sequences read at once should take; a preset is timed for at least twice as long."""
HELD = 1.3
"""Times the bytes of its tensors: about what a process holds, as freed blocks do not fit the next
tensor. Resident memory of `mini` and `reference` on a CPU with glibc, less that before them."""


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


def rows_in(seconds: float, peak: float, settings: Settings, shape: ModelConfig) -> int:
    """Sequences, one at least and the recipe's at most, that half of `peak` (FLOP/s) learns from
    in `seconds`."""
    flops = flops_per_token(shape) * shape.context
    return max(1, min(settings.micro_batch, int(seconds * peak / 2 / flops)))


def estimate(
    settings: Settings,
    shape: ModelConfig,
    kernels: Kernels,
    rows: int,
    tokens: int | None,
    machine: Machine,
    device: torch.device,
) -> Estimate:
    """Counts the memory of the recipe's step; if there is so much, times a step of `rows`."""
    footprint = count(settings, shape, kernels, device)
    memory_gib = machine.base_gib + HELD * footprint.step_bytes / GIB
    batch_tokens = settings.batch_size * shape.context
    tokens = tokens or settings.steps * batch_tokens
    fits, speed = memory_gib <= machine.free_gib, None
    if fits:
        cost = step_cost(settings, shape, kernels, rows, device)
        speed = batch_tokens / cost.seconds(settings)
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
    """A network with a recipe's optimizers, and the two halves of a training step.

    rows: sequences read at once, of random tokens.
    """

    def __init__(
        self,
        settings: Settings,
        shape: ModelConfig,
        kernels: Kernels,
        rows: int,
        device: torch.device,
    ) -> None:
        with device:
            self.model = GPT(shape).train()
            self.ids = torch.randint(shape.vocab_size, (rows, shape.context))  # (B, T)
        self.optimizers = make_optimizers(
            self.model, replace(settings, precision=kernels.precision)
        )
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


def step_cost(
    settings: Settings, shape: ModelConfig, kernels: Kernels, rows: int, device: torch.device
) -> Cost:
    """Times passes over `rows` sequences and over a single token, and updates: the best of each."""
    trainer = Trainer(settings, shape, kernels, rows, device)
    token = trainer.ids[:1, :1]

    def timed(work: Callable[..., None], *args: Tensor) -> float:
        started = time.perf_counter()
        work(*args)
        synchronize(device)
        return time.perf_counter() - started

    a_pass = min(timed(trainer.learn, token) for _ in range(3))
    prepare(trainer.model, kernels)  # only now: one token would be compiled for, too
    rounds: list[tuple[float, float]] = []
    started = time.perf_counter()
    # The first round warms up, and compiles; a long one need not be repeated for the former.
    while len(rounds) < 1 + kernels.compiled or time.perf_counter() - started < 2 * SECONDS:
        rounds.append((timed(trainer.learn, trainer.ids), timed(trainer.update)))
    reading, updating = (min(times) for times in zip(*rounds))
    return Cost(a_pass, max(0.0, reading - a_pass) / rows, updating)


def count(
    settings: Settings, shape: ModelConfig, kernels: Kernels, device: torch.device
) -> Footprint:
    """Runs two of the recipe's steps (the first makes the optimizer's state) on fake tensors."""
    with FakeTensorMode(), Allocations() as held:
        trainer = Trainer(settings, shape, kernels, settings.micro_batch, device)
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
