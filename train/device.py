"""The device that training runs on, and the memory it takes there."""

from __future__ import annotations

import ctypes
import platform
import sys
from pathlib import Path

import torch

from ptx.errors import UserError

GIB = 2**30


def pick_device(name: str) -> torch.device:
    """`auto` takes CUDA, then Apple's GPU, then the CPU; anything else must exist."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"--device {name} cannot be used here ({reason}): try auto") from None
    return device


def synchronize(device: torch.device) -> None:
    """Waits until a GPU has done what it was given, so that a clock reads the truth."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def keep_freed_memory() -> bool:
    """Lets this process keep the memory it frees; False where the C library is not glibc.

    glibc gives every large tensor back to the system at once, and the next step pays for each of
    its pages anew: a tenth of a training step of `mini` on a CPU (tests/bench/kernels.py). On a
    GPU torch's own allocator keeps what is freed.
    """
    if not sys.platform.startswith("linux"):
        return False
    m_trim_threshold, m_mmap_max = -1, -4  # of malloc.h
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(m_mmap_max, 0)) and bool(mallopt(m_trim_threshold, 2**31 - 1))


def peak_memory(device: torch.device) -> float | None:
    """The most memory, in GiB, that this process held: on the GPU, or of the machine."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / GIB
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / GIB


def describe_machine(device: torch.device, processes: int) -> str:
    """The hardware and the torch that a run's processes train on, in words for its card."""
    if device.type == "cuda":
        hardware = torch.cuda.get_device_name(device)
    elif device.type == "cpu":
        threads = torch.get_num_threads()
        hardware = f"{threads} thread{'' if threads == 1 else 's'} of {processor()}"
    else:
        hardware = device.type
    times = f"{processes} × " if processes > 1 else ""
    return f"{times}{hardware}, torch {torch.__version__}"


def processor() -> str:
    """The CPU's name where Linux tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        return platform.machine()
