"""Where faults are found in a model's own text, and that they become rarer."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from ptx.guard import text_of
from ptx.model import GPT
from ptx.prefix import can_go_on, syntax_error
from ptx.sampling import USUAL
from tests.train.conftest import BYTES, TINY
from train.lessons import (
    KEPT,
    PASSAGE,
    REFUSED,
    REPEATED,
    Lessons,
    begins,
    correction,
    faults,
    repetitions,
)
from train.practice import Attempt

CPU = torch.device("cpu")


def attempt(before: str, written: str, ended: bool = False) -> Attempt:
    ids = [BYTES.eot, *BYTES.encode(before), *BYTES.encode(written), *[BYTES.eot] * ended]
    return Attempt(before.encode(), ids, 1 + len(before.encode()), ended)


def slip(before: str, written: str, ended: bool = False) -> str | None:
    """What was written up to the slip, and it; $ for the end of the text."""
    _, found = faults(attempt(before, written, ended), BYTES)
    return None if found is None else (written.encode() + b"$")[: found + 1].decode()


@pytest.mark.parametrize(
    ("written", "upto"),
    [
        ("x = 1\ny = = 2\nz = 3\n", "x = 1\ny = ="),
        ("x = f(1]\ny = 2\n", "x = f(1]"),
        ("x = 1)\ny = 2\n", "x = 1)"),
        ("x = '\u00fc', 'ä' 12 34\ny = 2\n", "x = '\u00fc', 'ä' 1"),
        ("x = 'abc\ny = 2\n", "x = 'abc\n"),
        ("if x:\ny = 2\n", "if x:\ny"),
        ("def f():\n        b\n    c\nd = 1\n", "def f():\n        b\n    c"),
        ("x = f(b,\n    c\nreturn 3\nd = 5\n", "x = f(b,\n    c\nr"),  # the bracket, says Python
        ('y = = 2\ndef f():\n    """abc\n', "y = ="),  # the string, says Python
        ("y = = 2\n" + "s = 'a text'\n" * 4, "y = ="),
        ("y = = 2\n" + "z = 1 + \\\n  3\n" * 2, "y = ="),
        ("x = {'a': 1 'bcd': 2}\n", "x = {'a': 1 '"),
        ("f(a 'hello')\n", "f(a '"),
    ],
)
def test_a_slip_is_where_the_text_cannot_be_python_any_more(written: str, upto: str) -> None:
    assert slip("a = 0\n", written) == upto


@pytest.mark.parametrize(
    "written", ["x = 1\ny = 2\n", "def f(a,\n", 'x = """\n', "x = 1 +", "", "if x:\n    y"]
)
def test_nothing_is_wrong_with_python_that_goes_on(written: str) -> None:
    assert slip("a = 0\n", written) is None


def test_to_end_a_file_in_a_bracket_is_a_slip_and_to_end_it_whole_is_none() -> None:
    assert slip("a = 0\n", "x = (1,\n", ended=True) == "x = (1,\n$"
    assert slip("a = 0\nf(", "", ended=True) == "$"
    assert slip("a = 0\n", "x = 1\n", ended=True) is None
    assert slip("a = 0\n", "x = 1", ended=True) is None


def test_a_slip_in_the_last_line_of_a_file_is_found_before_its_end() -> None:
    assert slip("a = 0\n", "f(a b)", ended=True) == "f(a b"
    assert slip("a = 0\n", "f(a b)") is None  # it is not whole: not judged


def test_a_slip_is_of_the_new_text_where_the_statement_began_before_it() -> None:
    assert slip("x = (", "]\n") == "]"
    assert slip("a = foo(b,\n", "    c\nreturn 3 4\nd = 5\n") == "    c\nr"


def test_any_text_is_judged() -> None:
    random = np.random.default_rng(0)
    for before in (b"a = 1\nb", b"f(a,\n", b'"""\n', b"if a:\n    "):
        for _ in range(100):
            new = random.choice(list(b"a\xc3\xa9 =([)'\"\n\r:\\\0f"), 40).tolist()
            ids = [BYTES.eot, *before, *new]
            repeated, found = faults(Attempt(before, ids, len(ids) - 40, bool(new[0] % 2)), BYTES)
            assert len(repeated) == 40
            assert found is None or 0 <= found < 40


def test_the_middle_of_a_character_is_no_slip() -> None:
    ids = [BYTES.eot, *b"d\xc3\xa9f = 1\n"]
    assert faults(Attempt(b"d\xc3", ids, 3, False), BYTES)[1] is None


def test_what_comes_after_a_slip_is_not_judged() -> None:
    again = "value = compute(1)\n" * 3
    wrong = "y = = 2\n"
    assert not faults(attempt("a = 0\n", wrong + again), BYTES)[0].any()
    assert faults(attempt("a = 0\n", again), BYTES)[0].any()


def test_a_repetition_begins_with_its_first_passage() -> None:
    stretches = [False] * 3 + [True] * (PASSAGE + 5) + [False] + [True] * 4
    first = [False] * 3 + [True] * PASSAGE + [False] * 6 + [True] * 4
    assert begins(np.array(stretches)).tolist() == first
    assert begins(np.ones(20, bool)).tolist() == [True] * PASSAGE + [False] * (20 - PASSAGE)


def test_passages_are_repetitions_from_the_second_time_on() -> None:
    passage = list(range(PASSAGE))
    assert list(repetitions([*passage, 99, *passage])) == [2 * PASSAGE + 1]
    assert not list(repetitions([*passage, 99, *passage[:-1]]))
    assert list(repetitions([7] * (PASSAGE + 2))) == [PASSAGE + 1, PASSAGE + 2]


@pytest.mark.usefixtures("any_token")
def test_the_correction_is_the_sum_of_its_terms() -> None:
    torch.manual_seed(0)
    model, before = GPT(TINY).eval(), GPT(TINY).eval()
    bad = attempt("a = 0\n", "f(x y\n")
    [part] = Lessons([bad], 64, BYTES).parts(2, CPU)
    part.repeated[1, 5] = True
    logits = model.head(model.hidden(part.ids))  # (B, T, V)
    p = (logits / USUAL.temperature).softmax(-1)
    expected = -REPEATED * (1 - p[1, 5, part.ids[1, 6]]).log()
    for number, text in enumerate((b"", b"f", b"f(", b"f(x", b"f(x ")):
        here = p[0, bad.n_prompt - 1 + number]
        wrong = [t for t in range(256) if not can_go_on(text_of(bad.before + text + bytes([t])))]
        if syntax_error((bad.before + text).decode(), ended=True):
            wrong.append(BYTES.eot)
        assert (ord("y") in wrong) == (text == b"f(x ")
        expected += -REFUSED * (1 - here[wrong].sum()).log()
    before_p = before.head(before.hidden(part.ids)).softmax(-1)
    ratios = before_p.log() - logits.log_softmax(-1)
    strayed = (before_p * ratios).sum(-1)[part.kept].sum()
    total, told = correction(model, before, BYTES, part)
    torch.testing.assert_close(total, expected + KEPT * strayed, rtol=1e-2, atol=1e-3)
    torch.testing.assert_close(told, strayed, rtol=1e-3, atol=1e-5)
    assert told > 0


@pytest.mark.usefixtures("any_token")
def test_what_is_corrected_becomes_less_likely() -> None:
    torch.manual_seed(0)
    model = GPT(TINY)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    before = copy.deepcopy(model)
    [part] = Lessons([attempt("a = 0\n", "f(x y\n")], 64, BYTES).parts(1, CPU)
    ids, slip = part.ids, len(part.excerpts[0].ids) - 2
    part.repeated[0, 5] = True

    def probabilities() -> torch.Tensor:
        p = model.head(model.hidden(ids)).softmax(-1)[0]  # (T, V)
        return torch.stack([p[5, ids[0, 6]], p[slip, ord("y")], p[slip, ord("z")]])

    first = probabilities()
    for _ in range(20):
        optimizer.zero_grad()
        correction(model, before, BYTES, part)[0].backward()
        optimizer.step()
    assert (probabilities() < 0.7 * first).all()


def test_what_is_not_wrong_stays_near_what_it_was() -> None:
    torch.manual_seed(0)
    before, model = GPT(TINY).eval(), GPT(TINY)
    model.load_state_dict(before.state_dict())
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.3 * torch.randn_like(p))
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    [part] = Lessons([attempt("a = 0\n", "x = 1\n")], 64, BYTES).parts(1, CPU)
    told = []
    for _ in range(20):
        optimizer.zero_grad()
        total, strayed = correction(model, before, BYTES, part)
        total.backward()
        optimizer.step()
        told.append(strayed.item())
    assert told[-1] < 0.6 * told[0]


def test_lessons_hold_what_was_wrong_and_what_was_not() -> None:
    good, bad = attempt("a = 0\n", "x = 1\n"), attempt("a = 0\n", "x = = 1\n")
    lessons = Lessons([good, bad, bad], 64, BYTES)
    assert (lessons.written, lessons.parsed, lessons.repeated) == (6 + 8 + 8, 1, 0)
    [part] = lessons.parts(4, CPU)
    assert part.ids.shape == part.repeated.shape == part.kept.shape == (4, 64)
    assert part.ids[1, : len(bad.ids)].tolist() == bad.ids
    assert not part.repeated.any()
    judged = [bytes(e.ids[e.n_seen :]) for e in part.excerpts]
    assert judged == [b"x = 1\n", b"x = =", b"x = ="]
    following = part.ids.roll(-1, 1)
    kept = [bytes(following[row, part.kept[row]].tolist()) for row in range(4)]
    assert kept == [b"x = 1\n", b"x = ", b"x = ", b""]


def test_what_repeats_itself_is_not_kept_and_corrected_where_it_begins() -> None:
    line = "value = compute(1)\n"
    lessons = Lessons([attempt("a = 0\n", 2 * line)], 64, BYTES)
    [part] = lessons.parts(1, CPU)
    following = part.ids.roll(-1, 1)
    assert bytes(following[part.kept].tolist()).decode() == line
    assert bytes(following[part.repeated].tolist()).decode() == line[:PASSAGE]
    assert lessons.repeated == len(line)


def test_a_slip_at_the_first_token_is_a_lesson_too() -> None:
    [part] = Lessons([attempt("x = (", "]\n")], 64, BYTES).parts(1, CPU)
    [judged] = part.excerpts
    assert judged.ids[judged.n_seen :] == [ord("]")]
    assert not part.kept.any()
