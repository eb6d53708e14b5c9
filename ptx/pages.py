"""Memory for what a CPU reads from end to end at every step: weights, keys and values.

It lies in large pages where the system has them, 2 MB instead of 4 KB. To find the next page takes
about as long as to read one of 4 KB, in a virtual machine longer. numpy asks for large ones from
4 MB on; torch does not ask.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import DTypeLike

LINE = 64
"""Bytes that a core takes from memory at a time; a vector that begins within one takes two."""


def zeros(shape: Sequence[int], dtype: DTypeLike = np.uint8) -> np.ndarray:
    """As numpy's, from the start of a line."""
    n = math.prod(shape) * np.dtype(dtype).itemsize
    memory = np.zeros(n + LINE, np.uint8)
    start = -memory.ctypes.data % LINE
    return memory[start : start + n].view(dtype).reshape(shape)


def together(arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Copies in one memory, where together they may be large enough for large pages."""
    sizes = [-(-array.nbytes // LINE) * LINE for array in arrays]
    memory, start, copies = zeros([sum(sizes)]), 0, []
    for array, size in zip(arrays, sizes, strict=True):
        copy = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
        copy[...] = array
        copies.append(copy)
        start += size
    return copies
