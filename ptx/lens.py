"""Where every head looks, and encodings of it small enough to send to a page."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ptx.model import GPT

THUMBNAIL = 64
"""Pixels a side; 24 heads are then 96 KiB."""


@torch.inference_mode()
def attention(model: GPT, ids: list[int]) -> Tensor:
    """Attention weights of every layer and head for one text, (n_layer, n_head, T, T), fp32.

    Row q, column k: how much position q reads from position k; rows sum to 1. They come from the
    same forward that makes the logits. Raises ValueError if `ids` exceed the context.
    """
    record: list[Tensor] = []
    model.hidden(torch.tensor([ids], device=model.tok_emb.weight.device), record=record)
    return torch.cat(record).float().cpu()  # L x (1, H, T, T) -> (L, H, T, T)


def quantize(weights: Tensor) -> Tensor:
    """uint8 of 255 * sqrt(weight): a byte that keeps small weights apart; for looking at, not for
    export (the error reaches 0.004 near 1)."""
    return (weights.sqrt() * 255).round().to(torch.uint8)


def thumbnails(weights: Tensor) -> bytes:
    """All heads, max-pooled so that no bright cell is lost: uint8 of (L, H, s, s), s = min(T, 64).

    weights: (L, H, T, T).
    """
    side = min(weights.shape[-1], THUMBNAIL)
    return quantize(F.adaptive_max_pool2d(weights, side)).numpy().tobytes()


def triangle(weights: Tensor) -> bytes:
    """One head's lower triangle, row by row: uint8 of T * (T + 1) / 2 values; weights: (T, T)."""
    T = weights.shape[-1]
    return quantize(weights)[torch.ones(T, T, dtype=torch.bool).tril()].numpy().tobytes()
