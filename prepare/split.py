"""Which projects are held out: decided by project, never by file or line.

Code of one project repeats itself. A model is chosen by projects that training never saw
(validation), and measured on further ones that no choice has seen either (test).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

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
    names: Sequence[str], val_fraction: float, test_fraction: float = 0.0
) -> tuple[np.ndarray, dict[str, object]]:
    """(the side of each project, the rule for the manifest). Training and validation get one at
    least, and the test those that lie lowest, if it is wanted and the others leave it any.

    A side is a number of `ptx.corpus.SPLITS`: 0 trains, 1 validates, 2 is the test, (N,) int8.
    """
    require_several(names)
    places = np.array([position(name) for name in names])
    sides = np.zeros(len(names), dtype=np.int8)
    inside = int((places < test_fraction + val_fraction).sum())
    count = min(max(inside, 1), len(names) - 1)
    tests = min(int((places < test_fraction).sum()), count - 1)
    order = np.argsort(places, kind="stable")
    sides[order[:count]] = 1
    sides[order[:tests]] = 2
    if test_fraction:
        rule = (
            "By project: sha256(salt + name) / 2**256 below test_fraction is the test, below "
            "test_fraction + val_fraction validates; training and validation get one at least"
        )
        facts = {"val_fraction": val_fraction, "test_fraction": test_fraction, "salt": SALT}
        return sides, {"rule": rule, **facts}
    rule = (
        "By project: sha256(salt + name) / 2**256 below val_fraction validates"
        if count == inside
        else "By project: sha256(salt + name) decides the order; as val_fraction would leave one "
        f"side empty, the first {count} of {len(names)} validate"
    )
    return sides, {"rule": rule, "val_fraction": val_fraction, "salt": SALT}


def require_several(names: Sequence[str]) -> None:
    """Refuse to split fewer than two projects."""
    if len(names) < 2:
        there = f"only one project, {names[0]}" if names else "no project left"
        raise UserError(
            f"There is {there}, and validation needs a second one. Of a folder the subfolders are "
            "the projects: name the folder above, put another project beside it, or prepare one "
            "text with `prepare/run.py text FILE`."
        )


def by_position(sizes: np.ndarray, val_fraction: float) -> tuple[np.ndarray, dict[str, object]]:
    """The same for the consecutive parts of one text, whose last share validates.

    sizes: bytes of each part, (N,).
    """
    ends = np.cumsum(sizes, dtype=np.int64)
    side = (ends > (1 - val_fraction) * (ends[-1] if len(ends) else 0)).astype(np.int8)
    if side.all() or not side.any():
        raise UserError(
            f"The text is too short to hold back {val_fraction:.0%} of it for validation: name a "
            "longer text, or one with line breaks."
        )
    rule = {"rule": "By position: the end of the text validates", "val_fraction": val_fraction}
    return side, rule
