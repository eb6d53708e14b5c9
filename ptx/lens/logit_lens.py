"""What the model would say if it stopped after each layer (nostalgebraist, 2020)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ptx.errors import UserError
from ptx.lens.trace import Trace, check_position, check_token
from ptx.model import GPT


@dataclass(frozen=True)
class LogitLens:
    """The next token as seen from the embedding (row 0) and from after each of L blocks."""

    logits: Tensor
    """(L + 1, V); the last row is the model's own."""
    tokens: Tensor
    """(L + 1, k): the most likely, best first."""
    probs: Tensor
    """(L + 1, k): their probabilities."""
    token: int
    """The token that is followed through the layers."""
    prob: Tensor
    """(L + 1,): its probability."""
    rank: Tensor
    """(L + 1,): its rank, 1 for the most likely."""


@torch.no_grad()
def logit_lens(
    model: GPT, trace: Trace, position: int = -1, token: int | None = None, k: int = 10
) -> LogitLens:
    """The residual stream of one position through the final norm and the head, layer by layer.

    token: to be followed; the most likely in the end if left out.
    Raises UserError for a position outside the text or a token outside the vocabulary.
    """
    check_position(len(trace.ids), position)
    if not 1 <= k <= model.config.vocab_size:
        raise UserError(f"k must be between 1 and {model.config.vocab_size}, not {k}")
    weight = model.tok_emb.weight
    below = trace.residual[:-1, position].to(weight.device, weight.dtype)  # (L, C)
    # The last row is what the model's own final norm made.
    normed = torch.cat((model.norm(below), trace.final[position, None]))  # (L + 1, C)
    logits = model.head(normed).float().cpu()  # (L + 1, V)
    token = int(logits[-1].argmax()) if token is None else token
    check_token(model.config, token)
    probs = logits.softmax(-1)  # (L + 1, V)
    best = probs.topk(k)
    rank = 1 + (logits > logits[:, token, None]).sum(-1)
    return LogitLens(logits, best.indices, best.values, token, probs[:, token], rank)
