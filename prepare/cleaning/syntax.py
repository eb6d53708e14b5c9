"""Steps that read Python: comments, and whether it is any."""

from __future__ import annotations

import re

from prepare.cleaning import rules
from prepare.cleaning.parser import Spans, accepts

LEAST_COMMENTS, MOST_COMMENTS = 0.01, 0.8

# A comment or a whole string literal, whichever begins first: so a "#" in a string is none.
QUOTED = re.compile(
    rb"#[^\n]*"
    rb'|"""[^"\\]*(?:(?:\\.|"(?!""))[^"\\]*)*"""'
    rb"|'''[^'\\]*(?:(?:\\.|'(?!''))[^'\\]*)*'''"
    rb'|"[^"\\\n]*(?:\\.[^"\\\n]*)*"'
    rb"|'[^'\\\n]*(?:\\.[^'\\\n]*)*'",
    re.DOTALL,
)
STATEMENT = re.compile(rb"(?:^|\n)[ \t]*[rRuUbB]{0,2}\Z")  # before a string: it begins a line

# What Python 3 refuses and Python 2 meant.
PYTHON_2 = re.compile(
    rb"^[ \t]*print[ \t]+[^=(\s]|^[ \t]*print[ \t]*$|^[ \t]*print[ \t]*>>"
    rb"|^[ \t]*except[ \t]+[\w.]+[ \t]*,[ \t]*\w+[ \t]*:"
    rb"|^[ \t]*raise[ \t]+[\w.]+[ \t]*,"
    rb"|^[ \t]*exec[ \t]+[\"'\w]"
    rb"|\bur[\"']|[^<>]<>[^<>]|\b0[0-7]+\b(?!\.)|\b\d+[lL]\b",
    re.MULTILINE,
)


def quoted(data: bytes) -> Spans:
    """(start, stop) of every comment and string literal, in order."""
    return [match.span() for match in QUOTED.finditer(data)]


def comment_share(data: bytes, spans: Spans) -> float:
    """Bytes of comments and docstrings among all; `spans` are `quoted(data)`.

    Every string that is a statement of its own counts as a docstring.
    """
    total = 0
    for start, stop in spans:
        if data[start] == ord("#") or (
            data.startswith((b'"""', b"'''"), start)
            and STATEMENT.search(data, max(0, data.rfind(b"\n", 0, start)), start)
        ):
            total += stop - start
    return total / len(data)


def comment_fault(data: bytes, spans: Spans) -> str | None:
    share = comment_share(data, spans)
    return None if LEAST_COMMENTS <= share <= MOST_COMMENTS else rules.COMMENTS


def syntax_fault(data: bytes, spans: Spans) -> str | None:
    """Whether Python's own parser refuses the document, and if it is Python 2."""
    if accepts(data, spans):
        return None
    return rules.PYTHON_2 if PYTHON_2.search(data) else rules.SYNTAX
