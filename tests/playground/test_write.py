"""The text as a sequence of frames, and what is said beside it."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise

import pytest

import ptx
from ptx.errors import UserError
from ptx.playground.served import Served
from ptx.playground.write import (
    MAX_LENGTH,
    Frame,
    Knobs,
    frames,
    refused,
    stopped,
    throttled,
)

KNOBS = Knobs("def f(x):", temperature=1.0, top_k=0, top_p=1.0, length=8, seed=3)


def text_of(frame: Frame) -> str:
    lines = [json.loads(line) for line in frame.view["lines"].split("\n") if line]
    return "".join(line[1] for line in lines) + frame.view["tail"]


def test_the_last_frame_holds_prompt_and_continuation(served: Served) -> None:
    last = list(frames(served, KNOBS))[-1]
    sampling = ptx.Sampling(KNOBS.temperature, KNOBS.top_k, KNOBS.top_p)
    steps = ptx.generate(
        served.model, served.tokenizer, KNOBS.prompt, sampling, ptx.Limits(KNOBS.length), KNOBS.seed
    )
    assert text_of(last) == KNOBS.prompt + "".join(step.text for step in steps)
    assert last.view["finish"] == "length"
    assert last.view["generated"] == KNOBS.length


def test_every_frame_begins_with_the_prompt_and_continues_the_one_before(served: Served) -> None:
    texts = [text_of(frame) for frame in frames(served, KNOBS)]
    assert texts[0] == KNOBS.prompt
    assert all(b.startswith(a.rstrip("\ufffd")) for a, b in pairwise(texts))


def test_a_text_longer_than_the_context_says_what_is_still_seen(served: Served) -> None:
    first, *_, last = frames(served, replace(KNOBS, length=served.context + 10))
    assert first.view["visible_from"] == 0
    assert first.view["notes"] == []
    assert last.view["visible_from"] > 0
    seen = len(last.ids) - last.view["visible_from"]
    assert f"the last {seen} of {len(last.ids)}" in last.view["notes"][0]


def test_an_empty_prompt_begins_a_file(served: Served) -> None:
    last = list(frames(served, replace(KNOBS, prompt="")))[-1]
    assert "begins a new file" in last.view["notes"][0]
    assert last.view["generated"] == KNOBS.length


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"prompt": "a\0b"}, "NUL"),
        ({"prompt": "x" * 100_000}, "100,000 bytes"),
        ({"length": 0}, "length"),
        ({"length": MAX_LENGTH + 1}, "length"),
        ({"seed": -1}, "seed"),
        ({"seed": None}, "seed"),
        ({"temperature": -1}, "temperature"),
        ({"top_p": 0}, "top-p"),
    ],
)
def test_a_bad_knob_is_named(served: Served, changed: dict, named: str) -> None:
    with pytest.raises(UserError, match=named):
        next(frames(served, replace(KNOBS, **changed)))


def test_a_refusal_keeps_the_text() -> None:
    before = Frame({"lines": "[1]\n", "error": None}, [1, 2])
    after = refused(before, "no")
    assert after.view == {"lines": "[1]\n", "error": "no"}
    assert after.ids == [1, 2]
    assert refused(None, "no").view == {"error": "no"}


def test_a_stopped_text_keeps_what_it_had() -> None:
    frame = Frame({"lines": "[1]\n", "finish": None}, [1])
    assert stopped(frame).view == {"lines": "[1]\n", "finish": "stopped"}


def test_throttling_drops_the_middle_and_never_the_last() -> None:
    made = [Frame({"n": n}, []) for n in range(1000)]
    shown = list(throttled(iter(made), per_second=1.0))
    assert shown[0] is made[0]
    assert shown[-1] is made[-1]
    assert len(shown) < 10
