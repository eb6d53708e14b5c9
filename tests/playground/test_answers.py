"""What may travel to a browser."""

from __future__ import annotations

import math
import os

import pytest

from ptx.playground.answers import can_be_named, clean, is_number


def test_half_a_character_becomes_a_sign_that_it_was_there() -> None:
    assert clean("a\ud800b é 🐍") == "a?b é 🐍"


@pytest.mark.parametrize("name", [".mini.partial-1", os.fsdecode(b"caf\xe9"), "\udce9"])
def test_hidden_names_and_those_that_are_no_utf8_are_not_offered(name: str) -> None:
    assert not can_be_named(name)


def test_other_names_are_offered() -> None:
    assert can_be_named("café 🐍 <b>")


@pytest.mark.parametrize("value", [True, "1", None, math.nan, math.inf, -math.inf, 10**400])
def test_what_cannot_be_calculated_with_is_no_number(value: object) -> None:
    assert not is_number(value)


def test_numbers_are() -> None:
    assert is_number(0)
    assert is_number(-1.5)
