"""Which projects validate: decided by project, never by file or line.

Code of one project repeats itself. A model is measured on projects that training never saw.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from prepare.sources import Project
from ptx.errors import UserError

# Chosen by looking: with this salt and the default fraction, the packages of requirements.txt that
# validate are eleven ordinary, varied ones (8 MB), none of them vendored by or copied into a
# package that trains (as requests is into pip), and neither torch nor the standard library.
SALT = "p-transformer 66489:"
VAL_FRACTION = 0.1


def position(name: str) -> float:
    """Where a project lies in [0, 1): a stable hash of its name."""
    digest = hashlib.sha256(f"{SALT}{name}".encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def by_project(
    projects: Sequence[Project], val_fraction: float
) -> tuple[list[Project], list[Project], dict]:
    """(training, validation, the rule for the manifest). Both sides get at least one project."""
    if len(projects) < 2:
        raise UserError(
            f"There is only one project, {projects[0].name}, and validation needs another: put a "
            "second beside it, or prepare one text with `prepare/run.py text FILE`."
        )
    ordered = sorted(projects, key=lambda project: position(project.name))
    inside = sum(position(project.name) < val_fraction for project in projects)
    count = min(max(inside, 1), len(projects) - 1)
    names = {project.name for project in ordered[:count]}
    rule = (
        "By project: sha256(salt + name) / 2**256 below val_fraction validates"
        if count == inside
        else "By project: sha256(salt + name) decides the order; as val_fraction would leave one "
        f"side empty, the first {count} of {len(projects)} validate"
    )
    val = [project for project in projects if project.name in names]
    train = [project for project in projects if project.name not in names]
    return train, val, {"rule": rule, "val_fraction": val_fraction, "salt": SALT}


def by_position(val_fraction: float) -> dict:
    """The rule for the manifest of one text, which `sources.text` has split."""
    return {"rule": "By position: the end of the text validates", "val_fraction": val_fraction}
