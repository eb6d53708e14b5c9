"""Whether a text that stops anywhere can still become Python: asked of Python's own parser."""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterator

from train.continuations import syntax_error

GOES_ON = "\\\n"
"""Put after a text, the parser gets to the end of what is there, and no further, if it can."""
LAST_WORD = re.compile(r"\w+\Z")
OPERATORS = ("!=", "==", "->", ":=", "...", ".0")
"""Those that begin with what is none, or another one, and a number."""


def can_go_on(text: str) -> bool:
    """Whether something can follow so that it is Python; a word, a string, a bracket may be cut."""
    line = text[text.rfind("\n") + 1 :]
    if not line.strip():  # nothing but an indent, or nothing at all
        return not syntax_error(text) and not _too_deep(text)
    if line.endswith("\\"):
        return True
    return _reaches_end(text) or any(map(_reaches_end, _longer(text)))


def _too_deep(text: str) -> bool:
    """Whether a statement that begins here stands deeper than is allowed, and so with any more."""
    error = syntax_error(text + "x" + GOES_ON)
    return error is not None and error.msg == "unexpected indent"


def _reaches_end(text: str) -> bool:
    error = syntax_error(text + GOES_ON)
    if error is None:
        return True
    in_string = str(error.msg).startswith("unterminated")
    return in_string and error.lineno == text.count("\n") + 1  # opened on the last line


def _longer(text: str) -> Iterator[str]:
    """The text with what its last word or sign may become."""
    for sign in OPERATORS:
        if any(text.endswith(sign[:n]) for n in range(1, len(sign))):
            yield text + sign[-1]
    if found := LAST_WORD.search(text):
        word, before = found.group(), text[: found.start()]
        if word[0].isdigit():
            yield text + "0"
        elif keyword.iskeyword(word):
            yield text + "x"
        yield from (before + k for k in keyword.kwlist if k.startswith(word) and k != word)
