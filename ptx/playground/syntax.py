"""Whether a text is Python: parsed, never run."""

from __future__ import annotations

import ast
import codeop
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

PARSES, UNFINISHED, ERROR = "parses", "unfinished", "error"
INCOMPLETE = "incomplete input"
FLAGS = ast.PyCF_ONLY_AST | codeop.PyCF_ALLOW_INCOMPLETE_INPUT
"""A syntax tree and no code; a text that may go on is told apart from one that is wrong."""
EVERY = 0.25
"""Seconds between two looks at a text that grows."""
SHARE = 0.05
"""Of the time, at most so much is spent on looking."""


def parse(text: str) -> None:
    """Raises what Python's parser does."""
    compile(text, "<text>", "exec", FLAGS, dont_inherit=True)


if sys.version_info < (3, 11):  # noqa: UP036  (ZeroGPU has 3.10)
    # It does not count how deeply "a.b.c" and the like are nested: a long text of nothing else
    # overruns a usual stack, and that ends the process. So it parses in a thread whose stack is
    # twice what the longest text needs that the page takes; only what is used of it takes memory.
    _usual, _parse = threading.stack_size(128 << 20), parse
    _thread = ThreadPoolExecutor(1, "parse")
    _thread.submit(int).result()  # it starts now, with this stack
    threading.stack_size(_usual)

    def parse(text: str) -> None:
        """Raises what Python's parser does."""
        _thread.submit(_parse, text).result()


def syntax(text: str) -> dict[str, Any]:
    """{"state": "parses" | "unfinished" | "error", "line", "message"}: the last two are null but
    for an error. Unfinished is a text whose next characters could still mend it."""
    if "\0" in text:
        return _state(ERROR, 1 + text[: text.index("\0")].count("\n"), "a NUL character")
    try:
        parse(text)
    except SyntaxError as error:
        line = error.lineno or 1
        # the last line is still being written, unless it has ended
        last = 1 + text.count("\n")
        if error.msg == INCOMPLETE or line >= last:
            return _state(UNFINISHED)
        return _state(ERROR, line, error.msg)
    except (RecursionError, MemoryError):
        return _state(ERROR, 1, "nested too deeply for Python's parser")
    except ValueError as error:  # a lone surrogate
        return _state(ERROR, 1, str(error))
    return _state(PARSES)


def _state(state: str, line: int | None = None, message: str | None = None) -> dict[str, Any]:
    return {"state": state, "line": line, "message": message}


class Watch:
    """The state of a text that grows, looked at now and then."""

    def __init__(self) -> None:
        self.state: dict[str, Any] | None = None
        self._due = 0.0

    @property
    def due(self) -> bool:
        """Whether it is time for another look."""
        return time.monotonic() >= self._due

    def look(self, text: str) -> None:
        started = time.monotonic()
        self.state = syntax(text)
        now = time.monotonic()
        self._due = now + max(EVERY, (now - started) / SHARE)
