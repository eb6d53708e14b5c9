"""Products of a few rows with a weight matrix on a CPU: the innermost loop, in LLVM's own terms.

A tile of sums (rows x outputs) stays in vector registers while the loop runs over the inputs: each
weight is loaded and widened once for all rows of the tile, and no sum has to be gathered from
lanes at the end. LLVM does not find this by itself in a loop that numba compiles.

Every sum is taken input after input, in one fp32 number: it is the same, bit for bit, in a tile of
any size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import llvmlite.binding
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

WIDE = llvmlite.binding.get_host_cpu_features().get("avx512f", False)
"""Whether there are 32 registers of 16 numbers, instead of 16 of 8 or fewer."""
LANES = 32 if WIDE else 16
"""Outputs that are summed side by side."""
MOST_ROWS = 8 if WIDE else 6
"""Of a tile. With its sums, weights and inputs it fits the registers of AVX-512, AVX2 and NEON."""
KEYS = LANES // 2
"""Rows, and lanes, of `row_sums`."""
BLOCKS = 4
"""Groups of LANES outputs in a tile of one row: sums enough that none waits for its last
addition."""


def packed(weight: np.ndarray) -> np.ndarray:
    """(L, O, C) as the tiles read it: (L, ceil(O / LANES), C, LANES), zeros in what is left."""
    n_layer, n_out, n_in = weight.shape
    padded = np.zeros((n_layer, -(-n_out // LANES) * LANES, n_in), weight.dtype)
    padded[:, :n_out] = weight
    blocks = padded.reshape(n_layer, -1, LANES, n_in)  # (L, O / LANES, LANES, C)
    return np.ascontiguousarray(blocks.transpose(0, 1, 3, 2))  # (L, O / LANES, C, LANES)


def tile(rows: int, blocks: int, onto: bool = False) -> Callable[..., None]:
    """A function for numba's code: tile(weight, x, y).

    weight: (blocks, C, LANES) or (C, blocks * LANES) of float32, uint16 (bits of bf16) or int8, its
        last axis contiguous.
    x: (rows, C) fp32, contiguous.
    y: at least rows * blocks * LANES fp32, which receives the products (rows, blocks, LANES); with
        `onto` the sums go on from what is there, as if what led to it had been part of this.
    """

    @intrinsic
    def multiply(_context: Any, weight: Any, x: Any, y: Any) -> Any:
        return types.void(weight, x, y), generate

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        weight, x, y = (
            context.make_array(kind)(context, builder, value)
            for kind, value in zip(signature.args, arguments, strict=True)
        )
        axes = signature.args[0].ndim
        n_in = builder.extract_value(weight.shape, axes - 2)
        strides = [  # in weights
            builder.sdiv(builder.extract_value(weight.strides, i), weight.itemsize)
            for i in range(axes)
        ]
        next_block = strides[0] if axes == 3 else n_in.type(LANES)
        sums = ir.VectorType(ir.FloatType(), LANES)
        places = [
            builder.bitcast(builder.gep(y.data, [n_in.type(number * LANES)]), sums.as_pointer())
            for number in range(rows * blocks)
        ]
        nothing = [sums([0.0] * LANES)] * len(places)
        first = [builder.load(place, align=4) for place in places] if onto else nothing
        before, loop = builder.block, builder.append_basic_block("inputs")
        builder.branch(loop)
        builder.position_at_end(loop)
        i = builder.phi(n_in.type)
        old = [builder.phi(sums) for _ in range(rows * blocks)]
        weights = [
            _load_weights(
                builder,
                weight.data,
                _sum(builder, (n_in.type(b), next_block), (i, strides[axes - 2])),
            )
            for b in range(blocks)
        ]
        new = []
        for r in range(rows):
            place = _sum(builder, (n_in.type(r), n_in), (i, n_in.type(1)))
            values = _in_all_lanes(builder, builder.load(builder.gep(x.data, [place])))
            for b in range(blocks):
                product = builder.fmul(weights[b], values, flags=("contract",))
                new.append(builder.fadd(old[len(new)], product, flags=("contract",)))
        following = builder.add(i, n_in.type(1))
        i.add_incoming(n_in.type(0), before)
        i.add_incoming(following, loop)
        for was, begins, becomes in zip(old, first, new, strict=True):
            was.add_incoming(begins, before)
            was.add_incoming(becomes, loop)
        after = builder.append_basic_block("store")
        builder.cbranch(builder.icmp_signed("<", following, n_in), loop, after)
        builder.position_at_end(after)
        for place, value in zip(places, new, strict=True):
            builder.store(value, place, align=4)
        return context.get_dummy_value()

    return multiply


def dots(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
    """For `row_sums`."""
    rows, x, y = (
        context.make_array(kind)(context, builder, value)
        for kind, value in zip(signature.args, arguments, strict=True)
    )
    n = builder.extract_value(x.shape, 0)
    number, lanes = n.type, ir.VectorType(ir.FloatType(), KEYS)

    def load(data: Any, index: Any) -> Any:
        return builder.load(
            builder.bitcast(builder.gep(data, [index]), lanes.as_pointer()), align=4
        )

    before, loop = builder.block, builder.append_basic_block("inputs")
    body, after = builder.append_basic_block("sums"), builder.append_basic_block("together")
    builder.branch(loop)
    builder.position_at_end(loop)
    i = builder.phi(number)
    sums = [builder.phi(lanes) for _ in range(KEYS)]
    following = builder.add(i, number(KEYS))
    builder.cbranch(builder.icmp_signed("<=", following, n), body, after)
    builder.position_at_end(body)
    some = load(x.data, i)
    i.add_incoming(number(0), before)
    i.add_incoming(following, body)
    for r, total in enumerate(sums):
        product = builder.fmul(
            load(rows.data, _sum(builder, (number(r), n), (i, number(1)))),
            some,
            flags=("contract",),
        )
        total.add_incoming(lanes([0.0] * KEYS), before)
        total.add_incoming(builder.fadd(total, product, flags=("contract",)), body)
    builder.branch(loop)
    builder.position_at_end(after)
    builder.store(
        _sums_of_lanes(builder, sums), builder.bitcast(y.data, lanes.as_pointer()), align=4
    )
    return context.get_dummy_value()


@intrinsic
def row_sums(_context: Any, rows: Any, x: Any, y: Any) -> Any:
    """The products y (KEYS,) of rows (KEYS, D) with x (D,), fp32 and contiguous, but for what D is
    more than a multiple of KEYS."""
    return types.void(rows, x, y), dots


def _sums_of_lanes(builder: ir.IRBuilder, vectors: list[Any]) -> Any:
    """Lane r of the result is the sum of the lanes of vectors[r]; as many vectors as lanes."""
    n = width = len(vectors)
    while len(vectors) > 1:  # pairs share a vector; in it, sums of ever fewer lanes stand together
        half = width // 2
        low = [b for b in range(0, n, width) for b in range(b, b + half)]
        left = ir.Constant(ir.VectorType(ir.IntType(32), n), [*low, *(n + b for b in low)])
        right = ir.Constant(
            ir.VectorType(ir.IntType(32), n),
            [*(b + half for b in low), *(n + b + half for b in low)],
        )
        vectors = [
            builder.fadd(builder.shuffle_vector(a, b, left), builder.shuffle_vector(a, b, right))
            for a, b in zip(vectors[::2], vectors[1::2])
        ]
        width = half
    return vectors[0]


def _sum(builder: ir.IRBuilder, *products: tuple[Any, Any]) -> Any:
    """a * b + c * d"""
    (a, b), (c, d) = products
    return builder.add(builder.mul(a, b), builder.mul(c, d))


def _load_weights(builder: ir.IRBuilder, data: Any, index: Any) -> Any:
    """LANES weights as fp32."""
    kind = data.type.pointee
    place = builder.bitcast(builder.gep(data, [index]), ir.VectorType(kind, LANES).as_pointer())
    loaded = builder.load(place, align=1)
    sums = ir.VectorType(ir.FloatType(), LANES)
    if isinstance(kind, ir.FloatType):
        return loaded
    if kind.width == 8:
        return builder.sitofp(loaded, sums)
    # bf16: the upper half of the fp32 number
    wide = ir.VectorType(ir.IntType(32), LANES)
    return builder.bitcast(builder.shl(builder.zext(loaded, wide), wide([16] * LANES)), sums)


def _in_all_lanes(builder: ir.IRBuilder, value: Any) -> Any:
    sums, index = ir.VectorType(ir.FloatType(), LANES), ir.IntType(32)
    one = builder.insert_element(sums(ir.Undefined), value, index(0))
    first = ir.VectorType(index, LANES)([0] * LANES)
    return builder.shuffle_vector(one, sums(ir.Undefined), first)
