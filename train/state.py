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

from ptx.atomic import atomic_directory
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
        if torch.cuda.is_available():
            tensors["rng.cuda"] = torch.cuda.get_rng_state()
        save_file(tensors, directory / OPTIMIZER)
        (directory / STATE).write_text(json.dumps(vars(progress)) + "\n")
    for old in checkpoints(run)[:-keep]:
        shutil.rmtree(old)
    return target


def restore(run: Path, model: GPT, optimizers: list[Optimizer]) -> Progress:
    """Loads the newest checkpoint of `run` into a freshly built model and its optimizers."""
    for leftover in (run / "checkpoints").glob(".*.partial-*"):
        shutil.rmtree(leftover)  # of a save that was killed
    found = checkpoints(run)
    if not found:
        raise UserError(f"{run} has no checkpoint to resume from: start the run anew")
    newest = found[-1]
    load_weights(model, newest / WEIGHTS)
    tensors = load_tensors(newest / OPTIMIZER)
    torch.set_rng_state(tensors.pop("rng.cpu"))
    cuda_rng = tensors.pop("rng.cuda", None)
    if cuda_rng is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(cuda_rng)
    _unflatten(tensors, model, optimizers, newest / OPTIMIZER)
    try:
        return Progress(**json.loads((newest / STATE).read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{newest / STATE} cannot be read ({error}): delete {newest}") from None


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
