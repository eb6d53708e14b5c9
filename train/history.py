"""A run's past, small enough to ship: some of its checkpoints, evenly spaced on a logarithm."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import tyro

from ptx import runlog
from ptx.atomic import atomic_directory
from ptx.checkpoint import CONFIG, checkpoints, is_run, load_model, step_of, write_model
from ptx.errors import UserError
from train import origin, rundir


@dataclass
class History:
    """Write some checkpoints of a run as int8 model directories, with its metrics and samples.

    Most of what a model learns it learns early: the steps are evenly spaced on a logarithmic
    scale, from the first checkpoint to the last. The result is a run directory that can be looked
    at, and not trained further; train with --keep 1000 and a small --save-every to have a choice.

    Example: python train/run.py history runs/nano checkpoints/nano-history
    """

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """The run directory."""
    out: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="OUT")]
    """The directory to write; an earlier one is replaced."""
    count: int = 12
    """Checkpoints."""


def history(args: History) -> None:
    run = rundir.given(args.run)
    if args.out.exists() and not (is_run(args.out) and not (args.out / CONFIG).exists()):
        raise UserError(f"{args.out} exists and is no history: name another directory")
    found = checkpoints(run)
    steps = [step_of(path) for path in found]
    with atomic_directory(args.out) as directory:
        for step in log_spaced(steps, args.count):
            _write_small(found[steps.index(step)], directory / "checkpoints")
        for log in (runlog.METRICS, runlog.SAMPLES):
            if (run / log).exists():
                shutil.copy(run / log, directory / log)
                runlog.truncate(directory / log, steps[-1])  # the run may have gone on
        origin.copy(run, directory)
    size = sum(path.stat().st_size for path in args.out.rglob("*") if path.is_file())
    print(f"wrote {args.out}: {args.count} checkpoints, {size / 1e6:.1f} MB")


def log_spaced(steps: list[int], count: int) -> list[int]:
    """`count` of the ascending `steps`, the first and the last among them."""
    if not 2 <= count <= len(steps):
        raise UserError(
            f"--count must be from 2 to the {len(steps)} checkpoints that the run kept, not {count}"
            " (one trained with --keep 1000 and a small --save-every has more)"
        )
    wanted, chosen = np.geomspace(steps[0], steps[-1], count), []
    for i, target in enumerate(wanted):
        # Leaves enough later ones for the targets that come.
        free = [s for s in steps[: len(steps) - (count - 1 - i)] if not chosen or s > chosen[-1]]
        chosen.append(min(free, key=lambda step: abs(np.log(step / target))))
    return chosen


def _write_small(checkpoint: Path, folder: Path) -> None:
    model, tokenizer, info = load_model(checkpoint)
    target = folder / checkpoint.name
    target.mkdir(parents=True)
    write_model(target, model, tokenizer, info, torch.int8)
