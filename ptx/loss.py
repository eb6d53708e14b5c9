"""Cross-entropy over a large vocabulary without ever holding all logits."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK = 2**25
"""Logits alive at once: 128 MiB in fp32, 2,048 rows of a vocabulary of 16,384."""


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Makes both gradients while each chunk's logits are at hand, so nothing is recomputed.

    The idea of Liger Kernel's fused linear cross-entropy (Hsu et al., 2024), in plain matmuls.
    """

    @staticmethod
    def forward(
        ctx, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, wants_grad: bool
    ) -> Tensor:
        loss = torch.zeros((), dtype=torch.float32, device=hidden.device)
        d_hidden = torch.empty_like(hidden) if wants_grad else None
        d_weight = torch.zeros_like(weight) if wants_grad else None
        d_bias = torch.zeros_like(bias) if wants_grad and bias is not None else None
        w = weight.to(hidden.dtype)  # (V, C)
        chunk = max(1, CHUNK // len(weight))
        for start in range(0, len(hidden), chunk):
            rows = slice(start, start + chunk)
            h, t = hidden[rows], targets[rows, None]  # (R, C), (R, 1)
            logits = (h @ w.T).float()  # (R, V)
            if bias is not None:
                logits += bias
            log_p = logits.log_softmax(-1)  # (R, V)
            del logits  # its memory is the next chunk's
            loss -= log_p.gather(1, t).sum()
            if wants_grad:
                probs = log_p.exp_()
                probs.scatter_add_(1, t, probs.new_full(t.shape, -1.0))
                d_logits = probs.to(hidden.dtype)  # (R, V), of the sum: the mean comes last
                torch.mm(d_logits, w, out=d_hidden[rows])
                if d_weight.dtype == d_logits.dtype:
                    d_weight.addmm_(d_logits.T, h)
                else:
                    d_weight += d_logits.T @ h
                if d_bias is not None:
                    d_bias += d_logits.sum(0)
        ctx.grads = [d_hidden, d_weight, d_bias]
        return loss / len(hidden)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        # Scaled in place: for a vocabulary of 200,000 a copy would be the step's largest tensor.
        grads, ctx.grads = ctx.grads, None
        if grads is None:
            raise RuntimeError("the loss's gradient was already taken: compute the loss again")
        scale = grad / len(grads[0])
        return *(None if g is None else g.mul_(scale) for g in grads), None, None


def cross_entropy(hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor) -> Tensor:
    """Mean negative log-likelihood, in nats, of `targets` (N,) under `hidden @ weight.T + bias`.

    hidden: (N, C), weight: (V, C), bias: (V,) or None. Returns an fp32 scalar whose gradient can be
    taken once. Under autocast the matmuls run in its dtype and the sums in fp32.
    """
    device = hidden.device.type
    if torch.is_autocast_enabled(device):
        hidden = hidden.to(torch.get_autocast_dtype(device))
    return _ChunkedCrossEntropy.apply(hidden, weight, bias, targets, torch.is_grad_enabled())
