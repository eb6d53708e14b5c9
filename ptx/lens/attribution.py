"""Why this token: its logit as a sum over everything that wrote into the residual stream.

The final norm is the only thing between the stream and the logits that is not linear. With its
scale held at what it was, it is, and the logit of token v is the sum over the parts of the stream
of their products with one direction (Elhage et al., 2021, "A Mathematical Framework for
Transformer Circuits"): the head's row v times the norm's gain times that scale. A LayerNorm's
subtraction of the mean is linear as it is: it takes the mean out of the direction.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ptx.lens.trace import Trace, check_position, check_token
from ptx.model import GPT


@dataclass(frozen=True)
class Attribution:
    """Logits: what each part adds to the logit of a token, or to its lead over another. fp64."""

    embedding: Tensor
    """(): the token's and, where learned, the position's embedding."""
    heads: Tensor
    """(L, H)."""
    mlps: Tensor
    """(L,), without their biases."""
    biases: Tensor
    """(): of attention outputs, MLPs, final norm and head together."""
    total: Tensor
    """(): the logit, or the difference, that the model computed."""

    def sum(self) -> Tensor:
        """(): of all parts; equals `total` up to rounding in the residual stream, 1e-3 in fp32."""
        return self.embedding + self.heads.sum() + self.mlps.sum() + self.biases


@torch.no_grad()
def attribution(
    model: GPT, trace: Trace, token: int, against: int | None = None, position: int = -1
) -> Attribution:
    """What each part of the model contributed to the logit of `token` after `position`.

    against: another token; the parts are then of logit(token) - logit(against).
    Raises UserError for a position outside the text or a token outside the vocabulary.
    """
    check_position(len(trace.ids), position)
    signs = {token: 1.0} if against is None else {token: 1.0, against: -1.0}
    for wanted in signs:
        check_token(model.config, wanted)
    if against == token:
        signs = {token: 0.0}
    # fp64 from here on: the sum of a hundred parts should not add rounding of its own.
    row = sum(sign * _double(model.head.weight[t]) for t, sign in signs.items())  # (C,)
    x = trace.residual[-1, position].double()  # (C,)
    direction = row * _double(model.norm.weight)
    biases = torch.zeros((), dtype=torch.float64)
    if model.config.norm == "layer":
        direction = direction - direction.mean()
        x = x - x.mean()
        if model.norm.bias is not None:
            biases += row @ _double(model.norm.bias)
    direction = direction * (x.square().mean() + model.config.norm_eps).rsqrt()
    if model.head.bias is not None:
        biases += sum(sign * _double(model.head.bias[t]) for t, sign in signs.items())

    heads, mlps = [], []
    for layer, block in enumerate(model.blocks):
        out = block.attn.out
        read = _double(out.weight).T @ direction  # (H * D,): the direction, seen by the heads
        z = trace.heads[layer, position].double()  # (H, D)
        heads.append((z * read.view_as(z)).sum(-1))
        mlp, down = trace.mlps[layer, position].double(), block.mlp.down
        for bias in (out.bias, down.bias):
            biases += 0.0 if bias is None else _double(bias) @ direction
        mlps.append((mlp - (0.0 if down.bias is None else _double(down.bias))) @ direction)
    logits = _logits(model, trace, position, list(signs))
    return Attribution(
        embedding=trace.residual[0, position].double() @ direction,
        heads=torch.stack(heads),
        mlps=torch.stack(mlps),
        biases=biases,
        total=logits @ torch.tensor(list(signs.values()), dtype=torch.float64),
    )


def _logits(model: GPT, trace: Trace, position: int, tokens: list[int]) -> Tensor:
    """(n,): of some tokens alone, as the model computes them."""
    head = model.head
    bias = None if head.bias is None else head.bias[tokens]
    return F.linear(trace.final[position], head.weight[tokens], bias).cpu().double()


def _double(weight: Tensor) -> Tensor:
    return weight.cpu().double()
