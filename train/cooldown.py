"""A cooldown branched off a run: its newest checkpoint goes on in a run of its own, to the end.

A run at a constant rate has no end that its schedule needs (WSD; Hu et al., 2024): whenever a
finished model is wanted, a copy of it cools down, while the run itself can go on.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro

from ptx import runlog
from ptx.atomic import atomic_directory
from ptx.checkpoint import find_model
from ptx.errors import UserError
from train import origin, rundir, state
from train import settings as run_settings
from train.optim import rate
from train.settings import Settings


@dataclass
class Cooldown:
    """Prepare the end of a run: its newest checkpoint, copied into a run of its own, whose rates
    fall linearly to zero once it is resumed.

    It ends bit for bit as one run with the settings in its config.json would have. The run that it
    leaves stays as it is, and can go on at its constant rate (--steps 1000000 --cooldown 0).

    For example:

    python train/run.py cooldown runs/mini --steps 2000 --grammar 8 --loops 8 --name mini-cooled

    python train/run.py --resume runs/mini-cooled (trains it)
    """

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """The run directory."""
    steps: int
    """Further steps, over which the rates fall."""
    grammar: int | None = None
    """More windows of training files at each of these steps: tokens that are likely there and that
    Python's parser would refuse become less likely; the text itself is learnt. As the run's own if
    left out."""
    loops: int | None = None
    """More windows at each of these steps, with a passage copied into them again and again: the
    model learns not to write another copy, and the rest as usual. As the run's own if left out."""
    name: str | None = None
    """The new run's directory beside the old one; RUN-cooldown if left out."""


def cooldown(args: Cooldown) -> Path:
    """Writes the new run's directory and returns it."""
    run = rundir.given(args.run)
    if args.steps < 1:
        raise UserError(f"--steps must be at least 1, not {args.steps}")
    checkpoint = find_model(run)
    done = state.read_progress(checkpoint).step
    before = run_settings.load(run)
    given = {name: getattr(args, name) for name in ("grammar", "loops")}
    before = replace(before, **{k: v for k, v in given.items() if v is not None})
    settings = cooled(before, done, args.steps, args.name or f"{run.name}-cooldown")
    target = run.parent / settings.name
    if target.exists():
        raise UserError(f"{target} exists: choose another --name")
    with atomic_directory(target) as partial:
        shutil.copytree(checkpoint, partial / "checkpoints" / checkpoint.name)
        rundir.write_settings(partial, settings)
        for log in (runlog.METRICS, runlog.SAMPLES):
            if (run / log).exists():
                shutil.copy(run / log, partial / log)
                runlog.truncate(partial / log, done)
        origin.copy(run, partial)
    print(f"{target}: step {done:,}, {args.steps:,} more while the rates fall to zero")
    print(f"train them with: python train/run.py --resume {target}")
    return target


def cooled(before: Settings, done: int, steps: int, name: str) -> Settings:
    """The settings whose first `done` steps are `before`'s, and whose next ones cool down.

    Raises UserError where the run has already begun another cooldown.
    """
    total = done + steps
    after = replace(before, steps=total, cooldown=steps / total, name=name)
    if any(rate(step, before) != rate(step, after) for step in range(done)):
        raise UserError(
            f"the rates of this run were no longer constant before step {done:,}: its cooldown has "
            "begun, or its warm-up was not over (runs without an end: --cooldown 0 --steps 1000000)"
        )
    return run_settings.complete(after)
