"""Output that nobody may be left to read: `| tee log` ends with the Ctrl+C that asks to save."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import TextIO


class Unbreakable:
    """A stream that cannot fail: what cannot be written is lost, and the program goes on."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        # RuntimeError: a signal's handler that prints in the midst of a print
        with contextlib.suppress(OSError, RuntimeError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, RuntimeError):
            self._stream.flush()

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)


@contextlib.contextmanager
def unbreakable_stdout() -> Iterator[None]:
    """What is printed within cannot fail."""
    if sys.stdout is None:  # a process without one prints nothing anyway
        yield
        return
    with contextlib.redirect_stdout(Unbreakable(sys.stdout)):
        yield
