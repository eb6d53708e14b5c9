"""A decoding step on a CPU as one compiled function.

Reading one token takes 20 small operations a layer. torch spends longer on starting each than on
its arithmetic, and its products of one row run at an eighth of the memory's speed. Here numba
compiles the whole step through LLVM: no C++ compiler, no dispatch, each weight read once, for all
rows together. Weights stay as small as they can without changing (bf16 if nothing is lost), or
become int8 on request; sums are fp32.

A row's sums are taken in the same order whatever rows come with it: a text does not depend on
the company it is decoded in.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import llvmlite.binding
import numpy as np
import torch
from llvmlite import ir
from numba import njit, typeof, types
from numba.extending import intrinsic, overload
from torch import Tensor

from ptx.int8 import int8_values
from ptx.model import GPT

FAST = {"reassoc", "contract", "nsz", "arcp"}
"""Lets sums run in vector lanes; infinities and NaN keep their meaning."""
# A loop's sums in one vector each, not in as many as LLVM thinks best: so that a row's products add
# up in the same order whether it is alone or one of four.
llvmlite.binding.set_option("", "-force-vector-interleave=1")
ACTIVATIONS = ("relu", "gelu", "swiglu")


class Matrix(NamedTuple):
    """Linear layers of one kind, all layers together."""

    weight: np.ndarray
    """(L, O, C): float32, uint16 (bits of bf16) or int8."""
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
    return Weights(
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


def _fp32(tensor: Tensor) -> np.ndarray:
    return tensor.detach().float().contiguous().numpy()


def _norm(norms: list[torch.nn.Module]) -> Norm:
    gain = torch.stack([n.weight for n in norms])
    biases = [getattr(n, "bias", None) for n in norms]
    bias = torch.zeros_like(gain) if biases[0] is None else torch.stack(biases)
    return Norm(_fp32(gain), _fp32(bias))


def _matrix(linears: list[torch.nn.Linear]) -> Matrix:
    weight = torch.stack([linear.weight.detach().float() for linear in linears])  # (L, O, C)
    if weight.shape[-1] % 2:
        raise ValueError("the compiled step takes even widths only")
    bias = weight.new_zeros(weight.shape[:2])
    if linears[0].bias is not None:
        bias = torch.stack([linear.bias for linear in linears])
    ones = torch.ones_like(bias)
    if hasattr(linears[0], "int8_scale"):
        scale = torch.stack([linear.int8_scale for linear in linears])
        return Matrix(int8_values(weight, scale).numpy(), _fp32(scale), _fp32(bias))
    small = weight.bfloat16()
    if torch.equal(small.float(), weight):  # nothing is lost
        return Matrix(small.view(torch.uint16).numpy(), _fp32(ones), _fp32(bias))
    return Matrix(weight.numpy(), _fp32(ones), _fp32(bias))


@intrinsic
def _from_bf16(_context: Any, bits: Any) -> Any:
    """The fp32 number whose upper half are these 16 bits."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        wide = builder.zext(arguments[0], ir.IntType(32))
        return builder.bitcast(builder.shl(wide, ir.Constant(ir.IntType(32), 16)), ir.FloatType())

    return types.float32(types.uint16), generate


def _widen(weight):  # numba compares names and annotations with those of the overloads
    """A weight of any kind as fp32, before its scale."""
    raise NotImplementedError


@overload(_widen)
def _widen_any(weight):
    if weight == types.uint16:
        return lambda weight: _from_bf16(weight)
    return lambda weight: np.float32(weight)


def _compiled(function: Any) -> Any:
    """Compiled on its first call; kept for later processes where there is a place to keep it."""
    compile = partial(njit, fastmath=FAST, error_model="numpy", nogil=True)
    try:
        return compile(cache=True)(function)
    except RuntimeError:  # nowhere to write
        return compile()(function)


@_compiled
def _linear(weight: np.ndarray, scale: np.ndarray, bias: np.ndarray, x: np.ndarray, y: np.ndarray):
    """y (R, O) = x (R, C) @ weight.T * scale + bias, C even.

    Each weight row is read once, one after the other, which is how memory is fastest, and widened
    once for four rows. A product is two sums, one a half: two so that one addition need not wait
    for the other; no more, for four rows take as many registers as there are.
    """
    n_rows, half = x.shape[0], x.shape[1] // 2
    for o in range(len(weight)):
        w1, w2 = weight[o, :half], weight[o, half:]
        r = 0
        while r + 4 <= n_rows:
            p1, q1, s1, t1 = x[r, :half], x[r + 1, :half], x[r + 2, :half], x[r + 3, :half]
            p2, q2, s2, t2 = x[r, half:], x[r + 1, half:], x[r + 2, half:], x[r + 3, half:]
            a = b = c = d = e = f = g = h = np.float32(0)
            for i in range(half):
                v, u = _widen(w1[i]), _widen(w2[i])
                a += v * p1[i]
                b += u * p2[i]
                c += v * q1[i]
                d += u * q2[i]
                e += v * s1[i]
                f += u * s2[i]
                g += v * t1[i]
                h += u * t2[i]
            y[r, o] = (a + b) * scale[o] + bias[o]
            y[r + 1, o] = (c + d) * scale[o] + bias[o]
            y[r + 2, o] = (e + f) * scale[o] + bias[o]
            y[r + 3, o] = (g + h) * scale[o] + bias[o]
            r += 4
        while r < n_rows:
            p1, p2 = x[r, :half], x[r, half:]
            a = b = np.float32(0)
            for i in range(half):
                a += _widen(w1[i]) * p1[i]
                b += _widen(w2[i]) * p2[i]
            y[r, o] = (a + b) * scale[o] + bias[o]
            r += 1


@_compiled
def _normalize(x: np.ndarray, gain: np.ndarray, bias: np.ndarray, w: Weights, y: np.ndarray):
    """y (R, C) = RMSNorm or LayerNorm of x (R, C)."""
    n = np.float32(x.shape[1])
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


@_compiled
def _prepare_heads(x: np.ndarray, norm: Norm, layer: int, positions: np.ndarray, w: Weights):
    """Normalizes and rotates the heads in x (R, heads * D), in place."""
    D = w.head_size
    half = D // 2
    for r in range(len(x)):
        heads = x[r].reshape(-1, D)
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


@_compiled
def _attend(
    q: np.ndarray, keys: np.ndarray, values: np.ndarray, weights: np.ndarray, y: np.ndarray
):
    """One head of one row: y (D,) = softmax(q . keys / sqrt(D)) . values; keys, values (S, D).

    Leaves the softmax in weights (S,)."""
    S, D = keys.shape
    largest = np.float32(-np.inf)
    for s in range(S):
        score = np.float32(0)
        for i in range(D):
            score += q[i] * keys[s, i]
        score *= np.float32(1) / np.sqrt(np.float32(D))
        weights[s] = score
        largest = max(largest, score)
    total = np.float32(0)
    for s in range(S):
        weights[s] = np.exp(weights[s] - largest)
        total += weights[s]
    y[:] = np.float32(0)
    for s in range(S):
        weights[s] /= total
        for i in range(D):
            y[i] += weights[s] * values[s, i]


@_compiled
def _activate(up: np.ndarray, gate: np.ndarray, activation: int):
    """The non-linearity of (R, d_mlp), in `up`."""
    for r in range(len(up)):
        for i in range(up.shape[1]):
            u = up[r, i]
            if activation == 2:  # SwiGLU
                g = gate[r, i]
                up[r, i] = u * g / (np.float32(1) + np.exp(-g))
            elif activation == 1:  # GPT-2's "gelu_new"
                inner = np.float32(0.7978845608028654) * (u + np.float32(0.044715) * u * u * u)
                up[r, i] = np.float32(0.5) * u * (np.float32(1) + np.tanh(inner))
            else:
                up[r, i] = max(u, np.float32(0))


@_compiled
def step(
    w: Weights,
    tokens: np.ndarray,
    slots: np.ndarray,
    positions: np.ndarray,
    cache_k: np.ndarray,
    cache_v: np.ndarray,
    attention: np.ndarray,
    logits: np.ndarray,
):
    """Reads R tokens; writes the logits (R, V) of what follows each.

    tokens, slots, positions: int64 (R,). Row r reads tokens[r] at positions[r] of the text in
        slots[r]; rows of one text come in the order of their positions.
    cache_k, cache_v: fp32 (L, K, slots, context, D), extended by this call.
    attention: fp32 (R, L, H, context), filled up to each row's position; (0, ...) to leave it out.
    """
    R, C, D = len(tokens), w.tok_emb.shape[1], w.head_size
    group = w.n_head // w.n_kv_head
    x, h = np.empty((R, C), np.float32), np.empty((R, C), np.float32)
    q = np.empty((R, w.n_head * D), np.float32)
    y = np.empty((R, w.n_head * D), np.float32)
    k = np.empty((R, w.n_kv_head * D), np.float32)
    v = np.empty((R, w.n_kv_head * D), np.float32)
    up = np.empty((R, w.up.weight.shape[1]), np.float32)
    gate = np.empty((R, w.up.weight.shape[1]), np.float32)
    row_weights = np.empty(cache_k.shape[3], np.float32)
    for r in range(R):
        x[r] = w.tok_emb[tokens[r]]
        if len(w.pos_emb):
            x[r] += w.pos_emb[positions[r]]
    for layer in range(len(w.q.weight)):
        _normalize(x, w.attn_norm.gain[layer], w.attn_norm.bias[layer], w, h)
        _linear(w.q.weight[layer], w.q.scale[layer], w.q.bias[layer], h, q)
        _linear(w.k.weight[layer], w.k.scale[layer], w.k.bias[layer], h, k)
        _linear(w.v.weight[layer], w.v.scale[layer], w.v.bias[layer], h, v)
        _prepare_heads(q, w.q_norm, layer, positions, w)
        _prepare_heads(k, w.k_norm, layer, positions, w)
        for r in range(R):
            for n in range(w.n_kv_head):
                cache_k[layer, n, slots[r], positions[r]] = k[r, n * D : (n + 1) * D]
                cache_v[layer, n, slots[r], positions[r]] = v[r, n * D : (n + 1) * D]
        for r in range(R):
            seen = positions[r] + 1
            for n in range(w.n_head):
                keys = cache_k[layer, n // group, slots[r], :seen]
                values = cache_v[layer, n // group, slots[r], :seen]
                weights = row_weights[:seen]
                _attend(q[r, n * D : (n + 1) * D], keys, values, weights, y[r, n * D : (n + 1) * D])
                if len(attention):
                    attention[r, layer, n, :seen] = weights
        _linear(w.out.weight[layer], w.out.scale[layer], w.out.bias[layer], y, h)
        x += h
        _normalize(x, w.mlp_norm.gain[layer], w.mlp_norm.bias[layer], w, h)
        _linear(w.up.weight[layer], w.up.scale[layer], w.up.bias[layer], h, up)
        if w.activation == 2:
            _linear(w.gate.weight[layer], w.gate.scale[layer], w.gate.bias[layer], h, gate)
        _activate(up, gate, w.activation)
        _linear(w.down.weight[layer], w.down.scale[layer], w.down.bias[layer], up, h)
        x += h
    _normalize(x, w.norm.gain[0], w.norm.bias[0], w, h)
    _linear(w.head.weight[0], w.head.scale[0], w.head.bias[0], h, logits)


def compiled_before(weights: Weights) -> bool:
    """Whether numba kept `step` for such weights, and for this version of it, on the disk."""
    index = step._cache._cache_file._load_index()
    return any(signature[0] == typeof(weights) for signature, *_ in index)
