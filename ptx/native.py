"""A decoding step on a CPU as one compiled function.

Reading one token takes 20 small operations a layer. torch spends longer on starting each than on
its arithmetic, and its products of one row run at an eighth of the memory's speed. Here numba
compiles the whole step through LLVM: no C++ compiler, no dispatch, each weight read once, for all
rows together (`ptx.tile`). Weights stay as small as they can without changing (bf16 if nothing is
lost), or become int8 on request; sums are fp32.

A row's sums are taken in the same order whatever rows come with it: a text does not depend on
the company it is decoded in.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numba import typeof
from torch import Tensor

from ptx.compiled import at_hand, compiled, exp
from ptx.int8 import int8_values
from ptx.memory import together
from ptx.model import GPT
from ptx.team import Team, pieces, team
from ptx.tile import BLOCKS, KEYS, LANES, MOST_ROWS, packed, row_sums, tile

_inner = partial(compiled, inner=True)
ACTIVATIONS = ("relu", "gelu", "swiglu")
CHUNK = 8
"""Rows that one thread prepares and normalizes at a time."""
FIRST = np.int64(0)
"""As a layer or a phase: for a number that is written down numba would compile all once more."""

_most_rows, _four_rows = tile(MOST_ROWS, 1), tile(4, 1)
_one_row, _one_block = tile(1, BLOCKS), tile(1, 1)
_two_blocks_more, _one_block_more = tile(1, 2, onto=True), tile(1, 1, onto=True)


class Matrix(NamedTuple):
    """Linear layers of one kind, all layers together."""

    weight: np.ndarray
    """(L, blocks, C, LANES), see `ptx.tile`: float32, uint16 (bits of bf16) or int8."""
    scale: np.ndarray
    """(L, O) fp32; what a sum over a row of `weight` is multiplied with."""
    bias: np.ndarray
    """(L, O) fp32."""


class Norm(NamedTuple):
    """Norms of one kind; without a gain they are ones, without a bias zeros."""

    gain: np.ndarray
    """(L, C) fp32."""
    bias: np.ndarray
    """(L, C) fp32."""


class Weights(NamedTuple):
    """A whole GPT for `step`."""

    tok_emb: np.ndarray
    """(V, C) fp32."""
    pos_emb: np.ndarray
    """(context, C) fp32, or (0, C)."""
    cos: np.ndarray
    """(context, D) fp32, or (0, D)."""
    sin: np.ndarray
    attn_norm: Norm
    q: Matrix
    k: Matrix
    v: Matrix
    q_norm: Norm
    """(L, D), or (0, D)."""
    k_norm: Norm
    out: Matrix
    mlp_norm: Norm
    gate: Matrix
    up: Matrix
    down: Matrix
    norm: Norm
    """(1, C)."""
    head: Matrix
    """(1, V, C)."""
    n_head: int
    n_kv_head: int
    head_size: int
    layer_norm: bool
    activation: int
    """Index in ACTIVATIONS."""
    eps: float


def pack(model: GPT) -> Weights:
    """The weights of `model`, on a CPU, as `step` takes them."""
    c, blocks = model.config, list(model.blocks)
    nothing = np.zeros((0, c.head_size), np.float32)
    no_norm, learned = Norm(nothing, nothing), c.position == "learned"

    def linears(*names: str) -> list[Matrix]:
        return [
            _matrix([getattr(b.attn if hasattr(b.attn, n) else b.mlp, n) for b in blocks])
            for n in names
        ]

    q, k, v, out, up, down = linears("q", "k", "v", "out", "up", "down")
    weights = Weights(
        tok_emb=_fp32(model.tok_emb.weight),
        pos_emb=_fp32(model.pos_emb.weight) if learned else np.zeros((0, c.d_model), np.float32),
        cos=nothing if learned else _fp32(model.cos),
        sin=nothing if learned else _fp32(model.sin),
        attn_norm=_norm([b.attn_norm for b in blocks]),
        q=q,
        k=k,
        v=v,
        q_norm=_norm([b.attn.q_norm for b in blocks]) if c.qk_norm else no_norm,
        k_norm=_norm([b.attn.k_norm for b in blocks]) if c.qk_norm else no_norm,
        out=out,
        mlp_norm=_norm([b.mlp_norm for b in blocks]),
        gate=linears("gate")[0] if c.mlp == "swiglu" else up,
        up=up,
        down=down,
        norm=_norm([model.norm]),
        head=_matrix([model.head]),
        n_head=c.n_head,
        n_kv_head=c.n_kv_head,
        head_size=c.head_size,
        layer_norm=c.norm == "layer",
        activation=ACTIVATIONS.index(c.mlp),
        eps=c.norm_eps,
    )
    return _in_large_pages(weights)


def _in_large_pages(w: Weights) -> Weights:
    matrices = {name: m for name, m in w._asdict().items() if isinstance(m, Matrix)}
    different = {id(m.weight): m.weight for m in matrices.values()}  # gate may be up
    moved = dict(zip(different, together(list(different.values())), strict=True))
    changed = {name: m._replace(weight=moved[id(m.weight)]) for name, m in matrices.items()}
    return w._replace(**changed)


def _fp32(tensor: Tensor) -> np.ndarray:
    return tensor.detach().float().contiguous().numpy()


def _norm(norms: list[torch.nn.Module]) -> Norm:
    gain = torch.stack([n.weight for n in norms])
    biases = [getattr(n, "bias", None) for n in norms]
    bias = torch.zeros_like(gain) if biases[0] is None else torch.stack(biases)
    return Norm(_fp32(gain), _fp32(bias))


def _matrix(linears: list[torch.nn.Linear]) -> Matrix:
    weight = torch.stack([linear.weight.detach().float() for linear in linears])  # (L, O, C)
    bias = weight.new_zeros(weight.shape[:2])
    if linears[0].bias is not None:
        bias = torch.stack([linear.bias for linear in linears])
    ones = torch.ones_like(bias)
    if hasattr(linears[0], "int8_scale"):
        scale = torch.stack([linear.int8_scale for linear in linears])
        return Matrix(packed(int8_values(weight, scale).numpy()), _fp32(scale), _fp32(bias))
    small = weight.bfloat16()
    if torch.equal(small.float(), weight):  # nothing is lost
        return Matrix(packed(small.view(torch.uint16).numpy()), _fp32(ones), _fp32(bias))
    return Matrix(packed(weight.numpy()), _fp32(ones), _fp32(bias))


@_inner
def _copy(x: np.ndarray, y: np.ndarray):
    """The beginning of y, which is as long or longer, = x. An assignment of numba's would take
    seconds to compile: it makes the words for shapes that differ."""
    for i in range(len(x)):
        y[i] = x[i]


@_inner
def _add(x: np.ndarray, y: np.ndarray):
    """y += x, of one length."""
    for i in range(len(x)):
        y[i] += x[i]


@_inner
def _linear(m: Matrix, layer: int, piece: int, x: np.ndarray, y: np.ndarray):
    """y (R, O) = x (R, C) @ weight.T * scale + bias, of one layer and of a piece of its outputs.

    It is done with for all rows before the next: so it stays in the cache that is next.
    """
    weight, R = m.weight[layer], len(x)
    first = piece * BLOCKS
    last = min(first + BLOCKS, len(weight))
    part = np.empty(max(MOST_ROWS, BLOCKS) * LANES, np.float32)
    r = 0
    while r + MOST_ROWS <= R:
        for b in range(first, last):
            _most_rows(weight[b : b + 1], x[r : r + MOST_ROWS], part)
            _finish(m, layer, part, y[r : r + MOST_ROWS], b, 1)
        r += MOST_ROWS
    while r + 4 <= R:
        for b in range(first, last):
            _four_rows(weight[b : b + 1], x[r : r + 4], part)
            _finish(m, layer, part, y[r : r + 4], b, 1)
        r += 4
    while r < R:
        if last - first == BLOCKS:
            _one_row(weight[first:last], x[r : r + 1], part)
            _finish(m, layer, part, y[r : r + 1], first, BLOCKS)
        else:
            for b in range(first, last):
                _one_block(weight[b : b + 1], x[r : r + 1], part)
                _finish(m, layer, part, y[r : r + 1], b, 1)
        r += 1


@_inner
def _pieces(m: Matrix) -> int:
    """In how many pieces threads share the outputs of `m`."""
    return (m.weight.shape[1] + BLOCKS - 1) // BLOCKS


@_inner
def _finish(m: Matrix, layer: int, part: np.ndarray, y: np.ndarray, block: int, n_blocks: int):
    """A tile's sums (rows, n_blocks * LANES) to where they belong in y (rows, O)."""
    scale, bias, first = m.scale[layer], m.bias[layer], block * LANES
    n = min(n_blocks * LANES, y.shape[1] - first)
    for r in range(len(y)):
        for i in range(n):
            y[r, first + i] = part[r * n_blocks * LANES + i] * scale[first + i] + bias[first + i]


@_inner
def _normalize(x: np.ndarray, norm: Norm, layer: int, w: Weights, y: np.ndarray):
    """y (R, C) = RMSNorm or LayerNorm of x (R, C)."""
    n, gain, bias = np.float32(x.shape[1]), norm.gain[layer], norm.bias[layer]
    for r in range(len(x)):
        mean = np.float32(0)
        if w.layer_norm:
            for i in range(x.shape[1]):
                mean += x[r, i]
            mean /= n
        square = np.float32(0)
        for i in range(x.shape[1]):
            square += (x[r, i] - mean) * (x[r, i] - mean)
        scale = np.float32(1) / np.sqrt(square / n + np.float32(w.eps))
        for i in range(x.shape[1]):
            y[r, i] = (x[r, i] - mean) * scale * gain[i] + bias[i]


@_inner
def _prepare_heads(x: np.ndarray, norm: Norm, layer: int, positions: np.ndarray, w: Weights):
    """Normalizes and rotates the heads in x (R, heads * D), in place."""
    D = w.head_size
    half = D // 2
    for r in range(len(x)):
        heads = x[r].reshape(-1, D)  # (heads, D)
        if len(norm.gain):
            for h in range(len(heads)):
                square = np.float32(0)
                for i in range(D):
                    square += heads[h, i] * heads[h, i]
                scale = np.float32(1) / np.sqrt(square / np.float32(D) + np.float32(w.eps))
                for i in range(D):
                    heads[h, i] *= scale * norm.gain[layer, i]
        if len(w.cos):
            cos, sin = w.cos[positions[r]], w.sin[positions[r]]
            for h in range(len(heads)):
                for i in range(half):
                    a, b = heads[h, i], heads[h, i + half]
                    heads[h, i] = a * cos[i] - b * sin[i]
                    heads[h, i + half] = b * cos[i + half] + a * sin[i + half]


@_inner
def _score(q: np.ndarray, keys: np.ndarray, weights: np.ndarray):
    """weights (S,) = q . keys (S, D)"""
    S, D = keys.shape
    whole = S - S % KEYS
    for s in range(0, whole, KEYS):
        row_sums(keys[s : s + KEYS], q, weights[s:])
        for k in range(s, s + KEYS):
            for i in range(D - D % KEYS, D):
                weights[k] += q[i] * keys[k, i]
    for s in range(whole, S):
        weights[s] = np.float32(0)
        for i in range(D):
            weights[s] += q[i] * keys[s, i]


@_inner
def _gather(weights: np.ndarray, values: np.ndarray, y: np.ndarray):
    """y (D,) += weights (S,) . values (S, D), position after position."""
    S, D = values.shape
    if not S:
        return
    probs, i = weights.reshape(1, S), 0  # (1, S)
    while i + 2 * LANES <= D:
        _two_blocks_more(values[:, i : i + 2 * LANES], probs, y[i:])
        i += 2 * LANES
    while i + LANES <= D:
        _one_block_more(values[:, i : i + LANES], probs, y[i:])
        i += LANES
    for s in range(S):
        for j in range(i, D):
            y[j] += weights[s] * values[s, j]


@_inner
def _attend(
    q: np.ndarray,
    begun: tuple[np.ndarray, np.ndarray],
    own: tuple[np.ndarray, np.ndarray],
    weights: np.ndarray,
    y: np.ndarray,
):
    """One head of one row: y (D,) = softmax(q . keys / sqrt(D)) . values.

    begun: keys and values (P, D) of the first positions, P a multiple of KEYS, so that it does not
        matter which they are; own: of those after them. Leaves the softmax in weights (S,)."""
    P, D, S = len(begun[0]), len(q), len(weights)
    _score(q, begun[0], weights[:P])
    _score(q, own[0], weights[P:])
    largest, scale = np.float32(-np.inf), np.float32(1) / np.sqrt(np.float32(D))
    for s in range(S):
        weights[s] *= scale
        largest = max(largest, weights[s])
    total = np.float32(0)
    for s in range(S):
        weights[s] = exp(weights[s] - largest)
        total += weights[s]
    for s in range(S):
        weights[s] /= total
    for i in range(D):
        y[i] = np.float32(0)
    _gather(weights[:P], begun[1], y)
    _gather(weights[P:], own[1], y)


@_inner
def _activate(up: np.ndarray, gate: np.ndarray, activation: int, piece: int):
    """The non-linearity of a piece of the columns of (R, d_mlp), in `up`."""
    first = piece * BLOCKS * LANES
    for r in range(len(up)):
        u, g = up[r, first : first + BLOCKS * LANES], gate[r, first : first + BLOCKS * LANES]
        if activation == 2:  # SwiGLU
            for i in range(len(u)):
                u[i] *= g[i] / (np.float32(1) + exp(-g[i]))
        elif activation == 1:  # GPT-2's "gelu_new"; (1 + tanh(z)) / 2 = 1 / (1 + e ** -2z)
            for i in range(len(u)):
                z = np.float32(0.7978845608028654) * (u[i] + np.float32(0.044715) * u[i] ** 3)
                u[i] /= np.float32(1) + exp(np.float32(-2) * z)
        else:
            for i in range(len(u)):
                u[i] = max(u[i], np.float32(0))


class Rows(NamedTuple):
    """What a step reads, int64 (R,) each; rows of one text in the order of their positions."""

    tokens: np.ndarray
    slots: np.ndarray
    """Whose keys and values are each row's text's."""
    positions: np.ndarray
    sources: np.ndarray
    """Another slot, or the same, in which the first `same` keys and values are this one's too:
    rows that share them read them once."""
    same: np.ndarray


class Cache(NamedTuple):
    """The keys and values of all texts, fp32 (L, K, slots, context, D) each."""

    k: np.ndarray
    v: np.ndarray


class Scratch(NamedTuple):
    """What a step of R rows keeps between its phases, fp32."""

    x: np.ndarray
    """(R, C), the residual stream."""
    h: np.ndarray
    """(R, C), what a block's half reads of it, then what it adds."""
    q: np.ndarray
    """(R, H * D)"""
    k: np.ndarray
    """(R, K * D)"""
    v: np.ndarray
    y: np.ndarray
    """(R, H * D), what the heads found."""
    up: np.ndarray
    """(R, d_mlp)"""
    gate: np.ndarray


def scratch(w: Weights, rows: int) -> Scratch:
    widths = [w.tok_emb.shape[1]] * 2
    widths += [m.scale.shape[1] for m in (w.q, w.k, w.v, w.q, w.up, w.up)]
    return Scratch(*(np.empty((rows, width), np.float32) for width in widths))


def team_of(n: int, w: Weights) -> list[Team]:
    """The places of n threads that take one step together."""
    return team(2 + 8 * len(w.q.weight), n)


@_inner
def _some(piece: int, rows: Rows):
    """The rows of a piece of at most CHUNK."""
    return piece * CHUNK, min((piece + 1) * CHUNK, len(rows.tokens))


@_inner
def _embed(w: Weights, rows: Rows, piece: int, s: Scratch):
    """The residual stream of a piece of the rows as it begins, and what the first layer reads."""
    a, b = _some(piece, rows)
    for r in range(a, b):
        _copy(w.tok_emb[rows.tokens[r]], s.x[r])
        if len(w.pos_emb):
            _add(w.pos_emb[rows.positions[r]], s.x[r])
    _normalize(s.x[a:b], w.attn_norm, FIRST, w, s.h[a:b])


@_inner
def _project(w: Weights, layer: int, piece: int, s: Scratch):
    """A piece of the queries, keys and values."""
    n_q, n_k = _pieces(w.q), _pieces(w.k)
    if piece < n_q:
        _linear(w.q, layer, piece, s.h, s.q)
    elif piece < n_q + n_k:
        _linear(w.k, layer, piece - n_q, s.h, s.k)
    else:
        _linear(w.v, layer, piece - n_q - n_k, s.h, s.v)


@_inner
def _keep(w: Weights, rows: Rows, cache: Cache, layer: int, piece: int, s: Scratch):
    """Queries and keys of a piece of the rows as heads compare them; keys and values are kept."""
    a, b = _some(piece, rows)
    D = w.head_size
    _prepare_heads(s.q[a:b], w.q_norm, layer, rows.positions[a:b], w)
    _prepare_heads(s.k[a:b], w.k_norm, layer, rows.positions[a:b], w)
    for r in range(a, b):
        slot, position = rows.slots[r], rows.positions[r]
        for n in range(w.n_kv_head):
            _copy(s.k[r, n * D : (n + 1) * D], cache.k[layer, n, slot, position])
            _copy(s.v[r, n * D : (n + 1) * D], cache.v[layer, n, slot, position])


@_inner
def _look(
    w: Weights,
    rows: Rows,
    cache: Cache,
    layer: int,
    piece: int,
    weights: np.ndarray,
    attention: np.ndarray,
    s: Scratch,
):
    """What one head of one row finds; `weights` (context,) is room to work in."""
    n, r = piece // len(rows.tokens), piece % len(rows.tokens)
    group, D, slot, source = w.n_head // w.n_kv_head, w.head_size, rows.slots[r], rows.sources[r]
    keys, values = cache.k[layer, n // group], cache.v[layer, n // group]
    seen, mine = rows.positions[r] + 1, slice(n * D, (n + 1) * D)
    both = min(rows.same[r], seen) // KEYS * KEYS
    begun = keys[source, :both], values[source, :both]
    own = keys[slot, both:seen], values[slot, both:seen]
    _attend(s.q[r, mine], begun, own, weights[:seen], s.y[r, mine])
    if len(attention):
        _copy(weights[:seen], attention[r, layer, n])


@_inner
def _widen(w: Weights, layer: int, piece: int, s: Scratch):
    """A piece of the columns between the two halves of an MLP."""
    _linear(w.up, layer, piece, s.h, s.up)
    if w.activation == 2:
        _linear(w.gate, layer, piece, s.h, s.gate)
    _activate(s.up, s.gate, w.activation, piece)


@_inner
def _add_and_normalize(rows: Rows, piece: int, norm: Norm, layer: int, w: Weights, s: Scratch):
    """Adds what half a block found to the residual stream, for what reads it next."""
    a, b = _some(piece, rows)
    for r in range(a, b):
        _add(s.h[r], s.x[r])
    _normalize(s.x[a:b], norm, layer, w, s.h[a:b])


@compiled
def step(
    w: Weights,
    rows: Rows,
    cache: Cache,
    attention: np.ndarray,
    logits: np.ndarray,
    s: Scratch,
    team: Team,
):
    """Reads R tokens into the cache; writes the logits (N, V) of what follows the last N of them.
    Without any it stops once the last layer has its keys and values. Several threads may call it
    with the same arguments, but for `team`: they share the work, phase after phase.

    attention: fp32 (R, L, H, context), filled up to each row's position; (0, ...) to leave it out.
    """
    R, n_layer = len(rows.tokens), len(w.q.weight)
    chunks = (R + CHUNK - 1) // CHUNK
    weights, phase = np.empty(cache.k.shape[3], np.float32), FIRST
    for piece in pieces(team.place, phase, chunks):
        _embed(w, rows, piece, s)
    for layer in range(n_layer):
        phase += 1
        for piece in pieces(team.place, phase, _pieces(w.q) + 2 * _pieces(w.k)):
            _project(w, layer, piece, s)
        phase += 1
        for piece in pieces(team.place, phase, chunks):
            _keep(w, rows, cache, layer, piece, s)
        if layer == n_layer - 1 and not len(logits):
            return
        phase += 1
        for piece in pieces(team.place, phase, R * w.n_head):
            _look(w, rows, cache, layer, piece, weights, attention, s)
        phase += 1
        for piece in pieces(team.place, phase, _pieces(w.out)):
            _linear(w.out, layer, piece, s.y, s.h)
        phase += 1
        for piece in pieces(team.place, phase, chunks):
            _add_and_normalize(rows, piece, w.mlp_norm, layer, w, s)
        phase += 1
        for piece in pieces(team.place, phase, _pieces(w.up)):
            _widen(w, layer, piece, s)
        phase += 1
        for piece in pieces(team.place, phase, _pieces(w.down)):
            _linear(w.down, layer, piece, s.up, s.h)
        phase += 1
        for piece in pieces(team.place, phase, chunks):
            if layer < n_layer - 1:
                _add_and_normalize(rows, piece, w.attn_norm, layer + 1, w, s)
            else:
                _add_and_normalize(rows, piece, w.norm, FIRST, w, s)
    phase += 1
    for piece in pieces(team.place, phase, _pieces(w.head)):
        _linear(w.head, FIRST, piece, s.h[R - len(logits) :], logits)


def ready(weights: Weights) -> bool:
    """Whether `step` needs no compiling any more for such weights."""
    return at_hand(step, typeof(weights))
