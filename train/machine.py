"""What a machine has, told without measuring."""

from __future__ import annotations

import importlib.util
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch

from train.device import GIB, peak_memory, processor
from train.kernels import compiler


@dataclass(frozen=True)
class Machine:
    """What is there, without measuring."""

    device: str
    name: str
    cores: int
    threads: int
    memory_gib: float
    """Of the GPU, or of the machine."""
    free_gib: float
    base_gib: float
    """What a process holds there before it has a model."""
    torch: str
    compiler: str | None
    """Path of the C++ compiler."""
    disk_free_gib: float
    tensorboard: bool
    gpus: int


def look(device: torch.device, runs: Path) -> Machine:
    """The facts that need no measurement."""
    free, total = memory(device)
    place = next(p for p in (runs.resolve(), *runs.resolve().parents) if p.exists())
    return Machine(
        device=str(device),
        name=torch.cuda.get_device_name(device) if device.type == "cuda" else processor(),
        cores=os.cpu_count() or 1,
        threads=torch.get_num_threads(),
        memory_gib=round(total / GIB, 2),
        free_gib=round(free / GIB, 2),
        base_gib=round(peak_memory(device) or 0.0, 2),
        torch=torch.__version__,
        compiler=compiler(),
        disk_free_gib=round(shutil.disk_usage(place).free / GIB, 2),
        tensorboard=importlib.util.find_spec("tensorboard") is not None,
        gpus=torch.accelerator.device_count(),
    )


def memory(device: torch.device) -> tuple[float, float]:
    """Free and all bytes of memory: the GPU's, or the machine's; all is free where none can say.

    A container's limit counts as the machine's size.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        sizes = {name: int(size.split()[0]) for name, size in (s.split(":") for s in lines)}
        free, total = sizes["MemAvailable"] * 1024, sizes["MemTotal"] * 1024
    except OSError:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return total, total
    limit, used = container_memory()
    return min(free, limit - used), min(total, limit)


def container_memory(root: Path = Path("/sys/fs/cgroup")) -> tuple[float, int]:
    """Bytes that this container may hold (inf without a limit) and those it holds, files aside."""
    for folder, limit, usage, cache in (
        ("", "memory.max", "memory.current", "file"),
        ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_cache"),
    ):
        try:
            largest = (root / folder / limit).read_text().strip()
            used = int((root / folder / usage).read_text())
            lines = (root / folder / "memory.stat").read_text().splitlines()
        except OSError:
            continue
        files = int(dict(line.split() for line in lines)[cache])
        return (float("inf") if largest == "max" else float(largest)), max(0, used - files)
    return float("inf"), 0
