"""Where training runs, and the memory it takes there."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest
import torch

from ptx.errors import UserError
from train import device

REUSE = """
import resource, sys, torch
from train.device import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    torch.ones(2**24)  # 64 MiB, freed at once
before = faults()
for _ in range(20):
    torch.ones(2**24)
print(faults() - before)
"""


def test_a_device_that_is_not_there_is_refused_with_a_remedy() -> None:
    assert device.pick_device("auto").type in {"cpu", "cuda", "mps"}
    for name in ("abacus", "cuda:99"):
        with pytest.raises(UserError, match=f"--device {name} cannot be used here"):
            device.pick_device(name)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="what glibc does")
def test_freed_memory_is_kept_and_costs_no_page_faults_again() -> None:
    def faults(way: str) -> int:
        command = [sys.executable, "-c", REUSE, way]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    assert faults("keep") < faults("give back") / 10


def test_peak_memory_is_that_of_this_process() -> None:
    peak = device.peak_memory(torch.device("cpu"))
    assert peak == pytest.approx(
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, rel=0.1
    )
