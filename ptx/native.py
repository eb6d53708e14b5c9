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
from ptx.onward import Onward, choose
from ptx.team import Place, Team, first, later, pieces, team
from ptx.tile import BLOCKS, KEYS, LANES, MOST_ROWS, dots, packed, padded, tile, tile_onto

_inner = partial(compiled, inner=True, allocates=False)
ACTIVATIONS = ("relu", "gelu", "swiglu")
CHUNK = 8
"""Rows that one thread prepares and normalizes at a time."""
PATIENCE, A_ROW = 128, 32
"""For how many pauses, and how many more a row, a thread waits for another one's piece before it
does it too: some microseconds, as long as most pieces of `mini` take."""
FIRST = np.int64(0)
"""As a layer or a phase: for a number that is written down numba would compile all once more."""

TOGETHER = 4
"""Rows that compare themselves with the same keys at a time."""
WIDTH = BLOCKS * LANES
"""Outputs of a linear layer that are a piece."""
SIDE = 64
"""Numbers of a value that are summed at a time for one row."""

_most_rows, _four_rows = tile(MOST_ROWS, 1), tile(4, 1)
_one_row, _one_block = tile(1, BLOCKS), tile(1, 1)
_some_dots, _dots = dots(TOGETHER), dots(1)
_some_more, _side_more, _more = tile_onto(TOGETHER, 1), tile_onto(1, SIDE // LANES), tile_onto(1, 1)


class Matrix(NamedTuple):
    """Linear layers of one kind, all layers together."""

    weight: np.ndarray
    """(L, blocks, C, LANES), see `ptx.tile`: float32, uint16 (bits of bf16) or int8."""
    scale: np.ndarray
    """(L, blocks * LANES) fp32; what a sum over a row of `weight` is multiplied with."""
    bias: np.ndarray
    """(L, blocks * LANES) fp32."""


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
    scale = torch.ones_like(bias)
    if hasattr(linears[0], "int8_scale"):
        scale = torch.stack([linear.int8_scale for linear in linears])
        small = int8_values(weight, scale)
    elif torch.equal((small := weight.bfloat16()).float(), weight):  # nothing is lost
        small = small.view(torch.uint16)
    else:
        small = weight
    return Matrix(packed(small.numpy()), padded(_fp32(scale)), padded(_fp32(bias)))


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
    """y (R or more, WIDTH) = x (R, C) @ weight.T * scale + bias, for a piece of its outputs.

    It is done with for all rows before the next: so it stays in the cache that is next.
    """
    start = piece * BLOCKS
    some = m.weight[layer, start : start + BLOCKS]  # (blocks, C, LANES)
    scale, bias = m.scale[layer, start * LANES :], m.bias[layer, start * LANES :]
    r, R, blocks = 0, len(x), len(some)
    while r + MOST_ROWS <= R:
        for b in range(blocks):
            o, to = b * LANES, y[r : r + MOST_ROWS, b * LANES :]
            _most_rows(some[b : b + 1], x[r : r + MOST_ROWS], scale[o:], bias[o:], to)
        r += MOST_ROWS
    while r + 4 <= R:
        for b in range(blocks):
            o = b * LANES
            _four_rows(some[b : b + 1], x[r : r + 4], scale[o:], bias[o:], y[r : r + 4, o:])
        r += 4
    while r < R:
        if blocks == BLOCKS:
            _one_row(some, x[r : r + 1], scale, bias, y[r : r + 1])
        else:
            for b in range(blocks):
                o = b * LANES
                _one_block(some[b : b + 1], x[r : r + 1], scale[o:], bias[o:], y[r : r + 1, o:])
        r += 1


@_inner
def _write(found: np.ndarray, piece: int, y: np.ndarray):
    """What was found of a piece of the columns, (R or more, WIDTH), into y (R, O)."""
    start = piece * WIDTH
    for r in range(len(y)):
        for i in range(min(WIDTH, y.shape[1] - start)):
            y[r, start + i] = found[r, i]


@_inner
def _pieces(m: Matrix) -> int:
    """In how many pieces threads share the outputs of `m`."""
    return (m.weight.shape[1] + BLOCKS - 1) // BLOCKS


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
    """weights (1, S) = q (1, D) . keys (S, D)"""
    whole = len(keys) - len(keys) % KEYS
    for s in range(0, whole, KEYS):
        _dots(keys[s : s + KEYS], q, weights[:, s:])
    _score_rest(q, keys, weights, whole)


@_inner
def _score_together(q: np.ndarray, keys: np.ndarray, weights: np.ndarray):
    """weights (TOGETHER, S) = q (TOGETHER, D) . keys (S, D): the same as `_score`, in less time, as
    each key is read once."""
    whole, n = len(keys) - len(keys) % KEYS, KEYS // TOGETHER
    for s in range(0, whole, n):
        _some_dots(keys[s : s + n], q, weights[:, s:])
    _score_rest(q, keys, weights, whole)


@_inner
def _score_rest(q: np.ndarray, keys: np.ndarray, weights: np.ndarray, whole: int):
    """What is left to be done of weights (R, S) = q (R, D) . keys (S, D): the keys from `whole` on,
    and of the others the last D % KEYS numbers."""
    S, D = keys.shape
    first = D - D % KEYS
    if whole == S and first == D:
        return
    for r in range(len(q)):
        for s in range(S):
            if s >= whole:
                weights[r, s] = np.float32(0)
            for i in range(first if s < whole else 0, D):
                weights[r, s] += q[r, i] * keys[s, i]


@_inner
def _gather(weights: np.ndarray, values: np.ndarray, y: np.ndarray):
    """y (1, D) += weights (1, S) . values (S, D), position after position."""
    S, D = values.shape
    if not S:
        return
    i = 0
    while i + SIDE <= D:
        _side_more(values[:, i:], weights, y[:, i:])
        i += SIDE
    while i + LANES <= D:
        _more(values[:, i:], weights, y[:, i:])
        i += LANES
    _gather_rest(weights, values, y, i)


@_inner
def _gather_together(weights: np.ndarray, values: np.ndarray, y: np.ndarray):
    """y (TOGETHER, D) += weights (TOGETHER, S) . values (S, D): the same as `_gather`."""
    D, i = y.shape[1], 0
    while i + LANES <= D:
        _some_more(values[:, i:], weights, y[:, i:])
        i += LANES
    _gather_rest(weights, values, y, i)


@_inner
def _gather_rest(weights: np.ndarray, values: np.ndarray, y: np.ndarray, first: int):
    """`_gather` of what is left of a value from `first` on."""
    if first == y.shape[1]:
        return
    for r in range(len(y)):
        for s in range(len(values)):
            for i in range(first, y.shape[1]):
                y[r, i] += weights[r, s] * values[s, i]


@_inner
def _softmax(weights: np.ndarray, scale: float):
    """weights (S,) = softmax(weights * scale)"""
    largest, total = np.float32(-np.inf), np.float32(0)
    for s in range(len(weights)):
        weights[s] *= scale
        largest = max(largest, weights[s])
    for s in range(len(weights)):
        weights[s] = exp(weights[s] - largest)
        total += weights[s]
    for s in range(len(weights)):
        weights[s] /= total


@_inner
def _activate(up: np.ndarray, gate: np.ndarray, activation: int):
    """The non-linearity, (R, WIDTH), in `up`."""
    for r in range(len(up)):
        u, g = up[r], gate[r]
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
    """What a step reads, int64 (R,) each; rows of one text in the order of their positions. Of
    several steps, room for one after the other."""

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


class Own(NamedTuple):
    """What each thread finds in a piece before it counts, fp32. There is one row more of each than
    is needed: so no line of the caches is written by two threads."""

    found: np.ndarray
    """(threads, R, WIDTH)"""
    gate: np.ndarray
    y: np.ndarray
    """(threads, TOGETHER, D)"""
    weights: np.ndarray
    """(threads, TOGETHER, context), of what these rows look at."""
    x: np.ndarray
    """(threads, CHUNK, C), as of `Scratch`, of a few rows."""
    h: np.ndarray
    q: np.ndarray
    """(threads, CHUNK, H * D)"""
    k: np.ndarray
    """(threads, CHUNK, K * D)"""


def scratch(w: Weights, rows: int, threads: int, context: int) -> tuple[Scratch, Own]:
    C, mlp = w.tok_emb.shape[1], w.down.weight.shape[2]
    q, k = w.n_head * w.head_size, w.n_kv_head * w.head_size
    of_rows = [(rows, width) for width in (C, C, q, k, k, q, mlp)]
    of_threads = [(rows, WIDTH), (rows, WIDTH), (TOGETHER, w.head_size), (TOGETHER, context)]
    of_threads += [(CHUNK, width) for width in (C, C, q, k)]
    return (
        Scratch(*(np.empty(shape, np.float32) for shape in of_rows)),
        Own(*(np.empty((threads, 1 + n, width), np.float32) for n, width in of_threads)),
    )


class Turn(NamedTuple):
    """Where a thread is, and its room."""

    own: Own
    """Without the axis of threads."""
    place: Place
    phase: int


BETWEEN, EVERY_LAYER = 3, 8
"""Phases of a step besides those of its layers, and of a layer."""


def team_of(n: int, w: Weights, onward: Onward) -> list[Team]:
    """The places of n threads that take these steps together."""
    return team((1 + onward.steps) * (BETWEEN + EVERY_LAYER * len(w.q.weight)), n)


@_inner
def _some(piece: int, rows: Rows):
    """The rows of a piece of at most CHUNK."""
    return piece * CHUNK, min((piece + 1) * CHUNK, len(rows.tokens))


@_inner
def _begin(norm: Norm, layer: int, w: Weights, s: Scratch, turn: Turn, a: int, b: int):
    """Rows a ... b - 1 of the residual stream are this thread's now, and what `norm` makes of them
    is read next."""
    _normalize(turn.own.x[: b - a], norm, layer, w, turn.own.h)
    if first(turn.place, turn.phase):
        for r in range(a, b):
            _copy(turn.own.x[r - a], s.x[r])
            _copy(turn.own.h[r - a], s.h[r])


@_inner
def _embed(w: Weights, rows: Rows, piece: int, s: Scratch, turn: Turn):
    """The residual stream of a piece of the rows as it begins, and what the first layer reads."""
    a, b = _some(piece, rows)
    for r in range(a, b):
        _copy(w.tok_emb[rows.tokens[r]], turn.own.x[r - a])
        if len(w.pos_emb):
            _add(w.pos_emb[rows.positions[r]], turn.own.x[r - a])
    _begin(w.attn_norm, FIRST, w, s, turn, a, b)


@_inner
def _share(m: Matrix, layer: int, piece: int, x: np.ndarray, y: np.ndarray, turn: Turn):
    """A piece of y (R, O), of a linear layer of x (R, C)."""
    _linear(m, layer, piece, x, turn.own.found)
    if first(turn.place, turn.phase):
        _write(turn.own.found, piece, y)


@_inner
def _project(w: Weights, layer: int, piece: int, s: Scratch, turn: Turn):
    """A piece of the queries, keys and values."""
    n_q, n_k = _pieces(w.q), _pieces(w.k)
    if piece < n_q:
        _share(w.q, layer, piece, s.h, s.q, turn)
    elif piece < n_q + n_k:
        _share(w.k, layer, piece - n_q, s.h, s.k, turn)
    else:
        _share(w.v, layer, piece - n_q - n_k, s.h, s.v, turn)


@_inner
def _keep(w: Weights, rows: Rows, cache: Cache, layer: int, piece: int, s: Scratch, turn: Turn):
    """Queries and keys of a piece of the rows as heads compare them; keys and values are kept."""
    a, b = _some(piece, rows)
    D = w.head_size
    for r in range(a, b):
        _copy(s.q[r], turn.own.q[r - a])
        _copy(s.k[r], turn.own.k[r - a])
    _prepare_heads(turn.own.q[: b - a], w.q_norm, layer, rows.positions[a:b], w)
    _prepare_heads(turn.own.k[: b - a], w.k_norm, layer, rows.positions[a:b], w)
    if not first(turn.place, turn.phase):
        return
    for r in range(a, b):
        _copy(turn.own.q[r - a], s.q[r])
        slot, position = rows.slots[r], rows.positions[r]
        for n in range(w.n_kv_head):
            _copy(turn.own.k[r - a, n * D : (n + 1) * D], cache.k[layer, n, slot, position])
            _copy(s.v[r, n * D : (n + 1) * D], cache.v[layer, n, slot, position])


@_inner
def _common(rows: Rows, a: int, b: int):
    """A slot, and how many of its first keys rows a ... b - 1 are to be compared with: all that any
    of them sees where they are of one text, those of their source where they share that; none if
    they are fewer than TOGETHER."""
    slot, source = rows.slots[a], rows.sources[b - 1]
    one_text, n = b - a == TOGETHER, rows.positions[a] + 1 if b - a == TOGETHER else 0
    for r in range(a, b):
        one_text = one_text and rows.slots[r] == slot
        n = min(n, rows.positions[r] + 1)
        if rows.slots[r] != source:
            n = min(n, rows.same[r] if rows.sources[r] == source else 0)
    if one_text:
        return slot, rows.positions[b - 1] + 1
    return source, n // KEYS * KEYS


@_inner
def _held(rows: Rows, r: int, begun: int) -> int:
    """Up to where a row's keys are read in its source, the first `begun` being done: a multiple of
    KEYS from there on."""
    return max(begun, min(rows.same[r], rows.positions[r] + 1) // KEYS * KEYS)


@_inner
def _whole(n: int, context: int) -> int:
    """n keys and those after them up to a multiple of KEYS, if there is room for so many."""
    return min((n + KEYS - 1) // KEYS * KEYS, context)


@_inner
def _look(
    w: Weights,
    rows: Rows,
    cache: Cache,
    layer: int,
    piece: int,
    attention: np.ndarray,
    s: Scratch,
    turn: Turn,
):
    """What one head of a few rows finds: softmax(q . keys / sqrt(D)) . values.

    The score of a key is summed by `dots` if it is one of the first context // KEYS * KEYS, and by
    a loop otherwise, whoever looks and in whichever slot it is. So keys are scored up to a multiple
    of KEYS, and the last of them may be nobody's yet.
    """
    groups = (len(rows.tokens) + TOGETHER - 1) // TOGETHER
    n, a = piece // groups, piece % groups * TOGETHER
    b = min(a + TOGETHER, len(rows.tokens))
    D, n_kv, context = w.head_size, n * w.n_kv_head // w.n_head, turn.own.weights.shape[1]
    keys, values = cache.k[layer, n_kv], cache.v[layer, n_kv]  # (slots, context, D)
    q, y, weights = s.q[a:b, n * D : (n + 1) * D], turn.own.y[: b - a], turn.own.weights
    slot, common = _common(rows, a, b)
    if common:
        end = _whole(common, context)
        _score_together(q, keys[slot, :end], weights[:, :end])
    for r in range(a, b):
        i, seen = r - a, rows.positions[r] + 1
        if seen > common:
            one, held, end = weights[i : i + 1], _held(rows, r, common), _whole(seen, context)
            _score(q[i : i + 1], keys[rows.sources[r], common:held], one[:, common:held])
            _score(q[i : i + 1], keys[rows.slots[r], held:end], one[:, held:end])
        _softmax(weights[i, :seen], np.float32(1) / np.sqrt(np.float32(D)))
        for k in range(D):
            y[i, k] = np.float32(0)
    begun = min(common, rows.positions[a] + 1)  # what all of them see
    if begun:
        _gather_together(weights[:, :begun], values[slot, :begun], y)
    for r in range(a, b):
        i, seen = r - a, rows.positions[r] + 1
        one, held = weights[i : i + 1], _held(rows, r, begun)
        _gather(one[:, begun:held], values[rows.sources[r], begun:held], y[i : i + 1])
        _gather(one[:, held:seen], values[rows.slots[r], held:seen], y[i : i + 1])
    if first(turn.place, turn.phase):
        untold = len(rows.tokens) - len(attention)
        for r in range(a, b):
            _copy(y[r - a], s.y[r, n * D : (n + 1) * D])
            if r >= untold:
                seen = rows.positions[r] + 1
                _copy(weights[r - a, :seen], attention[r - untold, layer, n])


@_inner
def _widen(w: Weights, layer: int, piece: int, s: Scratch, turn: Turn):
    """A piece of the columns between the two halves of an MLP."""
    R = len(s.h)
    _linear(w.up, layer, piece, s.h, turn.own.found)
    if w.activation == 2:
        _linear(w.gate, layer, piece, s.h, turn.own.gate)
    _activate(turn.own.found[:R], turn.own.gate[:R], w.activation)
    if first(turn.place, turn.phase):
        _write(turn.own.found, piece, s.up)


@_inner
def _add_and_normalize(
    rows: Rows, piece: int, norm: Norm, layer: int, w: Weights, s: Scratch, turn: Turn
):
    """Adds what half a block found to the residual stream, for what reads it next."""
    a, b = _some(piece, rows)
    for r in range(a, b):
        _copy(s.x[r], turn.own.x[r - a])
        _add(s.h[r], turn.own.x[r - a])
    _begin(norm, layer, w, s, turn, a, b)


@_inner
def _rows(rows: Rows, start: int, end: int):
    return Rows(
        rows.tokens[start:end],
        rows.slots[start:end],
        rows.positions[start:end],
        rows.sources[start:end],
        rows.same[start:end],
    )


@_inner
def _room(s: Scratch, start: int, end: int):
    return Scratch(
        s.x[start:end],
        s.h[start:end],
        s.q[start:end],
        s.k[start:end],
        s.v[start:end],
        s.y[start:end],
        s.up[start:end],
    )


@_inner
def _own(own: Own, me: int):
    return Own(
        own.found[me],
        own.gate[me],
        own.y[me],
        own.weights[me],
        own.x[me],
        own.h[me],
        own.q[me],
        own.k[me],
    )


@partial(compiled, allocates=False)
def step(
    w: Weights,
    rows: Rows,
    cache: Cache,
    attention: np.ndarray,
    logits: np.ndarray,
    s: Scratch,
    own: Own,
    onward: Onward,
    team: Team,
):
    """Reads R tokens into the cache; writes the logits (N, V) of what follows the last N of them.
    Without any it stops once the last layer has its keys and values. Several threads may call it
    with the same arguments, but for `team`: they share the work, phase after phase.

    attention: fp32 (N, L, H, S), of the same rows, filled up to each one's position; (0, ...) to
        leave it out.
    onward: of a text that goes on alone. Then these are as many steps as it says, each of the token
        before and of guesses after it; rows are room for them, (steps * most rows of one), and
        logits and attention belong to the tokens that are drawn, (room, ...).
    """
    n_layer, mine = len(w.q.weight), _own(own, team.place.me)
    for k in range(onward.steps + 1):
        at, phase = later(team.place, k * (BETWEEN + EVERY_LAYER * n_layer)), FIRST
        drawn, start, R, N = FIRST, FIRST, len(rows.tokens), len(logits)
        if onward.steps:
            for _ in pieces(at, phase, 1, 0):
                choose(k, onward, rows, logits, cache.k.shape[3])
            drawn, start, R = onward.plan[0, k], k * (R // onward.steps), onward.plan[1, k]
            N = R
            if not R:
                return
        r, t = _rows(rows, start, start + R), _room(s, FIRST, R)
        told, asked = attention[drawn : drawn + N], logits[drawn : drawn + N]
        chunks, groups = (R + CHUNK - 1) // CHUNK, (R + TOGETHER - 1) // TOGETHER
        patience = PATIENCE + A_ROW * R
        phase += 1
        for piece in pieces(at, phase, chunks, patience):
            _embed(w, r, piece, t, Turn(mine, at, phase))
        for layer in range(n_layer):
            phase += 1
            for piece in pieces(at, phase, _pieces(w.q) + 2 * _pieces(w.k), patience):
                _project(w, layer, piece, t, Turn(mine, at, phase))
            phase += 1
            for piece in pieces(at, phase, chunks, patience):
                _keep(w, r, cache, layer, piece, t, Turn(mine, at, phase))
            if layer == n_layer - 1:  # from here on only of what is asked
                if not N:
                    return
                r, t = _rows(r, R - N, R), _room(t, R - N, R)
                chunks, groups = (N + CHUNK - 1) // CHUNK, (N + TOGETHER - 1) // TOGETHER
            phase += 1
            for piece in pieces(at, phase, groups * w.n_head, patience):
                _look(w, r, cache, layer, piece, told, t, Turn(mine, at, phase))
            phase += 1
            for piece in pieces(at, phase, _pieces(w.out), patience):
                _share(w.out, layer, piece, t.y, t.h, Turn(mine, at, phase))
            phase += 1
            for piece in pieces(at, phase, chunks, patience):
                _add_and_normalize(r, piece, w.mlp_norm, layer, w, t, Turn(mine, at, phase))
            phase += 1
            for piece in pieces(at, phase, _pieces(w.up), patience):
                _widen(w, layer, piece, t, Turn(mine, at, phase))
            phase += 1
            for piece in pieces(at, phase, _pieces(w.down), patience):
                _share(w.down, layer, piece, t.up, t.h, Turn(mine, at, phase))
            phase += 1
            for piece in pieces(at, phase, chunks, patience):
                if layer < n_layer - 1:
                    n = layer + 1
                    _add_and_normalize(r, piece, w.attn_norm, n, w, t, Turn(mine, at, phase))
                else:
                    _add_and_normalize(r, piece, w.norm, FIRST, w, t, Turn(mine, at, phase))
        phase += 1
        for piece in pieces(at, phase, _pieces(w.head), patience):
            _share(w.head, FIRST, piece, t.h, asked, Turn(mine, at, phase))


def ready(weights: Weights) -> bool:
    """Whether `step` needs no compiling any more for such weights."""
    return at_hand(step, typeof(weights))
