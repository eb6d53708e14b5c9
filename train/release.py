"""From a run's newest checkpoint to a model directory to share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import tyro

from ptx import runlog
from ptx.checkpoint import atomic_directory, find_model, is_run, load_model, write_model
from ptx.errors import UserError


@dataclass
class Release:
    """Write the newest checkpoint of a run as a model directory: bf16 weights, tokenizer and the
    run's metrics, without the optimizer. The model card (README.md) of an older release in the
    same place is kept: its figures are yours to bring up to date.

    Example: python train/run.py release runs/mini checkpoints/mini
    """

    run: Annotated[Path, tyro.conf.Positional]
    """The run directory."""
    out: Annotated[Path, tyro.conf.Positional]
    """The model directory to write."""


def release(args: Release) -> None:
    run = args.run.parent if args.run.name == "latest" else args.run
    if not is_run(run):
        raise UserError(f"{args.run} is no run directory: give one that train/run.py made")
    model, tokenizer, info = load_model(find_model(run))
    metrics, _ = runlog.tail(run / runlog.METRICS)
    validated = [m for m in metrics if "val_bpb" in m]
    if validated:
        info["val_bpb"] = validated[-1]["val_bpb"]
    card = args.out / "README.md"
    text = card.read_text() if card.exists() else f"# {args.out.name}\n"
    with atomic_directory(args.out) as directory:
        write_model(directory, model, tokenizer, info, torch.bfloat16)
        for record in metrics:
            runlog.append(directory / runlog.METRICS, record)
        (directory / "README.md").write_text(text)
    print(f"wrote {args.out}: {model.n_params():,} parameters, step {info['step']:,}")
