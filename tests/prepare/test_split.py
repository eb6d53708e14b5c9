"""The split is by project, stable, and never leaves a side empty."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prepare import split
from ptx.errors import UserError


def sides(names: list[str], fraction: float) -> tuple[list[str], list[str], dict]:
    validates, rule = split.by_project(names, fraction)
    train = [name for name, held in zip(names, validates, strict=True) if not held]
    return train, [name for name in names if name not in train], rule


@given(st.lists(st.text(), min_size=2, unique=True), st.floats(0.001, 0.999))
def test_every_project_is_on_exactly_one_side(listed: list[str], fraction: float) -> None:
    train, val, _ = sides(listed, fraction)
    assert sorted(train + val) == sorted(listed)
    assert train
    assert val


def test_a_project_stays_on_its_side_whatever_is_beside_it() -> None:
    many = [f"package-{i}" for i in range(1_000)]
    _, val, rule = sides(many, 0.1)
    assert 70 < len(val) < 130
    assert rule["val_fraction"] == 0.1
    assert rule["salt"] == split.SALT
    _, fewer, _ = sides(many[::2], 0.1)
    assert fewer == [name for name in val if name in many[::2]]


@given(st.lists(st.text(), min_size=2, unique=True), st.floats(0.001, 0.4), st.floats(0.001, 0.4))
def test_a_test_takes_from_what_was_held_out_and_leaves_one_to_validate(
    listed: list[str], val_fraction: float, test_fraction: float
) -> None:
    sides, rule = split.by_project(listed, val_fraction, test_fraction)
    without, _ = split.by_project(listed, val_fraction + test_fraction)
    assert ((sides > 0) == (without > 0)).all()
    assert {0, 1} <= set(sides.tolist())
    places = [split.position(name) for name in listed]
    tests = [place for place, side in zip(places, sides, strict=True) if side == 2]
    assert all(place < test_fraction for place in tests)
    assert (rule["val_fraction"], rule["test_fraction"]) == (val_fraction, test_fraction)


def test_the_default_keeps_the_giants_in_training_and_validates_on_ordinary_packages() -> None:
    giants = ["torch", "python", "transformers", "sympy", "pandas", "numpy", "pip", "setuptools"]
    ordinary = ["huggingface-hub", "pydantic", "pillow", "fsspec", "jinja2", "starlette", "pyyaml"]
    train, val, _ = sides(giants + ordinary, split.VAL_FRACTION)
    assert train == giants
    assert val == ordinary


def test_a_side_left_empty_gets_the_nearest_project_and_the_rule_says_so() -> None:
    low, high = sorted(["torch", "numpy"], key=split.position)
    train, val, rule = sides(["torch", "numpy"], 0.000001)
    assert (train, val) == ([high], [low])
    assert "the first 1 of 2 validate" in rule["rule"]
    train, val, _ = sides(["torch", "numpy"], 0.999999)
    assert (train, val) == ([high], [low])


def test_one_project_cannot_be_split() -> None:
    with pytest.raises(UserError, match=r"only one project, alone.*text FILE"):
        split.by_project(["alone"], 0.1)


def test_the_end_of_a_text_validates() -> None:
    validates, _ = split.by_position(np.array([50, 30, 10, 10]), 0.15)
    assert validates.tolist() == [False, False, True, True]


@pytest.mark.parametrize("sizes", [[], [100], [100, 1]])
def test_a_text_of_too_few_parts_is_refused(sizes: list[int]) -> None:
    with pytest.raises(UserError, match="too short to hold back 99%"):
        split.by_position(np.array(sizes, dtype=int), 0.99)
