"""Cross-entropy over a large vocabulary without ever holding all logits."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK = 2**24
"""Logits alive at once: 64 MiB in fp32, 1,024 rows of a vocabulary of 16,384."""

IGNORED = -1
"""A target that teaches nothing."""

Exponentials = Callable[[Tensor, Tensor | None, Tensor], tuple[Tensor, Tensor, Tensor]]


def exponentials(
    logits: Tensor, bias: Tensor | None, targets: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The softmax of `logits` (R, V), without its division, and what the loss needs of it.

    targets: (R,). Returns, with z = exp(logits - their largest),
        (R, V) in the logits' dtype: z, but z - sum(z) at the target, which divided by sum(z) is
            the gradient of the loss with regard to the logits;
        (R, 1) fp32: sum(z);
        (R, 1) fp32: the target's log-probability.
    Every step is one pass over the logits where it is compiled.
    """
    x = logits.float() if bias is None else logits.float() + bias
    rows = torch.arange(len(targets), device=targets.device)
    shifted = x - x.amax(-1, keepdim=True)  # (R, V)
    z = shifted.exp()
    total = z.sum(-1, keepdim=True)  # (R, 1)
    log_p = shifted[rows, targets, None] - total.log()  # (R, 1)
    gradient = z.to(logits.dtype)
    # z - sum(z) itself would cancel where the model is sure.
    gradient[rows, targets] = (total * log_p.expm1()).squeeze(1).to(logits.dtype)  # (R,)
    return gradient, total, log_p


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Makes both gradients while each chunk's logits are at hand, so nothing is recomputed.

    The idea of Liger Kernel's fused linear cross-entropy (Hsu et al., 2024), in plain matmuls. The
    softmax is never divided by its sum: the narrow matrices that it is multiplied with are.
    """

    @staticmethod
    def forward(
        ctx,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        exponentials: Exponentials,
        wants_grad: bool,
    ) -> Tensor:
        loss = torch.zeros((), dtype=torch.float32, device=hidden.device)
        d_hidden = torch.empty_like(hidden) if wants_grad else None
        d_weight = torch.zeros_like(weight) if wants_grad else None
        d_bias = torch.zeros_like(bias) if wants_grad and bias is not None else None
        w = weight.to(hidden.dtype)  # (V, C)
        ignored = (targets == IGNORED)[:, None]  # (N, 1)
        targets = targets.clamp(min=0)
        chunk = max(1, CHUNK // len(weight))
        for start in range(0, len(hidden), chunk):
            rows = slice(start, start + chunk)
            h = hidden[rows]  # (R, C)
            d_logits, total, log_p = exponentials(h @ w.T, bias, targets[rows])
            loss -= log_p.masked_fill_(ignored[rows], 0).sum()
            total.masked_fill_(ignored[rows], torch.inf)  # divides a gradient to nothing
            if wants_grad:  # of the sum: the mean comes last
                torch.mm(d_logits, w, out=d_hidden[rows])
                d_hidden[rows] /= total
                h = (h / total).to(h.dtype)
                if d_weight.dtype == d_logits.dtype:
                    d_weight.addmm_(d_logits.T, h)
                else:
                    d_weight += d_logits.T @ h
                if d_bias is not None:
                    d_bias += (d_logits.T @ (1 / total).to(d_logits.dtype)).squeeze(1)
            del d_logits  # its memory is the next chunk's
        ctx.grads, ctx.count = [d_hidden, d_weight, d_bias], (~ignored).sum()
        return loss / ctx.count

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        # Scaled in place: for a vocabulary of 200,000 a copy would be the step's largest tensor.
        grads, ctx.grads = ctx.grads, None
        if grads is None:
            raise RuntimeError("the loss's gradient was already taken: compute the loss again")
        scale = grad / ctx.count
        return *(None if g is None else g.mul_(scale) for g in grads), None, None, None


def cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    exponentials: Exponentials = exponentials,
) -> Tensor:
    """Mean negative log-likelihood, in nats, of `targets` (N,) under `hidden @ weight.T + bias`.

    hidden: (N, C), weight: (V, C), bias: (V,) or None. Targets of IGNORED do not count. Returns an
    fp32 scalar whose gradient can be taken once. Under autocast the matmuls run in its dtype and
    the sums in fp32.

    exponentials: this module's, or what torch.compile made of it.
    """
    device = hidden.device.type
    if torch.is_autocast_enabled(device):
        hidden = hidden.to(torch.get_autocast_dtype(device))
    return _ChunkedCrossEntropy.apply(
        hidden, weight, bias, targets, exponentials, torch.is_grad_enabled()
    )
