"""Memory for what a CPU reads from end to end at every step: weights, keys and values.

It lies in large pages where the system has them, 2 MB instead of 4 KB: numpy asks for them from
4 MB on, torch does not. In a virtual machine a core reads half as fast again from them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

LINE = 64
"""Bytes that a core takes from memory at a time; a vector that begins within one takes two."""


def zeros(n: int) -> np.ndarray:
    """So many bytes, from the start of a line."""
    memory = np.zeros(n + LINE, np.uint8)
    start = -memory.ctypes.data % LINE
    return memory[start : start + n]


def together(arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Copies in one memory, where together they may be large enough for large pages."""
    sizes = [-(-array.nbytes // LINE) * LINE for array in arrays]
    memory, start, copies = zeros(sum(sizes)), 0, []
    for array, size in zip(arrays, sizes, strict=True):
        copy = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
        copy[...] = array
        copies.append(copy)
        start += size
    return copies
