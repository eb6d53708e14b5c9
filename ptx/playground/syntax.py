"""Whether a text is Python: parsed, never run."""

from __future__ import annotations

import time
from typing import Any

from ptx.prefix import INCOMPLETE, parse

PARSES, UNFINISHED, ERROR = "parses", "unfinished", "error"
EVERY = 0.25
"""Seconds between two looks at a text that grows."""
SHARE = 0.05
"""Of the time, at most so much is spent on looking."""


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
