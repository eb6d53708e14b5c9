"""A guarded text stays such that it can become Python."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

from ptx import batch, stream
from ptx.guard import Guard
from ptx.prefix import can_go_on
from ptx.tokenizer import Tokenizer


def test_a_guard_says_what_the_whole_text_does(py16k: Tokenizer) -> None:
    """It forgets whole statements, which must not matter."""
    source = "\n".join(map(inspect.getsource, (batch, stream)))[:6_000]
    ids = py16k.encode(source)
    others = np.random.default_rng(0).integers(0, py16k.eot, len(ids)).tolist()
    guard, read, refused = Guard(b"", py16k), b"", 0
    assert len(ids) > 1_000
    for token, other in zip(ids, others, strict=True):
        assert guard.allows(token), read[-80:]
        whole = (read + py16k.token_bytes(other)).decode("utf-8", "replace")
        if "\ufffd" not in whole:
            assert guard.allows(other) == can_go_on(whole), whole[-80:]
        refused += not guard.allows(other)
        guard.append(py16k.token_bytes(token))
        read += py16k.token_bytes(token)
    assert 0.2 < refused / len(ids) < 0.99


def test_a_long_text_is_not_parsed_again_and_again(py16k: Tokenizer) -> None:
    statement = b"def f(x):\n    return [x,\n        1]\n\n\n"
    guard = Guard(statement * 500, py16k)
    assert len(guard._text) <= 2 * len(statement)
    for _ in range(50):
        for byte in statement:
            guard.append(bytes([byte]))
        assert len(guard._text) <= 2 * len(statement)


@pytest.mark.parametrize(
    ("text", "token", "allowed"),
    [
        ("if x:\n    y\nelse", ":", True),  # belongs to the statement before
        ("x = 1\nelse", ":", False),
        ("x = 1\nelsewhere", ":", True),
        ('"""\ndef f():\n    pass\nelse', ":", True),  # inside a string all is
        ("x = [\ny\n", "]", True),
        ("x = [\ny\n", "}", False),
        ("x = (1", ")", True),
        ("x = (1", "]", False),
    ],
)
def test_what_belongs_together_is_judged_together(
    py16k: Tokenizer, text: str, token: str, allowed: bool
) -> None:
    [number] = py16k.encode(token)
    for cut in range(len(text)):  # forgotten at any moment
        guard = Guard(text[:cut].encode(), py16k)
        guard.append(text[cut:].encode())
        assert guard.allows(number) == allowed


def test_a_file_ends_only_where_it_is_whole(py16k: Tokenizer) -> None:
    ends = {"x = 1": True, "x = (1": False, "if x:\n": False, "": True, "# é": True}
    assert {text: Guard(text.encode(), py16k).allows(py16k.eot) for text in ends} == ends
    assert not Guard("é".encode()[:-1], py16k).allows(py16k.eot)


def test_a_text_that_is_no_python_is_told(py16k: Tokenizer) -> None:
    assert [Guard(t, py16k).alive for t in (b"x = 1 2", b"\xff = 1", b"", b"x = '")] == [
        False, False, True, True,
    ]  # fmt: skip


def test_a_character_in_parts_is_allowed_where_a_letter_is(py16k: Tokenizer) -> None:
    lead = next(t for t in range(py16k.eot) if py16k.token_bytes(t) == b"\xc3")
    assert Guard(b"x = '", py16k).allows(lead)
    assert Guard(b"x = ", py16k).allows(lead)
    assert not Guard(b"x = 'a'", py16k).allows(lead)


def test_bytes_of_a_token_that_the_text_has_are_not_read_twice(py16k: Tokenizer) -> None:
    [token] = py16k.encode("))")
    guard = Guard(b"x = ((1)", py16k)
    assert guard.allows(token, inside=1)
    assert not guard.allows(token)


def test_as_dead_as_a_token_are_all_that_begin_with_what_is_too_much(py16k: Tokenizer) -> None:
    guard = Guard(b"if x:\n    y = (1)", py16k)
    for piece, too_much in (("]", b"]"), ("):\n    ", b")"), (" if", None), ("\n    ", None)):
        [token] = py16k.encode(piece)
        assert guard.allows(token) == (too_much is None)
        if too_much:
            dead = guard.as_dead(token)
            every = range(py16k.n_vocab)
            assert set(dead) == {t for t in every if py16k.token_bytes(t).startswith(too_much)}
            assert not any(map(guard.allows, dead))
    assert Guard(b"x = (", py16k).as_dead(py16k.eot) == [py16k.eot]
