"""Whether a text that stops anywhere can still become Python: asked of Python's own parser."""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterator

from train.continuations import syntax_error

GOES_ON = "\\\n"
"""Put after a text, the parser gets to the end of what is there, and no further, if it can."""
BLANK = " \t\f\r"
WORDS = [*keyword.kwlist, *keyword.softkwlist]
LAST_WORD = re.compile(r"\w+\Z")
PREFIX = re.compile(r"\w*")
OPERATORS = ("!=", "==", "->", ":=", "...", "**")
"""Those that begin with what is none, or another one."""


def can_go_on(text: str) -> bool:
    """Whether something can follow so that it is Python; a word, a string, a bracket may be cut."""
    text = _closed(text.removesuffix("\\"))
    if not _last_line(text).strip(BLANK):  # nothing but an indent, or nothing at all
        return not syntax_error(text) and not _too_deep(text)
    return _reaches_end(text) or any(map(_reaches_end, _longer(text)))


def _last_line(text: str) -> str:
    return text[text.rfind("\n") + 1 :]


def _closed(text: str) -> str:
    """The text with an empty string in place of one that is open on its last line: what is in it
    does not matter, but whether there may be one."""
    line = _last_line(text)
    if "'" not in line and '"' not in line:
        return text
    lines = text.split("\n")
    error = syntax_error(text + "\n")
    if error is None or not str(error.msg).endswith(f"literal (detected at line {len(lines)})"):
        return text
    start = sum(len(line) + 1 for line in lines[: error.lineno - 1]) + error.offset - 1
    return text[:start] + PREFIX.match(text[start:]).group() + '""'


def _too_deep(text: str) -> bool:
    """Whether a statement that begins here stands deeper than is allowed, and so with any more
    indent. An empty line or a comment might; nobody indents those so."""
    error = syntax_error(text + "x" + GOES_ON)
    return error is not None and error.msg == "unexpected indent"


def _reaches_end(text: str) -> bool:
    error = syntax_error(text + GOES_ON)
    # from Python 3.12 on an f-string may be open in one of its expressions
    return error is None or bool(re.match("unterminated .*f-string", str(error.msg)))


def _longer(text: str) -> Iterator[str]:
    """The text with what its last word or sign may become. One that is too long is just no Python:
    what is dead stays dead."""
    yield text + "0"  # 1e-, 0x, .
    for sign in OPERATORS:
        if any(text.endswith(sign[:n]) for n in range(1, len(sign))):
            yield text + sign[-1]
    if found := LAST_WORD.search(text):
        word = found.group()
        if len(word) <= 2:
            yield text + "''"  # the prefix of a string
        if keyword.iskeyword(word):
            yield text + "x"
        yield from (text + k[len(word) :] for k in WORDS if k.startswith(word) and k != word)
