"""A model directory <-> GPT. Written whole or not at all; nothing in it is ever executed.

model.safetensors  config.json  tokenizer.tiktoken  README.md  metrics.jsonl
"""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from ptx.atomic import atomic_directory, held, recover
from ptx.config import ModelConfig
from ptx.errors import UserError
from ptx.int8 import int8_values, row_scales
from ptx.model import GPT
from ptx.runlog import METRICS
from ptx.tokenizer import CONFIG, RANKS_FILE, Tokenizer

FORMAT = 1
WEIGHTS = "model.safetensors"
OURS = (WEIGHTS, CONFIG, RANKS_FILE, "README.md", METRICS, "samples.md", "curve.png")
"""The files of a model directory."""
SCALE = ".scale"
STEP_DIR = re.compile(r"step_(\d+)")


def write_model(
    directory: Path,
    model: GPT,
    tokenizer: Tokenizer,
    info: dict[str, Any],
    dtype: torch.dtype | None = None,
    weights: dict[str, Tensor] | None = None,
) -> None:
    """Fills `directory` with a model; for a place that `atomic_directory` gave.

    With torch.int8, each matrix is stored as whole numbers and, as NAME.scale, what they are
    multiplied with in each row; the rest is stored in fp32. That is half of bf16's bytes, and loads
    as the values `ptx.int8.as_int8` would give.

    info: free facts kept in config.json beside the shape (what it was trained on, for how long).
    dtype: of the stored floating-point weights; as they are if None.
    weights: instead of the model's own, when those are spread over many processes.
    """
    named = named_weights(model) if weights is None else weights
    stored = _as_int8(named) if dtype == torch.int8 else named
    kept = None if dtype == torch.int8 else dtype
    tensors = {name: t.detach().to("cpu", kept).contiguous() for name, t in stored.items()}
    write_tensors(tensors, directory / WEIGHTS)
    tokenizer.save(directory)
    config = {
        "format": FORMAT,
        "model": asdict(model.config),
        "tokenizer": tokenizer.record(),
        "info": info,
    }
    (directory / CONFIG).write_text(json.dumps(config, indent=2) + "\n", "utf-8")


def save_model(
    directory: str | Path,
    model: GPT,
    tokenizer: Tokenizer,
    info: dict[str, Any] | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """Writes a model directory atomically, replacing an older one only when complete."""
    require_replaceable(Path(directory))
    with atomic_directory(Path(directory)) as temporary:
        write_model(temporary, model, tokenizer, info or {}, dtype)


def require_replaceable(
    target: Path, source: Path | None = None, files: Collection[str] = OURS
) -> None:
    """Refuses a place for a model that holds anything but an earlier one, or the model itself.

    source: what is to be written there is made of this directory.
    files: the names that a model has in the form in which it is to be written.
    """
    if target.is_file():
        raise UserError(f"{target} is a file: name a directory to write the model to")
    if source is not None and target.resolve() == source.resolve():
        raise UserError(f"{target} is what the model is made of: name another directory to write")
    found = held(target)
    if found and not (target / WEIGHTS).is_file():
        raise UserError(
            f"{target} is not empty and not a model directory: name another, or empty it first"
        )
    if others := [path.name for path in found if path.name not in files or not path.is_file()]:
        raise UserError(
            f"{target} would be replaced, and beside an earlier model it holds {others[0]!r}: name "
            "another directory, or move that elsewhere first"
        )


def _as_int8(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Matrices as whole numbers and scales."""
    stored = {}
    for name, tensor in tensors.items():
        if tensor.ndim == 2:
            stored[name + SCALE] = row_scales(tensor.detach())
            stored[name] = int8_values(tensor.detach().float(), stored[name + SCALE])
        else:
            stored[name] = tensor.detach().float()
    return stored


def _from_int8(tensors: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The weights that int8 ones stand for; others as they are."""
    weights = {name: t for name, t in tensors.items() if not name.endswith(SCALE)}
    for name, tensor in weights.items():
        if tensor.dtype == torch.int8:
            scale = tensors.get(name + SCALE)
            if scale is None or scale.shape != tensor.shape[:1]:
                raise UserError(f"{path}: {name!r} is int8 and lacks a scale for each row")
            weights[name] = tensor.float() * scale[:, None]
    return weights


def named_weights(model: GPT) -> dict[str, Tensor]:
    """A model's tensors by name, a tied head left out: safetensors stores no tensor twice."""
    tied = {"head.weight"} if model.config.tied_head else set()
    return {name: tensor for name, tensor in model.state_dict().items() if name not in tied}


def write_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Writes a safetensors file; raises OSError when the system refuses (a full disk)."""
    try:
        save_file(tensors, path, metadata={"format": "pt"})
    except SafetensorError as error:  # how the library reports a failed write
        raise OSError(errno.EIO, str(error), str(path)) from None


def load_model(
    directory: str | Path, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
) -> tuple[GPT, Tokenizer, dict[str, Any]]:
    """The model in `directory` (anything `find_model` understands), in eval mode, with its
    tokenizer and the facts it was saved with. Raises UserError naming the file that is wrong."""
    path = find_model(directory)
    config = read_config(path)
    tokenizer = Tokenizer.load(path, config["tokenizer"])
    shape = ModelConfig.from_dict(config["model"])
    if shape.vocab_size != tokenizer.n_vocab:
        raise UserError(
            f"{path / CONFIG}: vocab_size is {shape.vocab_size} and the tokenizer has "
            f"{tokenizer.n_vocab} tokens: one of them is another model's"
        )
    if shape.n_layer > (stored := count_tensors(path / WEIGHTS)):  # a network takes time to build
        raise UserError(
            f"{path / CONFIG}: n_layer is {shape.n_layer}, and {WEIGHTS} beside it has {stored} "
            "tensors: it is another model's"
        )
    try:
        model = GPT(shape)
    except (RuntimeError, MemoryError):
        raise UserError(f"{path / CONFIG}: memory holds no model of such a shape") from None
    model.to(device, dtype)
    load_weights(model, path / WEIGHTS)
    model.source = path
    return model.eval(), tokenizer, config["info"]


def load_weights(model: GPT, path: Path) -> None:
    """Copies the tensors of a safetensors file into `model`, refusing any that do not fit."""
    tensors = _from_int8(load_tensors(path), path)
    expected = named_weights(model)
    if wrong := sorted(set(expected) ^ set(tensors)):
        where = "is missing from" if wrong[0] in expected else "is not expected in"
        raise UserError(f"tensor {wrong[0]!r} {where} {path}: its config.json is another model's")
    for name, tensor in expected.items():
        if tensor.shape != tensors[name].shape:
            have, want = tuple(tensors[name].shape), tuple(tensor.shape)
            raise UserError(f"{path}: tensor {name!r} has shape {have}, config.json says {want}")
        if not tensors[name].is_floating_point():
            raise UserError(f"{path}: tensor {name!r} is {tensors[name].dtype}, no fp32 or bf16")
        tensor.copy_(tensors[name])


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Every tensor of a safetensors file; a damaged or missing file is refused by name."""
    with _refused_by_name(path):
        return load_file(path)


def count_tensors(path: Path) -> int:
    """How many tensors a safetensors file has, read from its head."""
    with _refused_by_name(path), safe_open(path, "pt") as file:
        return len(file.keys())


@contextmanager
def _refused_by_name(path: Path) -> Iterator[None]:
    if not path.is_file():
        raise UserError(f"{path} is missing: the model directory is incomplete")
    try:
        yield
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(
            f"{path} is damaged ({error}): copy or download the model directory again"
        ) from None


def read_config(directory: Path) -> dict[str, Any]:
    """config.json of a model directory, with its three sections; `info`, free facts, is {} where
    anything else stands."""
    path = directory / CONFIG
    try:
        config = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read as JSON ({error}): restore it") from None
    if isinstance(config, dict) and "model_type" in config:
        raise UserError(
            f"{directory} is a checkpoint of transformers: make a model directory of it with "
            f"python -m ptx.hub import {directory} OUT"
        )
    for section in ("model", "tokenizer"):
        if not isinstance(config, dict) or not isinstance(config.get(section), dict):
            raise UserError(f"{path} has no {section!r} section: not a P-Transformer model")
    info = config.get("info")
    return config | {"info": info if isinstance(info, dict) else {}}


def find_model(path: str | Path) -> Path:
    """The model directory that `path` means: itself, or the newest checkpoint of a run directory
    (`runs/nano` and `runs/nano/latest` are the same)."""
    path = Path(path)
    if not path.exists():
        recover(path)  # a save that was killed while it replaced this directory
    if (path / WEIGHTS).is_file() or ((path / CONFIG).is_file() and not is_run(path)):
        return path
    run = path.parent if path.name == "latest" and not path.exists() else path
    if not run.is_dir():
        raise UserError(f"there is no model at {path}: give a model directory or a run directory")
    if steps := checkpoints(run):
        return steps[-1]
    raise UserError(
        f"{run} holds no model: it needs {WEIGHTS} and {CONFIG}, or checkpoints of a training run"
    )


def is_run(path: Path) -> bool:
    return (path / "checkpoints").is_dir()


def checkpoints(run: Path) -> list[Path]:
    """The complete checkpoints of a run directory, oldest first."""
    folder = run / "checkpoints"
    found = [p for p in folder.iterdir() if STEP_DIR.fullmatch(p.name)] if folder.is_dir() else []
    return sorted(found, key=step_of)


def step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("step_"))


def run_of(model: Path) -> Path | None:
    """The run directory that a model is a checkpoint of; None if it is none's."""
    model = model.resolve()
    inside = model.parent.name == "checkpoints" and STEP_DIR.fullmatch(model.name)
    return model.parent.parent if inside else None


def log_folder(model: Path) -> Path | None:
    """The directory with the log of a model's own training, if there is any: a checkpoint's is its
    run's."""
    folder = model if (model / METRICS).is_file() else run_of(model) or model
    return folder if (folder / METRICS).is_file() else None
