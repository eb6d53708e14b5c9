"""`GPT.from_pretrained`, `save_pretrained` and `push_to_hub`, as users of huggingface_hub know
them."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch

from ptx.atomic import atomic_directory
from ptx.checkpoint import (
    load_model,
    named_weights,
    read_config,
    require_replaceable,
    write_model,
)
from ptx.errors import UserError
from ptx.hub.card import write_card
from ptx.hub.download import local_model
from ptx.hub.upload import stage, upload
from ptx.model import GPT
from ptx.tokenizer import Tokenizer


def load_pretrained(
    name: str | Path,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    **options: Any,
) -> GPT:
    return load_model(local_model(name, **options), device, dtype)[0]


def tokenizer_of(name: str | Path, **options: Any) -> Tokenizer:
    path = local_model(name, **options)
    return Tokenizer.load(path, read_config(path)["tokenizer"])


def save(
    model: GPT, directory: str | Path, tokenizer: Tokenizer | None, info: dict[str, Any] | None
) -> None:
    require_replaceable(Path(directory))
    with atomic_directory(Path(directory)) as target:
        _fill(target, model, tokenizer, info, Path(directory).resolve().name)


def push(
    model: GPT,
    name: str,
    tokenizer: Tokenizer | None,
    info: dict[str, Any] | None,
    **options: Any,
) -> str:
    with tempfile.TemporaryDirectory() as folder:
        _fill(Path(folder), model, tokenizer, info, name)
        return upload(Path(folder), name, **options)


def _fill(
    target: Path,
    model: GPT,
    tokenizer: Tokenizer | None,
    info: dict[str, Any] | None,
    name: str,
) -> None:
    """A model directory of weights in memory. As they were loaded, they go with all that is beside
    them; changed since, without the figures that are no longer theirs."""
    source = model.source
    if source is not None and tokenizer is None and info is None and unchanged(model, source):
        stage(source, target, name)
        return
    if source is not None and tokenizer is None:
        tokenizer = Tokenizer.load(source, read_config(source)["tokenizer"])
    if tokenizer is None:
        raise UserError("a model that was not loaded needs its tokenizer: pass tokenizer=...")
    write_model(target, model, tokenizer, info or {})
    write_card(target, name)


def unchanged(model: GPT, source: Path) -> bool:
    """Whether the weights are still those of the model directory they came from."""
    stored, mine = named_weights(load_model(source)[0]), named_weights(model)
    return stored.keys() == mine.keys() and all(
        torch.equal(mine[name].cpu().float(), tensor) for name, tensor in stored.items()
    )
