"""A run's checkpoint: a model directory plus all that an exact continuation needs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from ptx.atomic import atomic_directory, discard, writer_lives
from ptx.checkpoint import checkpoints, load_tensors, named_weights, write_model, write_tensors
from ptx.corpus import Corpus
from ptx.errors import UserError
from ptx.model import GPT
from ptx.tokenizer import Tokenizer
from train.parallel import reshard, spread_like, whole

OPTIMIZER = "optimizer.safetensors"
STATE = "state.json"


@dataclass
class Progress:
    """How far a run has come.

    With the settings this is all there is to remember beside the tensors: the data's order and
    every random number are functions of the step.
    """

    step: int = 0
    """Optimizer steps done."""
    elapsed: float = 0.0
    """Seconds of training, over all pieces of the run."""
    cpu_seconds: float = 0.0
    """CPU time of the training steps, of all processes: what a busy machine does not stretch."""
    tokens: int = 0
    data: str = ""
    """sha256 of the training file, which a resumed run must find unchanged."""


@dataclass(frozen=True)
class Tensors:
    """Everything of a checkpoint that is numbers, whole and on the CPU."""

    weights: dict[str, Tensor]
    optimizer: dict[str, Tensor]


def gather(model: GPT, optimizers: list[Optimizer], keep: bool) -> Tensors:
    """All tensors of a run, from all its processes: each of them has to call this.

    keep: whether this process wants them; the others get none, and need no room for them.
    """
    reshard(model)
    names = {p: name for name, p in model.named_parameters()}
    states = {
        f"{names[p]}/{key}": value
        for optimizer in optimizers
        for p, state in optimizer.state.items()
        for key, value in state.items()
    }
    found = Tensors({}, {})
    for source, target in ((named_weights(model), found.weights), (states, found.optimizer)):
        for name, tensor in source.items():
            full = whole(tensor)
            if keep:
                target[name] = full.detach().cpu().contiguous()
    return found


def save(
    run: Path,
    model: GPT,
    tokenizer: Tokenizer,
    tensors: Tensors,
    progress: Progress,
    info: dict[str, Any],
    keep: int,
) -> Path:
    """Writes checkpoints/step_NNNNNN, whole or not at all, and drops all but the newest `keep`."""
    target = run / "checkpoints" / f"step_{progress.step:06d}"
    with atomic_directory(target) as directory:
        write_model(directory, model, tokenizer, info, weights=tensors.weights)
        write_tensors(tensors.optimizer, directory / OPTIMIZER)
        (directory / STATE).write_text(json.dumps(vars(progress)) + "\n")
    for old in checkpoints(run)[:-keep]:
        discard(old)
    return target


def clean(run: Path) -> None:
    """Removes what a killed process left half-written."""
    for leftover in (run / "checkpoints").glob(".*.partial-*"):
        if not writer_lives(leftover):
            shutil.rmtree(leftover, ignore_errors=True)


def require_its_data(run: Path, progress: Progress, corpus: Corpus) -> None:
    """Refuse a data directory that is not the one that a run was trained on."""
    if progress.data != train_sha256(corpus):
        raise UserError(
            f"{corpus.path} is not the data that {run} was trained on: restore it, or start a new "
            "run"
        )


def train_sha256(corpus: Corpus) -> str:
    return corpus.manifest["splits"]["train"]["sha256"]


@contextmanager
def readable(checkpoint: Path | None) -> Iterator[None]:
    """Of what is refused in here, says how the run goes on without this checkpoint of it, if it
    has an earlier one."""
    try:
        yield
    except UserError as error:
        earlier = checkpoints(checkpoint.parents[1])[:-1] if checkpoint else []
        if not earlier:
            raise
        raise UserError(
            f"{error}; or move {checkpoint} away: the run then goes on from {earlier[-1].name}"
        ) from None


def read_progress(checkpoint: Path) -> Progress:
    """How far a checkpoint is."""
    path = checkpoint / STATE
    try:
        return Progress(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path} cannot be read ({error}): restore it") from None


def restore_optimizers(checkpoint: Path, model: GPT, optimizers: list[Optimizer]) -> None:
    """Loads the optimizers' tensors of a checkpoint, each process its own part."""
    path = checkpoint / OPTIMIZER
    parameters = dict(model.named_parameters())
    owner = {p: o for o in optimizers for group in o.param_groups for p in group["params"]}
    for full_name, value in load_tensors(path).items():
        name, _, key = full_name.rpartition("/")
        if name not in parameters:
            raise UserError(f"{path} holds {full_name!r}, which this model does not have")
        p = parameters[name]
        # AdamW keeps a scalar step counter beside the tensors of the parameter's shape.
        same = value.shape == p.shape
        owner[p].state[p][key] = spread_like(value, p) if same else value.to(p.device)
