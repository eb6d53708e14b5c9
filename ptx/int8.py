"""Weights as 8-bit whole numbers with a scale for each row: half of bf16's bytes, not lossless."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from ptx.model import GPT


@torch.no_grad()
def as_int8(model: GPT) -> GPT:
    """A copy whose matrices hold only values that int8 with a scale for each row can express.

    The nearest such value to each weight: symmetric, the largest of a row becomes 127. The copy is
    an ordinary fp32 model; `int8_scale` (O,) at each linear layer lets a decoder store it small.
    """
    model = copy.deepcopy(model)
    for module in model.modules():
        if isinstance(module, nn.Linear):
            scale = row_scales(module.weight)
            module.weight.copy_((module.weight / scale[:, None]).round() * scale[:, None])
            module.register_buffer("int8_scale", scale, persistent=False)
    return model


def row_scales(weight: Tensor) -> Tensor:
    """What one step of int8 is worth in each row of weights (O, C), (O,) fp32."""
    return (weight.float().abs().amax(-1) / 127).clamp(min=1e-30)


def int8_values(weight: Tensor, scale: Tensor) -> Tensor:
    """The whole numbers (..., O, C) behind such weights; scale: (..., O)."""
    return (weight / scale[..., None]).round().to(torch.int8)
