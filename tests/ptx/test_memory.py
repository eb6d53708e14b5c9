"""Memory in large pages: what lies in it is what was put there."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from ptx.memory import LINE, PAGE, together, zeros

MAPS = Path("/proc/self/smaps")


@pytest.mark.parametrize("n", [0, 3, 1000, 20 << 20])
def test_zeros_are_zeros_from_the_start_of_a_line(n: int) -> None:
    found = zeros(n)
    assert found.nbytes == len(found) == n
    assert found.ctypes.data % LINE == 0 or not n
    assert found.flags.c_contiguous
    assert found.flags.writeable
    assert not found.any()


def test_too_much_is_a_memory_error() -> None:
    with pytest.raises(MemoryError):
        zeros(1 << 60)


def test_arrays_together_are_the_same_and_overlap_nowhere() -> None:
    rng = np.random.default_rng(0)
    arrays = [
        rng.random((3, 5), np.float32),
        rng.integers(0, 99, (7,), np.uint16),
        np.zeros((0, 4), np.float32),
        rng.integers(-9, 9, (2, 3, 4), np.int8),
    ]
    copies = together(arrays)
    for array, copy in zip(arrays, copies, strict=True):
        assert copy.dtype == array.dtype
        assert copy.ctypes.data % LINE == 0 or not copy.size
        np.testing.assert_array_equal(copy, array)
    copies[0][:] = -1
    np.testing.assert_array_equal(copies[1], arrays[1])
    np.testing.assert_array_equal(copies[3], arrays[3])


def flags_at(address: int) -> list[str]:
    """What the system is asked for about the memory at this address."""
    inside = False
    for line in MAPS.read_text().splitlines():
        if found := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            inside = int(found[1], 16) <= address < int(found[2], 16)
        elif inside and line.startswith("VmFlags:"):
            return line.split()[1:]
    return []


@pytest.mark.skipif(not MAPS.exists(), reason="a system that does not tell")
def test_what_is_large_together_begins_a_large_page_and_such_are_asked_for() -> None:
    copies = together([np.ones(1 << 18, np.float32)] * 16)  # 1 MB each
    assert copies[0].ctypes.data % PAGE == 0
    assert "hg" in flags_at(copies[0].ctypes.data)
    assert "hg" in flags_at(copies[15].ctypes.data)
