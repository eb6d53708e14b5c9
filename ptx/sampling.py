"""The exact distribution of the next token, and the draw from it.

The knobs act in transformers' order: temperature, then top-k, then top-p. What they cut has
probability zero; what stays is renormalized over the full vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ptx.errors import UserError


@dataclass(frozen=True)
class Sampling:
    """How to turn logits into the next token."""

    temperature: float = 0.8
    """Below 1 sharpens, above 1 flattens, 0 always takes the most likely token."""
    top_k: int = 0
    """Keep only the k most likely tokens; 0 keeps all."""
    top_p: float = 1.0
    """Keep the smallest set of tokens that holds this much probability; 1 keeps all."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.temperature <= 100.0:
            raise UserError(f"temperature must lie between 0 and 100, not {self.temperature}")
        if self.top_k < 0:
            raise UserError(f"top-k must be 0 (off) or more, not {self.top_k}")
        if not 0.0 < self.top_p <= 1.0:
            raise UserError(f"top-p must lie in (0, 1], not {self.top_p}")


def distribution(logits: Tensor, sampling: Sampling) -> Tensor:
    """Probabilities (..., V), fp32, of the next token after the knobs; logits: (..., V)."""
    logits = logits.float()
    if sampling.temperature == 0.0:
        best = logits.argmax(-1, keepdim=True)
        return torch.zeros_like(logits).scatter_(-1, best, 1.0)
    # The largest becomes 0, so that no temperature, however small, overflows.
    logits = (logits - logits.amax(-1, keepdim=True)) / sampling.temperature
    if 0 < sampling.top_k < logits.shape[-1]:
        kth = logits.topk(sampling.top_k, dim=-1).values[..., -1:]
        logits = logits.masked_fill(logits < kth, float("-inf"))
    if sampling.top_p < 1.0:
        logits = logits.masked_fill(_beyond_top_p(logits, sampling.top_p), float("-inf"))
    return logits.softmax(-1)


def _beyond_top_p(logits: Tensor, top_p: float) -> Tensor:
    """True where a token is not needed to reach `top_p`; the most likely one always stays.

    Sums from the unlikely end, as transformers does, so that ties and rounding fall alike.
    """
    ascending, order = logits.sort(dim=-1)
    cut = ascending.softmax(-1).cumsum(-1) <= 1.0 - top_p
    cut[..., -1] = False
    return cut.scatter(-1, order, cut)


def draw(probs: Tensor, generator: torch.Generator) -> int:
    """One token id from probabilities (V,)."""
    return int(torch.multinomial(probs, 1, generator=generator))
