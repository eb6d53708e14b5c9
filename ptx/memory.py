"""Memory for what a CPU reads from end to end at every step: weights, keys and values.

It lies in large pages where the system has them, 2 MB instead of 4 KB. In a virtual machine a core
reads half as fast again from them.
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from contextlib import suppress

import numpy as np

LINE = 64
"""Bytes that a core takes from memory at a time; a vector that begins within one takes two."""
PAGE = 2 << 20
"""Bytes of a large page."""
ADVICE: int | None = getattr(mmap, "MADV_HUGEPAGE", None)
"""How Linux is asked for large pages."""


def zeros(n: int) -> np.ndarray:
    """So many bytes, from the start of a line."""
    if ADVICE is None or n < 2 * PAGE:
        return _from_start(np.zeros(n + LINE, np.uint8), LINE, n)
    # numpy asks for large pages too, but C's allocator may give it what was in small ones before.
    private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    try:
        pages = mmap.mmap(-1, (-(-n // PAGE) + 1) * PAGE, flags=private)
    except OSError as error:  # as numpy says it
        raise MemoryError(f"{n:,} bytes of memory are not to be had") from error
    with suppress(OSError):  # a system built without them
        pages.madvise(ADVICE)
    return _from_start(np.frombuffer(pages, np.uint8), PAGE, n)


def _from_start(memory: np.ndarray, of: int, n: int) -> np.ndarray:
    start = -memory.ctypes.data % of
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
