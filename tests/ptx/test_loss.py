"""The memory-lean loss against torch's own."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from ptx import loss as loss_module
from ptx.loss import IGNORED, cross_entropy


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize(("n", "n_ignored"), [(1, 0), (100, 0), (203, 0), (203, 120)])
def test_loss_and_all_gradients_equal_torchs(
    n: int, n_ignored: int, biased: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loss_module, "CHUNK", 100 * 50)  # 100 rows at once
    torch.manual_seed(0)
    hidden = torch.randn(n, 8, requires_grad=True)
    weight = torch.randn(50, 8, requires_grad=True)
    bias = torch.randn(50, requires_grad=True) if biased else None
    targets = torch.randint(50, (n,))
    targets[torch.randperm(n)[:n_ignored]] = IGNORED
    inputs = [t for t in (hidden, weight, bias) if t is not None]
    ours = cross_entropy(hidden, weight, bias, targets)
    theirs = F.cross_entropy(F.linear(hidden, weight, bias), targets, ignore_index=IGNORED)
    torch.testing.assert_close(ours, theirs)
    for a, b in zip(
        torch.autograd.grad(3 * ours, inputs), torch.autograd.grad(3 * theirs, inputs), strict=True
    ):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-4)


def test_under_bf16_autocast_the_gradients_stay_close() -> None:
    torch.manual_seed(0)
    hidden = torch.randn(64, 32, requires_grad=True)
    weight = torch.randn(100, 32, requires_grad=True)
    targets = torch.randint(100, (64,))
    exact = torch.autograd.grad(cross_entropy(hidden, weight, None, targets), [hidden, weight])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = cross_entropy(hidden, weight, None, targets)
    rounded = torch.autograd.grad(loss, [hidden, weight])
    for a, b in zip(rounded, exact, strict=True):
        assert a.dtype == torch.float32
        assert F.cosine_similarity(a.flatten(), b.flatten(), dim=0) > 0.999


def test_without_gradients_none_are_computed() -> None:
    weight = torch.nn.Parameter(torch.randn(50, 8))
    with torch.inference_mode():
        assert cross_entropy(torch.randn(9, 8), weight, None, torch.arange(9)).grad_fn is None
    with torch.no_grad():
        assert not cross_entropy(torch.randn(9, 8), weight, None, torch.arange(9)).requires_grad
