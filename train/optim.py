"""Muon for hidden matrices, AdamW for the rest, and the learning-rate schedule."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.optim import AdamW, Optimizer

from ptx.model import GPT
from train.parallel import local, spread_like, whole_like
from train.settings import Settings

NEWTON_SCHULZ_STEPS = 3
"""On a CPU, where five take a tenth of a step of 4,096 tokens of `mini`, and more of a smaller one:
fewer leave more steps for the same time (train/ABLATIONS.md). A GPU takes the usual five."""


def orthogonalize(matrices: Tensor, steps: int = 5) -> Tensor:
    """The nearest (semi-)orthogonal matrix to each of (N, R, C), roughly: after five steps singular
    values lie between 0.7 and 1.2. Newton-Schulz iteration of Muon (Jordan et al., 2024)."""
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices  # (N, R, C), R <= C from here on
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT  # (N, R, R)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


class Muon(Optimizer):
    """Momentum, orthogonalized: every direction of a weight matrix moves at the same pace.

    torch.optim.Muon takes one matrix at a time, in bf16, which a CPU without bf16 units emulates;
    this one stacks matrices of one shape and iterates in `ns_dtype`. Matrices that are spread over
    processes are gathered for it, and each process keeps its part of the update.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        ns_steps: int = 5,
        ns_dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.ns_steps, self.ns_dtype = ns_steps, ns_dtype

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[Tensor]] = defaultdict(list)
            for p in group["params"]:
                if p.grad is not None:
                    by_shape[p.shape].append(p)
            for params in by_shape.values():
                self._step_stack(params, group["lr"], group["momentum"], group["weight_decay"])

    def _step_stack(
        self, params: list[Tensor], lr: float, momentum: float, weight_decay: float
    ) -> None:
        for p in params:
            if "momentum" not in self.state[p]:
                self.state[p]["momentum"] = torch.zeros_like(p)
        buffers = [local(self.state[p]["momentum"]) for p in params]
        grads = [local(p.grad) for p in params]
        torch._foreach_lerp_(buffers, grads, 1 - momentum)
        nesterov = torch._foreach_lerp(grads, buffers, momentum)
        updates = torch.stack([whole_like(u, p) for u, p in zip(nesterov, params)])  # (N, R, C)
        updates = orthogonalize(updates.to(self.ns_dtype), self.ns_steps).to(params[0].dtype)
        rows, columns = params[0].shape
        weights = [local(p) for p in params]
        if weight_decay:
            torch._foreach_mul_(weights, 1 - lr * weight_decay)
        parts = [local(spread_like(u, p)) for u, p in zip(updates.unbind(), params)]
        torch._foreach_add_(weights, parts, alpha=-lr * max(1.0, rows / columns) ** 0.5)


def make_optimizers(model: GPT, settings: Settings) -> list[Optimizer]:
    """One AdamW, or Muon for the blocks' matrices and AdamW for what is left.

    Muon iterates in bf16 where the training's products do: both have the units for it, or neither.
    """
    hidden = [p for p in model.blocks.parameters() if p.ndim == 2]
    if settings.optimizer == "adamw":
        everything = list(model.parameters())
        return [AdamW(everything, settings.lr, weight_decay=settings.weight_decay, fused=True)]
    taken = {id(p) for p in hidden}
    rest = [p for p in model.parameters() if id(p) not in taken]
    ns_steps = NEWTON_SCHULZ_STEPS if hidden[0].device.type == "cpu" else 5
    dtype = torch.bfloat16 if settings.precision == "bf16" else torch.float32
    return [
        Muon(hidden, settings.muon_lr, 0.95, settings.weight_decay, ns_steps, dtype),
        AdamW(rest, settings.lr, betas=(0.9, 0.95), weight_decay=0.0, fused=True),
    ]


def rate(step: int, settings: Settings) -> float:
    """The share of the peak learning rate at `step` (from 0): linear warm-up, constant, linear
    cooldown that would reach zero one step after the last."""
    assert settings.steps is not None
    assert settings.warmup is not None
    assert settings.cooldown is not None
    warm = min(1.0, (step + 1) / (settings.warmup + 1))
    cooling = settings.cooldown * settings.steps
    cool = min(1.0, (settings.steps - step) / cooling) if cooling else 1.0
    return min(warm, cool)


def cooling(step: int, settings: Settings) -> bool:
    """Whether the cooldown has begun at `step`."""
    assert settings.steps is not None
    assert settings.cooldown is not None
    return step >= settings.steps - round(settings.cooldown * settings.steps)


def set_rate(optimizers: list[Optimizer], share: float) -> None:
    """Sets every group's rate to `share` of its peak."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group.setdefault("peak_lr", group["lr"])
            group["lr"] = group["peak_lr"] * share
