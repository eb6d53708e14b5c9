"""Products of a few rows with a weight matrix on a CPU: the innermost loop, in LLVM's own terms.

A tile of sums (rows x outputs) stays in vector registers while the loop runs over the inputs: each
weight is loaded and widened once for all rows of the tile, and no sum has to be gathered from
lanes at the end. LLVM does not find this by itself in a loop that numba compiles.

Every sum of a tile is taken input after input, in one fp32 number, and every one of `dots` in KEYS
numbers: it is the same, bit for bit, in a tile of any size.
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
"""Products of `dots`, and lanes of each."""
BLOCKS = 4
"""Groups of LANES outputs in a tile of one row: sums enough that none waits for its last
addition."""
_VECTOR = ir.VectorType(ir.FloatType(), LANES)


def padded(outputs: np.ndarray) -> np.ndarray:
    """(L, O, ...) with O a multiple of LANES, zeros in what is left."""
    n_layer, n_out, *more = outputs.shape
    wider = np.zeros((n_layer, -(-n_out // LANES) * LANES, *more), outputs.dtype)
    wider[:, :n_out] = outputs
    return wider


def packed(weight: np.ndarray) -> np.ndarray:
    """(L, O, C) as the tiles read it: (L, ceil(O / LANES), C, LANES), zeros in what is left."""
    n_layer, _, n_in = weight.shape
    blocks = padded(weight).reshape(n_layer, -1, LANES, n_in)  # (L, O / LANES, LANES, C)
    return np.ascontiguousarray(blocks.transpose(0, 1, 3, 2))  # (L, O / LANES, C, LANES)


def tile(rows: int, blocks: int) -> Callable[..., None]:
    """A function for numba's code: tile(weight, x, scale, bias, y).

    weight: (blocks, C, LANES) of float32, uint16 (bits of bf16) or int8.
    x: (rows, C) fp32.
    scale, bias: at least (blocks * LANES,) fp32.
    y: (rows, at least blocks * LANES) fp32, which receives the products times `scale` plus `bias`.
    The last axis of each is contiguous.
    """

    @intrinsic
    def multiply(_context: Any, weight: Any, x: Any, scale: Any, bias: Any, y: Any) -> Any:
        return types.void(weight, x, scale, bias, y), generate

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        weight, x, scale, bias, y = _arrays(context, builder, signature, arguments)
        nothing = [_VECTOR([0.0] * LANES)] * rows * blocks
        sums = _products(builder, weight, x, rows, blocks, nothing)
        factors, biases = (
            [_load(builder, some, _VECTOR, b * LANES) for b in range(blocks)]
            for some in (scale, bias)
        )
        for number, place in enumerate(_places(builder, y, rows, blocks)):
            b = number % blocks
            product = builder.fmul(sums[number], factors[b], flags=("contract",))
            builder.store(builder.fadd(product, biases[b], flags=("contract",)), place, align=4)
        return context.get_dummy_value()

    return multiply


def tile_onto(rows: int, blocks: int) -> Callable[..., None]:
    """A function for numba's code: tile(weight, x, y), by which the products are added to y.

    weight: (C, at least blocks * LANES) fp32; x, y as of `tile`. The sums go on from what is in y,
    as if what led to it had been part of this.
    """

    @intrinsic
    def add(_context: Any, weight: Any, x: Any, y: Any) -> Any:
        return types.void(weight, x, y), generate

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        weight, x, y = _arrays(context, builder, signature, arguments)
        places = _places(builder, y, rows, blocks)
        sums = [builder.load(place, align=4) for place in places]
        sums = _products(builder, weight, x, rows, blocks, sums)
        for place, value in zip(places, sums, strict=True):
            builder.store(value, place, align=4)
        return context.get_dummy_value()

    return add


def dots(rows: int) -> Callable[..., None]:
    """A function for numba's code: dots(keys, x, y), by which y (rows, KEYS // rows) is the product
    of x (rows, D) with keys (KEYS // rows, D), all fp32, the last axis contiguous. The last
    D % KEYS numbers are left out.

    A product is the same, bit for bit, whatever `rows` is.
    """
    lanes, n_keys = ir.VectorType(ir.FloatType(), KEYS), KEYS // rows

    @intrinsic
    def multiply(_context: Any, keys: Any, x: Any, y: Any) -> Any:
        return types.void(keys, x, y), generate

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        keys, x, y = _arrays(context, builder, signature, arguments)
        n = builder.extract_value(keys.shape, 1)
        number = n.type
        before, loop = builder.block, builder.append_basic_block("inputs")
        body, after = builder.append_basic_block("sums"), builder.append_basic_block("together")
        builder.branch(loop)
        builder.position_at_end(loop)
        i = builder.phi(number)
        sums = [builder.phi(lanes) for _ in range(KEYS)]
        following = builder.add(i, number(KEYS))
        builder.cbranch(builder.icmp_signed("<=", following, n), body, after)
        builder.position_at_end(body)
        i.add_incoming(number(0), before)
        i.add_incoming(following, body)
        parts = [_load(builder, x, lanes, r, i) for r in range(rows)]
        for k in range(n_keys):
            key = _load(builder, keys, lanes, k, i)
            for r, part in enumerate(parts):
                total = sums[r * n_keys + k]
                product = builder.fmul(key, part, flags=("contract",))
                total.add_incoming(lanes([0.0] * KEYS), before)
                total.add_incoming(builder.fadd(total, product, flags=("contract",)), body)
        builder.branch(loop)
        builder.position_at_end(after)
        found = _sums_of_lanes(builder, sums)
        for r in range(rows):
            some = ir.Constant(
                ir.VectorType(ir.IntType(32), n_keys), [*range(r * n_keys, (r + 1) * n_keys)]
            )
            mine = builder.shuffle_vector(found, lanes(ir.Undefined), some)
            builder.store(mine, _place(builder, y, mine.type, r, 0), align=4)
        return context.get_dummy_value()

    return multiply


def _arrays(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> list[Any]:
    return [
        context.make_array(kind)(context, builder, value)
        for kind, value in zip(signature.args, arguments, strict=True)
    ]


def _place(builder: ir.IRBuilder, array: Any, kind: Any, *index: Any) -> Any:
    """A pointer to what is of this kind at an index of numbers or LLVM's values; the last axis of
    the array is contiguous."""
    bytes_ = ir.IntType(8).as_pointer()
    element, integer = array.data.type.pointee, ir.IntType(64)
    size = 4 if isinstance(element, ir.FloatType) else element.width // 8
    strides = [builder.extract_value(array.strides, axis) for axis in range(len(index) - 1)]
    place = builder.bitcast(array.data, bytes_)
    for i, stride in zip(index, [*strides, integer(size)], strict=True):
        number = integer(i) if isinstance(i, int) else i
        place = builder.gep(place, [builder.mul(number, stride)])
    return builder.bitcast(place, kind.as_pointer())


def _load(builder: ir.IRBuilder, array: Any, kind: Any, *index: Any) -> Any:
    align = 4 if isinstance(array.data.type.pointee, ir.FloatType) else 1
    return builder.load(_place(builder, array, kind, *index), align=align)


def _places(builder: ir.IRBuilder, y: Any, rows: int, blocks: int) -> list[Any]:
    """Where the sums of a tile belong in y, row after row."""
    return [_place(builder, y, _VECTOR, r, b * LANES) for r in range(rows) for b in range(blocks)]


def _products(
    builder: ir.IRBuilder, weight: Any, x: Any, rows: int, blocks: int, first: list[Any]
) -> list[Any]:
    """The sums of a tile, row after row, which go on from `first`.

    weight: (blocks, C, LANES) or (C, blocks * LANES); x: (rows, C).
    """
    n_in = builder.extract_value(x.shape, 1)
    in_blocks = len(weight.strides.type.elements) == 3
    before, loop = builder.block, builder.append_basic_block("inputs")
    builder.branch(loop)
    builder.position_at_end(loop)
    i = builder.phi(n_in.type)
    old = [builder.phi(_VECTOR) for _ in first]
    weights = [
        _load_weights(builder, weight, *((b, i, 0) if in_blocks else (i, b * LANES)))
        for b in range(blocks)
    ]
    new = []
    for r in range(rows):
        values = _in_all_lanes(builder, _load(builder, x, ir.FloatType(), r, i))
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
    return new


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


def _load_weights(builder: ir.IRBuilder, weight: Any, *index: Any) -> Any:
    """LANES weights as fp32."""
    kind = weight.data.type.pointee
    loaded = _load(builder, weight, ir.VectorType(kind, LANES), *index)
    if isinstance(kind, ir.FloatType):
        return loaded
    if kind.width == 8:
        return builder.sitofp(loaded, _VECTOR)
    # bf16: the upper half of the fp32 number
    wide = ir.VectorType(ir.IntType(32), LANES)
    return builder.bitcast(builder.shl(builder.zext(loaded, wide), wide([16] * LANES)), _VECTOR)


def _in_all_lanes(builder: ir.IRBuilder, value: Any) -> Any:
    index = ir.IntType(32)
    one = builder.insert_element(_VECTOR(ir.Undefined), value, index(0))
    first = ir.VectorType(index, LANES)([0] * LANES)
    return builder.shuffle_vector(one, _VECTOR(ir.Undefined), first)
