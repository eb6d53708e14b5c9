"""Whether a text is Python, according to Python."""

from __future__ import annotations

import ast
import sys
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptx.playground.syntax import ERROR, EVERY, PARSES, UNFINISHED, Watch, syntax
from ptx.playground.write import TEXT_LIMIT

WHOLE = '''class Stack:
    """Last in, first out."""

    def __init__(self):
        self.items = [1,
                      2]

    @property
    def top(self):
        return self.items[-1] if self.items else f"{None!r}"


try:
    print(Stack().top)
except IndexError as error:
    raise SystemExit(str(error)) from None
'''


def test_every_start_of_a_program_may_still_become_one() -> None:
    for end in range(len(WHOLE) + 1):
        found = syntax(WHOLE[:end])
        assert found["state"] in (PARSES, UNFINISHED), WHOLE[:end]
        try:
            ast.parse(WHOLE[:end])
        except SyntaxError:
            assert found["state"] == UNFINISHED
        else:
            assert found["state"] == PARSES


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("x = 'abc\ny = 1\n", 1),
        ("def f(:\n    pass\n", 1),
        ("if x\n    y\n", 1),
        ("y = 2\n  x = 1\n", 2),
        ("try:\n    x\nx = 2\n", 3),
        ("x = (1\ndef f():\n    pass\n", 1),
        ("a = 1\nb\0 = 2", 2),
        ("x = '\ud800'", 1),
        ("9" * 5000 + "\n", 1),
    ],
)
def test_an_error_tells_its_line(text: str, line: int) -> None:
    found = syntax(text)
    assert (found["state"], found["line"]) == (ERROR, line)
    assert found["message"]


@pytest.mark.parametrize(
    "text",
    [
        "(" * 60_000, "-" * 60_000 + "1", "a" + ".b" * 32_000, "1" + "+1" * 32_000,
        "lambda:" * 9_000 + "x", "if x:0\n" + "elif x:0\n" * 7_000,
        "longest" + ".b" * ((TEXT_LIMIT - 7) // 2),
    ],
    ids=lambda text: text[:8],
)  # fmt: skip
def test_what_is_nested_too_deeply_is_an_error_in_any_thread(text: str) -> None:
    """More than twice as deep as 3.11 allows: code that another library compiles in another thread
    meanwhile makes it count anew."""
    found: list[dict] = []
    thread = threading.Thread(target=lambda: found.append(syntax(text)))
    thread.start()
    thread.join()
    # 3.10 has no limit on nesting like this, and parses it
    limited = sys.version_info >= (3, 11)
    assert found[0]["state"] in (ERROR, UNFINISHED, *(() if limited else (PARSES,)))


@given(st.text())
def test_any_text_has_a_state(text: str) -> None:
    assert syntax(text)["state"] in (PARSES, UNFINISHED, ERROR)


def test_a_watch_looks_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    watch = Watch()
    assert watch.due
    watch.look("x = 1")
    assert watch.state == syntax("x = 1")
    assert not watch.due
    now += EVERY
    assert watch.due
