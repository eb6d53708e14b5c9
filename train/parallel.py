"""Many processes as one trainer, on torch's own engine: DDP, or FSDP2 with --shard.

torchrun starts the processes and tells each its rank; without it there is one. Everything here is
the identity for one process, so the loop has no second version.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from ptx.errors import UserError
from ptx.model import GPT
from train.device import pick_device

PATIENCE = timedelta(days=1)
"""How long processes wait for each other: one may be paused, or starved by other programs."""


@dataclass(frozen=True)
class World:
    """The processes that train together, as one of them sees it."""

    device: torch.device
    rank: int = 0
    size: int = 1
    shard: bool = False
    """Whether weights, gradients and optimizer are spread over the processes (FSDP2)."""

    @property
    def first(self) -> bool:
        """Whether this is the one process that prints and writes files."""
        return self.rank == 0

    def rows(self, count: int, setting: str = "--batch-size") -> slice:
        """This process's part of every batch."""
        if count % self.size:
            raise UserError(f"{setting} ({count}) must be a multiple of the {self.size} processes")
        share = count // self.size
        return slice(self.rank * share, (self.rank + 1) * share)

    def wrap(self, model: GPT) -> nn.Module:
        """What to call in training: `model` with its gradients averaged over all processes.

        With `shard`, the parameters of `model` itself become DTensors: make optimizers after this.
        """
        if self.shard:
            mesh = init_device_mesh(self.device.type, (self.size,))
            for block in model.blocks:
                fully_shard(block, mesh=mesh)
            fully_shard(model, mesh=mesh)
            # What samples and corrects calls the two halves of a forward by themselves.
            register_fsdp_forward_method(model, "hidden")
            return model
        if self.size > 1:
            return DistributedDataParallel(
                model,
                device_ids=[self.device] if self.device.type == "cuda" else None,
                forward_sync_buffers=False,  # they are constants
                gradient_as_bucket_view=True,
            )
        return model

    def sum(self, *values: float) -> list[float]:
        """The sum of each value over all processes."""
        if self.size == 1:
            return list(values)
        sums = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(sums)
        return sums.tolist()

    def any(self, flag: bool) -> bool:
        """Whether `flag` is set in any process: all get the same answer."""
        return any(self.sum(flag))

    def from_first(self, text: str | None) -> str:
        """The first process's `text`, in every process."""
        if self.size == 1:
            assert text is not None
            return text
        data = bytearray((text or "").encode())
        length = torch.tensor(len(data), device=self.device)
        dist.broadcast(length, 0)
        if not length:  # of which torch makes no tensor
            return ""
        content = torch.zeros(int(length), dtype=torch.uint8, device=self.device)
        if self.first:
            content = torch.frombuffer(data, dtype=torch.uint8).to(self.device)
        dist.broadcast(content, 0)
        return bytes(content.tolist()).decode()

    def wait(self) -> None:
        """Until every process is here."""
        if self.size > 1:
            dist.barrier()


def launched() -> bool:
    """Whether torchrun started this process, alone or among others."""
    return "WORLD_SIZE" in os.environ


@contextmanager
def world(device: str, shard: bool) -> Iterator[World]:
    """Joins the processes that torchrun started, if it did, and leaves them at the end."""
    if not launched():
        if shard:
            raise UserError(
                "--shard spreads a model over many processes: start them with "
                "`torchrun --nproc-per-node=N train/run.py --shard ...`"
            )
        yield World(pick_device(device))
        return
    place = pick_device(_local_name(device))
    if place.type == "cuda":
        torch.cuda.set_device(place)
    dist.init_process_group("nccl" if place.type == "cuda" else "gloo", timeout=PATIENCE)
    yield World(place, dist.get_rank(), dist.get_world_size(), shard)
    # Not after an error: NCCL would wait here for the others, who wait for this process, which has
    # not told its error yet. Its end lets torchrun end them.
    dist.destroy_process_group()


def _local_name(device: str) -> str:
    """`--device` for this process: its own GPU when there are GPUs; else the CPU."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return f"cuda:{os.environ['LOCAL_RANK']}" if device == "cuda" else device


@contextmanager
def accumulating(model: nn.Module, last: bool) -> Iterator[None]:
    """Backward passes in here exchange gradients only for the `last` part of a batch."""
    if isinstance(model, FSDPModule):
        model.set_requires_gradient_sync(last)
        yield
    elif isinstance(model, DistributedDataParallel) and not last:
        with model.no_sync():
            yield
    else:
        yield


def reshard(model: nn.Module) -> None:
    """After a forward FSDP2 leaves the outermost weights gathered: spreads them again, so that the
    model's parameters are those that its optimizers hold."""
    if isinstance(model, FSDPModule):
        model.reshard()


# --- tensors that may be spread over processes (DTensor). Every process has to call these together.


def local(tensor: Tensor) -> Tensor:
    """The part of a tensor that this process holds; it shares its memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor, gathered from the processes that hold its parts."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def whole_like(part: Tensor, like: Tensor) -> Tensor:
    """All of the tensor of which `part` is what this process holds, spread as `like` is."""
    if not isinstance(like, DTensor):
        return part
    return DTensor.from_local(
        part, like.device_mesh, like.placements, shape=like.shape, stride=like.stride()
    ).full_tensor()


def spread_like(full: Tensor, like: Tensor) -> Tensor:
    """`full`, which every process holds, on the device of `like` and spread over them as it is."""
    full = full.to(like.device)
    if not isinstance(like, DTensor):
        return full
    return distribute_tensor(full, like.device_mesh, like.placements, src_data_rank=None)
