"""Ways of looking at attention, and encodings of them small enough to send to a page.

Views return new tensors: the weights that they are given stay as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from itertools import accumulate, pairwise
from math import isqrt

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ptx.lens.trace import Trace
from ptx.model import GPT

THUMBNAIL = 64
"""Pixels a side, at most."""
THUMBNAILS = 150 * 1024
"""Bytes of all thumbnails of a model, at most: 200 KiB in base64."""


def without_sink(weights: Tensor) -> Tensor:
    """Attention (..., T, T) without its first column, what is left of each row made to sum to 1.

    Heads rest on the first token when they have nothing to do (Xiao et al., 2023), and the rest of
    a map is dark beside it. A row that has nothing else, as the first, becomes zero.
    """
    left = weights.clone()
    left[..., 0] = 0
    return left / left.sum(-1, keepdim=True).clamp_min(torch.finfo(left.dtype).tiny)


@torch.no_grad()
def value_weighted(model: GPT, trace: Trace) -> Tensor:
    """How much is written, not how much is looked at: weight times the norm of what the head would
    write from that position, |W_O v_k| (Kobayashi et al., 2020); (L, H, T, T), in the units of the
    residual stream."""
    c = model.config
    norms = []
    for layer, block in enumerate(model.blocks):
        out = block.attn.out.weight.float().cpu().unflatten(1, (c.n_head, -1))  # (C, H, D)
        values = trace.values[layer].repeat_interleave(c.n_head // c.n_kv_head, dim=0)  # (H, T, D)
        norms.append((values @ out.permute(1, 2, 0)).norm(dim=-1))  # (H, T, C) -> (H, T)
    return trace.attention * torch.stack(norms).unsqueeze(-2)  # (L, H, 1, T)


def to_unit(weights: Tensor) -> Tensor:
    """The view (..., T, T) over its largest value in all heads, so that it fits the encodings and
    heads compare."""
    return weights / weights.max().clamp_min(torch.finfo(weights.dtype).tiny)


def quantize(weights: Tensor) -> Tensor:
    """uint8 of 255 * sqrt(weight): a byte that keeps small weights apart; for looking at, not for
    export (the error reaches 0.004 near 1). weights: 0 to 1."""
    return torch.from_numpy(_codes(weights.numpy()))


def _codes(weights: np.ndarray) -> np.ndarray:
    codes = np.sqrt(weights)  # torch takes twice as long
    codes *= 255
    return np.rint(codes, out=codes).astype(np.uint8)


def thumbnail_side(heads: int, tokens: int) -> int:
    """Pixels a side of a thumbnail: 64, fewer for a shorter text or for more than 37 heads."""
    return min(tokens, THUMBNAIL, isqrt(THUMBNAILS // heads))


def thumbnails(weights: Tensor) -> bytes:
    """All heads, max-pooled so that no bright cell is lost: uint8 of (L, H, s, s) with
    s = `thumbnail_side`; at most 150 KiB.

    weights: (L, H, T, T).
    """
    L, H, T, _ = weights.shape
    side = thumbnail_side(L * H, T)
    return quantize(F.adaptive_max_pool2d(weights, side)).numpy().tobytes()


def band(rows: Sequence[bytes], heads: int, first: int, size: int) -> tuple[int, np.ndarray]:
    """A part of the thumbnails of a text of `size` tokens, of which some rows are there: the number
    of its first row of pixels, and uint8 (heads, n, s), max-pooled.

    rows: those of positions `first`, ..., as `row` made them.
    """
    side = thumbnail_side(heads, size)
    pixel = np.arange(size) * side // size  # of a token
    top, bottom = pixel[first], pixel[first + len(rows) - 1]
    lines = np.zeros((bottom - top + 1, heads, size), np.uint8)  # pooled over the tokens that look
    for q, codes in enumerate(rows, first):
        row = np.frombuffer(codes, np.uint8).reshape(heads, q + 1)
        line = lines[pixel[q] - top, :, : q + 1]
        np.maximum(line, row, out=line)
    begins = np.searchsorted(pixel, np.arange(side))  # the first token of a pixel
    lasts = np.append(begins[1:], size) - 1
    # one token of each pixel at a time: reduceat takes three times as long
    columns = [np.minimum(begins + j, lasts) for j in range((lasts - begins).max() + 1)]
    cells = reduce(np.maximum, (lines[..., some] for some in columns))  # (n, heads, s)
    return int(top), np.ascontiguousarray(cells.swapaxes(0, 1))


def triangle(weights: Tensor) -> bytes:
    """One head's lower triangle, row by row: uint8 of T * (T + 1) / 2 values; weights: (T, T)."""
    T = weights.shape[-1]
    return quantize(weights)[torch.ones(T, T, dtype=torch.bool).tril()].numpy().tobytes()


def row(weights: Tensor) -> bytes:
    """Where every head looks from one new token: uint8 of (L, H, S); weights: (L, H, S), as
    `Step.attention`."""
    return rows([np.asarray(weights)])[0]


def rows(weights: Sequence[np.ndarray]) -> list[bytes]:
    """`row` of each, in one go."""
    places = list(pairwise(accumulate((some.size for some in weights), initial=0)))
    flat = np.empty(sum(some.size for some in weights), np.float32)
    for (a, b), some in zip(places, weights, strict=True):
        flat[a:b].reshape(some.shape)[...] = some
    codes = _codes(flat).tobytes()
    return [codes[a:b] for a, b in places]


def row_without_sink(codes: bytes, heads: int) -> bytes:
    """`without_sink` of what `row` made."""
    rows = np.frombuffer(codes, np.uint8).reshape(heads, -1)  # (heads, S)
    weights = (rows / np.float32(255)) ** 2
    return row(without_sink(torch.from_numpy(weights)))
