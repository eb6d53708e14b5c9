"""Which device, and whether bf16 is worth it there."""

from __future__ import annotations

import platform
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch

from ptx.errors import UserError


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


def pick_precision(requested: str, device: torch.device) -> str:
    """`fp32` or `bf16`; for `auto` the faster one, on a CPU by measuring."""
    if requested != "auto":
        return requested
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    if device.type == "cpu":
        return (
            "bf16" if _matmul_seconds(torch.bfloat16) < _matmul_seconds(torch.float32) else "fp32"
        )
    return "fp32"


def _matmul_seconds(dtype: torch.dtype) -> float:
    """The best of three products of the size that a small model's layer has."""
    a, b = torch.ones(1024, 256, dtype=dtype), torch.ones(256, 1024, dtype=dtype)
    times = []
    for _ in range(3):
        start = time.perf_counter()
        a @ b
        times.append(time.perf_counter() - start)
    return min(times)


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """The context to run a forward in."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def describe_machine(device: torch.device) -> str:
    """The hardware and the torch that a run trains on, in words for its card."""
    if device.type == "cuda":
        hardware = torch.cuda.get_device_name(device)
    elif device.type == "cpu":
        hardware = f"{torch.get_num_threads()} threads of {_processor()}"
    else:
        hardware = device.type
    return f"{hardware}, torch {torch.__version__}"


def _processor() -> str:
    """The CPU's name where Linux tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        return platform.machine()
