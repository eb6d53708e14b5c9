"""Limits come from the environment, and a visitor who asks too often is told so."""

from __future__ import annotations

from dataclasses import fields

import pytest

from ptx.errors import UserError
from ptx.playground import limits
from ptx.playground.limits import SPACE, Limits, Rate


def test_without_variables_a_machine_is_generous_and_a_space_is_careful() -> None:
    assert Limits.read({}) == Limits()
    assert Limits.read({"SYSTEM": "spaces"}) == SPACE
    for field in fields(Limits):
        assert getattr(SPACE, field.name) < getattr(Limits(), field.name), field.name


def test_a_variable_sets_its_limit() -> None:
    found = Limits.read({"PTX_NEW_TOKENS": "12", "PTX_TRAINING": "off", "PTX_QUEUE": ""})
    assert (found.new_tokens, found.training, found.queue) == (12, False, Limits().queue)
    assert Limits.read({"SYSTEM": "spaces", "PTX_TRAINING": "on"}).training


@pytest.mark.parametrize("value", ["0", "-3", "1.5", "many", "1e3", "٣", "9" * 30])
def test_a_wrong_value_is_refused_by_name(value: str) -> None:
    with pytest.raises(UserError, match="PTX_NEW_TOKENS must be a whole number"):
        Limits.read({"PTX_NEW_TOKENS": value})
    with pytest.raises(UserError, match="PTX_TRAINING must be on or off"):
        Limits.read({"PTX_TRAINING": "maybe"})


def test_no_prompt_is_promised_that_is_not_read() -> None:
    with pytest.raises(UserError, match="PTX_PROMPT_BYTES must be at most 65536"):
        Limits.read({"PTX_PROMPT_BYTES": "65537"})


def test_the_documented_table_is_true() -> None:
    lines = [line.split() for line in (limits.__doc__ or "").splitlines() if "   PTX_" in line]
    for name, ours, space, *_ in lines:
        field = name.removeprefix("PTX_").lower()
        assert Limits.read({name: ours}) == Limits(), name
        assert Limits.read({name: space}) == Limits(**{field: getattr(SPACE, field)}), name
    assert len(lines) == len(fields(Limits))


def test_a_visitor_who_asks_too_often_waits_and_others_do_not() -> None:
    rate = Rate(2)
    rate.admit("a", now=0.0)
    rate.admit("a", now=1.0)
    with pytest.raises(UserError, match="2 requests a minute"):
        rate.admit("a", now=59.0)
    rate.admit("b", now=59.0)
    rate.admit("a", now=60.0)
    with pytest.raises(UserError, match="again in 1 s"):
        rate.admit("a", now=60.5)


def test_visitors_are_forgotten_before_they_fill_the_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Rate, "KNOWN", 3)
    rate = Rate(1)
    for visitor in "abcd":
        rate.admit(visitor, now=0.0)
    rate.admit("a", now=1.0)
