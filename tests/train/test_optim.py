"""The optimizers' mathematics and the schedule."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from ptx.config import PRESETS
from ptx.model import GPT
from train.optim import Muon, make_optimizers, orthogonalize, rate
from train.settings import Settings, complete


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 6, 20), (2, 20, 6)])
def test_orthogonalize_brings_every_singular_value_near_one(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    u, _, vt = torch.linalg.svd(torch.randn(shape, dtype=torch.float64), full_matrices=False)
    spread = torch.linspace(1.0, 0.05, u.shape[-1], dtype=torch.float64)
    out = orthogonalize((u * spread) @ vt)
    values = torch.linalg.svdvals(out)
    assert values.min() > 0.5
    assert values.max() < 1.4
    # the directions stay: only singular values move
    torch.testing.assert_close(u.mT @ out @ vt.mT, torch.diag_embed(values_in(u, out, vt)))


def values_in(u: torch.Tensor, m: torch.Tensor, vt: torch.Tensor) -> torch.Tensor:
    return torch.diagonal(u.mT @ m @ vt.mT, dim1=-2, dim2=-1)


@pytest.mark.parametrize("ns_steps", [3, 5])
def test_muon_equals_torchs_muon(ns_steps: int) -> None:
    torch.manual_seed(0)
    start, grads = torch.randn(24, 16), [torch.randn(24, 16) for _ in range(3)]
    ours, theirs = (torch.nn.Parameter(start.clone()) for _ in range(2))
    a = Muon([ours], lr=0.02, weight_decay=0.1, ns_steps=ns_steps)
    b = torch.optim.Muon([theirs], lr=0.02, weight_decay=0.1, ns_steps=ns_steps)
    for grad in grads:
        for parameter, optimizer in ((ours, a), (theirs, b)):
            parameter.grad = grad.clone()
            optimizer.step()
    torch.testing.assert_close(ours, theirs, atol=2e-3, rtol=0)  # theirs rounds to bf16


def test_every_parameter_has_exactly_one_optimizer() -> None:
    model = GPT(replace(PRESETS["nano"], vocab_size=64))
    for optimizer in ("muon", "adamw"):
        optimizers = make_optimizers(model, complete(Settings(optimizer=optimizer)))
        held = [p for o in optimizers for g in o.param_groups for p in g["params"]]
        assert len(held) == len(set(map(id, held)))
        assert set(map(id, held)) == set(map(id, model.parameters()))


def test_rate_warms_up_holds_and_cools_down() -> None:
    s = complete(Settings(steps=100, warmup=9, cooldown=0.5))
    assert rate(0, s) == pytest.approx(0.1)
    assert rate(9, s) == rate(50, s) == 1.0
    assert rate(75, s) == pytest.approx(0.5)
    assert rate(99, s) == pytest.approx(0.02)


def test_the_originals_rate_is_constant() -> None:
    s = complete(Settings(preset="reference"))
    assert {rate(step, s) for step in range(s.steps)} == {1.0}
    assert (s.lr, s.optimizer, s.batch_size, s.clip) == (3e-4, "adamw", 24, 0.0)
