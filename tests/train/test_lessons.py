"""Where a model's own text repeats itself, and that it becomes rarer."""

from __future__ import annotations

import pytest
import torch

from ptx.model import GPT
from ptx.sampling import USUAL
from tests.train.conftest import BYTES, TINY
from train.lessons import PASSAGE, REPEATED, Lessons, correction, parses, repeated, repetitions
from train.practice import Attempt


def attempt(before: str, written: str, ended: bool = False) -> Attempt:
    ids = [BYTES.eot, *BYTES.encode(before), *BYTES.encode(written), *[BYTES.eot] * ended]
    return Attempt(before.encode(), ids, 1 + len(before.encode()), ended)


@pytest.mark.parametrize(
    ("written", "ended", "is_python"),
    [
        ("x = 1\ny = 2\n", False, True),
        ("def f(a,\n", False, True),
        ("x = = 1\n", False, False),
        ("x = 1\ny = = 2", False, True),  # the last line is not whole
        ("x = 1", True, True),
        ("x = (1,\n", True, False),
    ],
)
def test_a_text_is_judged_to_its_last_whole_line(
    written: str, ended: bool, is_python: bool
) -> None:
    assert parses(attempt("a = 0\n", written, ended), BYTES) == is_python


def test_passages_are_repetitions_from_the_second_time_on() -> None:
    passage = list(range(PASSAGE))
    assert list(repetitions([*passage, 99, *passage])) == [2 * PASSAGE + 1]
    assert not list(repetitions([*passage, 99, *passage[:-1]]))
    assert list(repetitions([7] * (PASSAGE + 2))) == [PASSAGE + 1, PASSAGE + 2]


def test_what_the_prompt_says_too_is_no_repetition() -> None:
    again = "value = compute(1)\n"
    assert not repeated(attempt(again, again)).any()
    weights = repeated(attempt("a = 0\n", 2 * again)).tolist()
    assert weights == [0] * len(again) + [pytest.approx(REPEATED)] * len(again)


def test_the_correction_is_the_sum_of_its_terms() -> None:
    torch.manual_seed(0)
    model = GPT(TINY).eval()
    ids, again = torch.randint(256, (2, 64)), torch.zeros(2, 64)
    again[0, 7], again[1, 5] = 0.2, 0.5
    p = (model.head(model.hidden(ids)) / USUAL.temperature).softmax(-1)  # (B, T, V)
    expected = -0.2 * (1 - p[0, 7, ids[0, 8]]).log() - 0.5 * (1 - p[1, 5, ids[1, 6]]).log()
    torch.testing.assert_close(correction(model, ids, again), expected, rtol=1e-2, atol=1e-4)


def test_what_is_corrected_becomes_less_likely() -> None:
    torch.manual_seed(0)
    model = GPT(TINY)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    ids, again = torch.randint(256, (1, 64)), torch.zeros(1, 64)
    again[0, 5] = 1.0

    def probability() -> float:
        return model.head(model.hidden(ids)).softmax(-1)[0, 5, ids[0, 6]].item()

    before = probability()
    for _ in range(20):
        optimizer.zero_grad()
        correction(model, ids, again).backward()
        optimizer.step()
    assert probability() < 0.7 * before


def test_lessons_hold_what_was_wrong_and_nothing_else() -> None:
    good, bad = attempt("a = 0\n", "x = = 1\n"), attempt("a = 0\n", "x = 12345678\n" * 2)
    lessons = Lessons([good, bad, bad], 64, BYTES)
    assert (lessons.written, lessons.parsed, lessons.repeated) == (8 + 26 + 26, 2, 13 + 13)
    [(ids, again)] = lessons.parts(4)
    assert ids.shape == again.shape == (4, 64)
    assert ids[0, : len(bad.ids)].tolist() == bad.ids
    rows, positions = (again > 0).nonzero().unbind(1)
    assert rows.tolist() == [0] * 13 + [1] * 13
    assert bytes(ids[rows, positions + 1].tolist()) == b"x = 12345678\n" * 2
    assert positions[:13].tolist() == list(range(bad.n_prompt + 12, bad.n_prompt + 25))
