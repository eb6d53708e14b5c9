"""How many bits a text costs the model: by token, by character, by line, per byte."""

from __future__ import annotations

from dataclasses import dataclass
from math import log

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ptx.lens.text import text_of
from ptx.lens.trace import Trace
from ptx.tokenizer import Tokenizer


@dataclass(frozen=True)
class Surprise:
    """Bits. Tokens, characters and lines sum to the same, fp64."""

    tokens: Tensor
    """(T,): -log2 of the probability of each token; 0 for the first, which nothing predicts."""
    chars: Tensor
    """(n,): a token's bits are shared equally by its bytes."""
    lines: Tensor
    """(lines,): a newline belongs to the line that it ends."""
    text: str
    """The n characters."""
    bits_per_byte: float
    """Of all that was predicted; nan if that has no bytes."""


def surprise(tokenizer: Tokenizer, trace: Trace) -> Surprise:
    """What each token of the text cost, given those before it.

    The bits of a token without bytes (end-of-text inside a text) are in `tokens` and in the total,
    and in no character or line.
    """
    following = torch.tensor(trace.ids[1:], dtype=torch.long)
    bits = F.cross_entropy(trace.logits[:-1], following, reduction="none").double() / log(2)
    tokens = torch.cat((bits.new_zeros(1), bits))  # (T,)
    text = text_of(tokenizer, trace.ids)
    sizes = np.diff(text.tokens)  # (T,)
    per_byte = np.repeat(tokens.numpy() / np.maximum(sizes, 1), sizes)  # (bytes,)
    running = np.concatenate(([0.0], np.cumsum(per_byte)))
    chars = np.diff(running[text.chars])  # (n,)
    lines = np.bincount(text.lines, weights=chars)
    predicted = int(sizes[1:].sum())
    return Surprise(
        tokens=tokens,
        chars=torch.from_numpy(chars),
        lines=torch.from_numpy(lines),
        text=text.string,
        bits_per_byte=float(tokens.sum()) / predicted if predicted else float("nan"),
    )
