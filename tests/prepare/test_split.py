"""The split is by project, stable, and never leaves a side empty."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prepare import split
from prepare.sources import Project
from ptx.errors import UserError


def projects(names: list[str]) -> list[Project]:
    return [Project(name, "", "MIT", ()) for name in names]


def names(listed: list[Project]) -> list[str]:
    return [project.name for project in listed]


@given(st.lists(st.text(), min_size=2, unique=True), st.floats(0.001, 0.999))
def test_every_project_is_on_exactly_one_side(listed: list[str], fraction: float) -> None:
    train, val, _ = split.by_project(projects(listed), fraction)
    assert sorted(names(train) + names(val)) == sorted(listed)
    assert train
    assert val


def test_a_project_stays_on_its_side_whatever_is_beside_it() -> None:
    many = [f"package-{i}" for i in range(1_000)]
    _, val, rule = split.by_project(projects(many), 0.1)
    assert 70 < len(val) < 130
    assert rule["val_fraction"] == 0.1
    assert rule["salt"] == split.SALT
    _, fewer, _ = split.by_project(projects(many[::2]), 0.1)
    assert names(fewer) == [name for name in names(val) if name in many[::2]]


def test_the_default_keeps_the_giants_in_training_and_validates_on_ordinary_packages() -> None:
    giants = ["torch", "python", "transformers", "sympy", "pandas", "numpy", "pip", "setuptools"]
    ordinary = ["huggingface-hub", "pydantic", "pillow", "fsspec", "jinja2", "starlette", "pyyaml"]
    train, val, _ = split.by_project(projects(giants + ordinary), split.VAL_FRACTION)
    assert names(train) == giants
    assert names(val) == ordinary


def test_a_side_left_empty_gets_the_nearest_project_and_the_rule_says_so() -> None:
    low, high = sorted(["torch", "numpy"], key=split.position)
    train, val, rule = split.by_project(projects(["torch", "numpy"]), 0.000001)
    assert (names(train), names(val)) == ([high], [low])
    assert "the first 1 of 2 validate" in rule["rule"]
    train, val, _ = split.by_project(projects(["torch", "numpy"]), 0.999999)
    assert (names(train), names(val)) == ([high], [low])


def test_one_project_cannot_be_split() -> None:
    with pytest.raises(UserError, match=r"only one project, alone.*text FILE"):
        split.by_project(projects(["alone"]), 0.1)
