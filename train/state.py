"""A run's checkpoint: a model directory plus all that an exact continuation needs."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.optim import Optimizer

from ptx.atomic import atomic_directory, writer_lives
from ptx.checkpoint import (
    WEIGHTS,
    checkpoints,
    load_tensors,
    load_weights,
    write_model,
)
from ptx.errors import UserError
from ptx.model import GPT
from ptx.tokenizer import Tokenizer

OPTIMIZER = "optimizer.safetensors"
STATE = "state.json"


@dataclass
class Progress:
    """How far a run has come. The data cursor is the step: batches are a function of it."""

    step: int = 0
    """Optimizer steps done."""
    elapsed: float = 0.0
    """Seconds of training, over all pieces of the run."""
    tokens: int = 0
    data: str = ""
    """sha256 of the training file, which a resumed run must find unchanged."""


def save(
    run: Path,
    model: GPT,
    tokenizer: Tokenizer,
    optimizers: list[Optimizer],
    progress: Progress,
    info: dict[str, Any],
    keep: int,
) -> Path:
    """Writes checkpoints/step_NNNNNN atomically and drops all but the newest `keep`."""
    target = run / "checkpoints" / f"step_{progress.step:06d}"
    with atomic_directory(target) as directory:
        write_model(directory, model, tokenizer, info)
        tensors = _flatten(model, optimizers) | {"rng.cpu": torch.get_rng_state()}
        if (rng := _get_device_rng(model.tok_emb.weight.device)) is not None:
            tensors["rng.device"] = rng
        save_file(tensors, directory / OPTIMIZER)
        (directory / STATE).write_text(json.dumps(vars(progress)) + "\n")
    for old in checkpoints(run)[:-keep]:
        shutil.rmtree(old)
    return target


def read_progress(run: Path) -> Progress:
    """How far the newest checkpoint of `run` is."""
    path = newest_checkpoint(run) / STATE
    try:
        return Progress(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path} cannot be read ({error}): delete {path.parent}") from None


def newest_checkpoint(run: Path) -> Path:
    if found := checkpoints(run):
        return found[-1]
    raise UserError(f"{run} has no checkpoint to resume from: start the run anew")


def restore(run: Path, model: GPT, optimizers: list[Optimizer]) -> None:
    """Loads the newest checkpoint of `run` into a freshly built model and its optimizers."""
    newest = newest_checkpoint(run)
    for leftover in newest.parent.glob(".*.partial-*"):
        if not writer_lives(leftover):
            shutil.rmtree(leftover)  # of a save that was killed
    load_weights(model, newest / WEIGHTS)
    tensors = load_tensors(newest / OPTIMIZER)
    torch.set_rng_state(tensors.pop("rng.cpu"))
    if (rng := tensors.pop("rng.device", None)) is not None:
        _set_device_rng(model.tok_emb.weight.device, rng)
    _unflatten(tensors, model, optimizers, newest / OPTIMIZER)


def _get_device_rng(device: torch.device) -> Tensor | None:
    """State of a GPU's generator, which dropout draws from there; None on a CPU."""
    if device.type == "cuda":
        return torch.cuda.get_rng_state(device)
    return torch.mps.get_rng_state() if device.type == "mps" else None


def _set_device_rng(device: torch.device, rng: Tensor) -> None:
    if device.type == "cuda":
        torch.cuda.set_rng_state(rng, device)
    elif device.type == "mps":
        torch.mps.set_rng_state(rng)


def _flatten(model: GPT, optimizers: list[Optimizer]) -> dict[str, Tensor]:
    """Every optimizer tensor under `parameter name/state name`."""
    names = {p: name for name, p in model.named_parameters()}
    return {
        f"{names[p]}/{key}": value.contiguous()
        for optimizer in optimizers
        for p, state in optimizer.state.items()
        for key, value in state.items()
    }


def _unflatten(
    tensors: dict[str, Tensor], model: GPT, optimizers: list[Optimizer], path: Path
) -> None:
    parameters = dict(model.named_parameters())
    owner = {p: o for o in optimizers for group in o.param_groups for p in group["params"]}
    for full_name, value in tensors.items():
        name, _, key = full_name.rpartition("/")
        if name not in parameters:
            raise UserError(f"{path} holds {full_name!r}, which this model does not have")
        p = parameters[name]
        # AdamW keeps its step counter in fp32 wherever the parameter is; the rest follows it.
        owner[p].state[p][key] = value.to(p.device)
