"""A machine that nobody has, for tests of what is said about machines."""

from __future__ import annotations

import torch

from train.machine import Machine

CPU = torch.device("cpu")
MACHINE = Machine(
    device="cpu", name="abacus", cores=2, threads=2, memory_gib=8.0, free_gib=4.0, base_gib=0.25,
    torch="2", compiler="/usr/bin/g++", disk_free_gib=9.0, tensorboard=True, gpus=0,
)  # fmt: skip
