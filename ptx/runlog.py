"""metrics.jsonl and samples.jsonl: one writer appends, any number of readers follow."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

METRICS = "metrics.jsonl"
SAMPLES = "samples.jsonl"


def append(path: Path, record: dict[str, Any]) -> None:
    """Adds one line in one write, so that a reader sees all of it or none."""
    line = json.dumps(record, allow_nan=False, separators=(",", ":")) + "\n"
    with open(path, "ab", buffering=0) as file:
        file.write(line.encode())


def tail(
    path: Path, offset: int = 0, at_most: int | None = None
) -> tuple[list[dict[str, Any]], int]:
    """The records after byte `offset`, and the offset to continue from.

    at_most: bytes to read, when a long file is read in parts.
    A last line that is still being written is left for the next call; a line that is no JSON
    object (a machine that lost power) is passed over. A file that became shorter (the run was
    resumed from an earlier step) is read again from its start; a missing one has no records.
    """
    try:
        with open(path, "rb") as file:
            if offset > os.fstat(file.fileno()).st_size:
                offset = 0
            file.seek(offset)
            data = file.read(at_most)
    except FileNotFoundError:
        return [], 0
    complete = data[: data.rfind(b"\n") + 1]
    return [r for line in complete.splitlines() if (r := _parse(line))], offset + len(complete)


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def truncate(path: Path, last_step: int) -> None:
    """Drops, atomically, what a run wrote after `last_step`, the step it resumes from."""
    if not path.exists():
        return
    kept = [record for record in tail(path)[0] if record.get("step", 0) <= last_step]
    temporary = path.with_suffix(".tmp")
    with open(temporary, "w") as file:
        file.writelines(json.dumps(record, separators=(",", ":")) + "\n" for record in kept)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
