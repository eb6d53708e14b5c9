"""A run's directory: made whole, held by one process, its newest checkpoint found.

runs/<name>/config.json  metrics.jsonl  samples.jsonl  checkpoints/step_NNNNNN/  lock  began_with/
"""

from __future__ import annotations

import json
from pathlib import Path

from filelock import FileLock, Timeout

from ptx.atomic import atomic_directory
from ptx.checkpoint import CONFIG, checkpoints, is_run
from ptx.errors import UserError
from train import origin
from train import settings as run_settings
from train.settings import Settings


def given(path: Path) -> Path:
    """The run directory that `path` names, or whose `latest` it is; one that can go on."""
    run = path.parent if path.name == "latest" else path
    if not is_run(run):
        further = f"; to train a model on, start a run with --init-from {path}"
        model = further if (path / CONFIG).exists() else ""
        raise UserError(f"{path} is no run directory: give one that train/run.py made{model}")
    if not (run / CONFIG).exists():
        raise UserError(
            f"{path} is a run's history, which cannot go on: give the run itself, or start one "
            f"with --init-from {path}"
        )
    return run


def create(settings: Settings) -> Path:
    """Makes runs/<name> with its config.json, at once; without a name the preset's, numbered from
    the second run on."""
    directory = settings.runs / settings.name if settings.name else _next_free(settings)
    if directory.exists():
        raise UserError(
            f"{directory} exists: continue it with --resume {directory}, or choose another --name"
        )
    with atomic_directory(directory) as temporary:
        (temporary / "checkpoints").mkdir()
        write_settings(temporary, settings)
        if settings.init_from:
            origin.keep(settings.init_from, temporary)
    return directory


def write_settings(directory: Path, settings: Settings) -> None:
    """Writes config.json, which `settings.load` reads."""
    text = json.dumps(run_settings.as_json(settings), indent=2) + "\n"
    (directory / CONFIG).write_text(text)


def _next_free(settings: Settings) -> Path:
    number = 1
    while (directory := settings.runs / _numbered(settings.preset, number)).exists():
        number += 1
    return directory


def _numbered(name: str, number: int) -> str:
    return name if number == 1 else f"{name}-{number}"


def newest_checkpoint(run: Path) -> Path | None:
    """None for a run that ended before its first checkpoint."""
    found = checkpoints(run)
    return found[-1] if found else None


def hold(run: Path) -> FileLock:
    """Keeps other processes from writing to `run` until released; the system releases it when this
    process dies."""
    lock = FileLock(run / "lock")
    try:
        lock.acquire(timeout=1)  # a page that looks whether it is free holds it for a moment
    except Timeout:
        raise UserError(
            f"another process is training {run}: wait for it, or stop it with Ctrl+C"
        ) from None
    return lock
