"""Directories that appear whole or not at all."""

from __future__ import annotations

import glob
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LEFT_BY_FILE_MANAGERS = {".DS_Store", ".directory", "Thumbs.db", "desktop.ini"}
"""In a directory that was shown: macOS's Finder, KDE's Dolphin, Windows's Explorer."""


@contextmanager
def atomic_directory(target: Path) -> Iterator[Path]:
    """A fresh directory beside `target`, flushed and renamed over it when the block succeeds.

    Whatever happens before that, `target` stays what it was. A killed process leaves a
    `.NAME.partial-PID` directory, which the next writer of the same target removes.
    """
    target = target.resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    recover(target)
    partial = beside(target, "partial")
    partial.mkdir()
    try:
        yield partial
        for path in partial.iterdir():
            flush(path)
        put_in_place(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)  # nothing is there after success


def held(directory: Path) -> list[Path]:
    """What a directory holds, sorted, but for what file managers leave in every one they show; []
    if there is none. That goes with the directory when it is replaced."""
    if not directory.is_dir():
        return []
    return sorted(path for path in directory.iterdir() if path.name not in LEFT_BY_FILE_MANAGERS)


def discard(directory: Path) -> None:
    """Deletes a directory; nobody ever finds half of it, even if this process is killed."""
    going = beside(directory, "partial")
    directory.rename(going)
    shutil.rmtree(going, ignore_errors=True)


def recover(target: Path) -> None:
    """Clean up after killed writers: remove what they began, put back what they had moved away."""
    name = glob.escape(target.name)
    for old in target.parent.glob(f".{name}.old-*"):
        if writer_lives(old):
            continue
        if target.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:  # killed between the two renames
            old.rename(target)
    for partial in target.parent.glob(f".{name}.partial-*"):
        if not writer_lives(partial):
            shutil.rmtree(partial, ignore_errors=True)


def flush(path: Path) -> None:
    """Returns once a file's, or a directory's, content is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def beside(target: Path, role: str) -> Path:
    """Where this process keeps something on its way to or from `target`."""
    return target.with_name(f".{target.name}.{role}-{os.getpid()}")


def put_in_place(partial: Path, target: Path) -> None:
    """Rename a complete directory over `target`; a directory that was there is removed after."""
    flush(partial)
    old = beside(target, "old")
    if target.exists():
        target.rename(old)
    partial.rename(target)
    flush(target.parent)
    shutil.rmtree(old, ignore_errors=True)


def writer_lives(path: Path) -> bool:
    """Whether the process that made this temporary directory still runs."""
    try:
        os.kill(int(path.name.rsplit("-", 1)[1]), 0)
    except ProcessLookupError:
        return False
    except (PermissionError, ValueError, OverflowError):
        return True
    return int(path.name.rsplit("-", 1)[1]) != os.getpid()
