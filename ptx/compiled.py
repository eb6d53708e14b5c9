"""What the compiled functions share: how numba compiles and keeps them, and the exponential."""

from __future__ import annotations

import hashlib
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core.registry import cpu_target
from numba.extending import intrinsic

FAST = {"reassoc", "contract", "nsz", "arcp"}
"""Lets sums run in vector lanes; infinities and NaN keep their meaning."""

SOURCES = "compiled", "draws", "lookup", "native", "onward", "sampling", "team", "tile"
"""The modules with compiled functions, or with constants of theirs: what is kept of one holds parts
of those it calls."""


def compiled(
    function: Any, fastmath: set[str] = FAST, inner: bool = False, allocates: bool = True
) -> Any:
    """Compiled on its first call; kept for later processes where there is a place to keep it, until
    one of `SOURCES` changes.

    inner: only compiled functions call it, and Python, which would crash, must not: what it would
        need for that takes numba longer to compile than the function.
    allocates: whether it makes arrays. Otherwise numba need not count who holds the parts it takes
        of arrays, which in small functions takes an eighth of the time.
    """
    options = {"no_cpython_wrapper": inner, "_nrt": allocates}
    jit = partial(njit, fastmath=fastmath, error_model="numpy", nogil=True, **options)
    try:
        made = jit(cache=True)(function)
        if file := kept(made):
            file._source_stamp = sources()  # numba's own is of the function's file alone
        return made
    except (RuntimeError, OSError):  # nowhere to write, or no files to read
        return jit()(function)


@cache
def sources() -> str:
    """A hash of `SOURCES`."""
    here = Path(__file__).parent
    texts = [(here / f"{name}.py").read_bytes() for name in SOURCES]
    return hashlib.sha256(b"\0".join(texts)).hexdigest()


def kept(function: Any) -> Any:
    """Where numba keeps what it compiled of a function; None with nowhere to write."""
    return getattr(function._cache, "_cache_file", None)


def at_hand(function: Any, first: Any = None) -> bool:
    """Whether a compiled function needs no compiling any more: numba kept it on the disk, this
    version of it and for a processor like this one, or has it in memory.

    first: the type of its first argument, if it is called with several.
    """
    file = kept(function)
    processor = cpu_target.target_context.codegen().magic_tuple()
    index = file._load_index() if file else ()
    found = [signature for signature, made_for, _ in index if made_for == processor]
    return any(first in (None, signature[0]) for signature in [*found, *function.signatures])


@intrinsic
def float_of(_context: Any, bits: Any) -> Any:
    """The fp32 number with these 32 bits."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.int32), generate


@partial(compiled, fastmath={"contract"})
def exp(x: float):
    """e ** x within two units in the last place, for x from -87 to 88, as which it takes others.

    Unlike the C library's it runs in vector lanes. Source: Cephes' expf.
    """
    x = min(max(x, np.float32(-87)), np.float32(88))
    n = np.floor(x * np.float32(1.44269504) + np.float32(0.5))
    r = x - n * np.float32(0.693359375) + n * np.float32(2.12194440e-4)  # less n * log(2)
    p = np.float32(1.9875691500e-4)
    p = p * r + np.float32(1.3981999507e-3)
    p = p * r + np.float32(8.3334519073e-3)
    p = p * r + np.float32(4.1665795894e-2)
    p = p * r + np.float32(1.6666665459e-1)
    p = p * r + np.float32(5.0000001201e-1)
    p = p * r * r + r + np.float32(1)
    return p * float_of((np.int32(n) + np.int32(127)) << np.int32(23))
