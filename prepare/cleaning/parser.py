"""Whether Python's own parser, `ast`, accepts a document.

Ruff's parser reads Python five times as fast and agrees with `ast` but for a few corners. It comes
as mypy's `ast_serialize`. What it refuses, and what shows a sign of one of those corners, is left
to `ast`.
"""

from __future__ import annotations

import ast
import re
import symtable
import sys
import warnings
from codecs import BOM_UTF8
from contextlib import suppress
from functools import partial

import ast_serialize

Spans = list[tuple[int, int]]

VERSION = sys.version_info[:2]

COOKIE = re.compile(rb"(?:[^\n]*\n)?[ \t\f]*#[^\n]*?coding[:=][ \t]*(?!utf-?8\b)", re.IGNORECASE)
"""An encoding named in the first two lines (PEP 263), other than ours."""

# What Ruff's parser reads whichever Python runs. Forms begin with a word, for which re looks fast.
NEWER_SYNTAX = {
    (3, 12): (
        rb"def[ \t]+\w+[ \t]*\[",
        rb"class[ \t]+\w+[ \t]*\[",
        rb"type[ \t]+(?!(?:if|in|is|and|or|not|else|for|as)\b)\w+[ \t]*(?:\[[^\n]*)?=(?!=)",
    ),
    (3, 14): (rb"except\b[^\n(:]*,",),
    (3, 15): (
        rb"lazy(?<![\w.]lazy)[ \t]+(?:import|from)\s",
        rb"\*(?<![\w)\]*]\*)(?<![\w)\]] \*)\*?\s*[\w.]+(?:\([^()]*\)|\[[^\[\]]*\])*\s+for\b",
        rb"[\[{]\s*\*[^\]}]{0,400}?\sfor\s",
    ),
}
NO_SYNTAX = rb"yield[ \t]*[,@]"  # read by Ruff's parser, and by no Python
NEWER = [form for since, forms in NEWER_SYNTAX.items() if since > VERSION for form in forms]
ODD_FORMS = [re.compile(form) for form in (NO_SYNTAX, *NEWER)]

DIGITS = b"0123456789"
MOST_DIGITS = 4_300  # of a number, for Python
LONG_NUMBER = re.compile(rb"[\d_]{%d}" % MOST_DIGITS)
LINKS = b".([+-*/@%|&^<>"
"""Each makes an expression one deeper at most, as in a.b(c) + d."""
MOST_LINKS = 2_000  # Python gives up at 2,900 deep or more, by version
MOST_LINKS_IN_ALL = 20_000  # Ruff's parser ends the process at 36,000 or more
STATEMENT = re.compile(rb"\n[ \t]*(?=(?:def|class|return|import|raise|assert|while|with|try)\b)")
MOST_BRANCHES = 300  # elif: each is inside the one before

LETTERS = frozenset({b"f", b"F", b"t", b"T", b"r", b"R"})
PREFIX = re.compile(rb"[A-Za-z]{1,2}\Z")
PLAIN_FIELDS = re.compile(
    rb"""(?x) (["'])(?:\1\1)?
    (?: [^{}] | \{\{ | \}\}
      | \{ [ ]? [\w.()\[\],+\-/%\x20]*[\w)\]] [ ]? (?:![rsa])? (?: : [^{}\\\n]* )? \}
    )*"""
)


def accepts(data: bytes, spans: Spans) -> bool:
    """Whether `ast` parses the document; `spans` are its comments and strings."""
    return (not is_doubtful(data, spans) and ruff_accepts(data)) or python_accepts(data)


def python_accepts(data: bytes) -> bool:
    """What `ast.parse` says. `symtable` runs the same parser without making an object of each node,
    in less time and memory, and refuses more: only then `ast` is asked."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of invalid escapes, and the like
        for parse in (
            partial(symtable.symtable, filename="document", compile_type="exec"),
            ast.parse,
        ):
            with suppress(SyntaxError, ValueError, RecursionError, MemoryError):
                parse(data)
                return True
    return False


def ruff_accepts(data: bytes) -> bool:
    try:
        return not ast_serialize.parse("document", data, python_version=VERSION)[1]
    except ValueError:  # not UTF-8
        return False


def is_doubtful(data: bytes, spans: Spans) -> bool:
    """Whether Ruff's parser may accept what `ast` does not."""
    if b"\0" in data or data.startswith(BOM_UTF8) or COOKIE.match(data):
        return True
    code = outside(data, spans)
    return (
        b"'" in code  # strings do not end where they seem to
        or b'"' in code
        or is_deep(code)
        or has_long_number(code)
        or any(form.search(code) for form in ODD_FORMS)
        or has_new_strings(data, spans)
    )


def outside(data: bytes, spans: Spans) -> bytes:
    """The code without comments and strings."""
    stops = [0, *(stop for _, stop in spans)]
    starts = [*(start for start, _ in spans), len(data)]
    return b" _ ".join([data[stop:start] for stop, start in zip(stops, starts)])


def count(data: bytes, members: bytes) -> int:
    return len(data) - len(data.translate(None, members))


def is_deep(code: bytes) -> bool:
    """Whether an expression may be too deep for one of the parsers."""
    links = count(code, LINKS)
    return links > MOST_LINKS and (
        links > MOST_LINKS_IN_ALL
        or code.count(b"elif") > MOST_BRANCHES
        or any(count(part, LINKS) > MOST_LINKS for part in STATEMENT.split(code))
    )


def has_long_number(code: bytes) -> bool:
    return count(code, DIGITS) > MOST_DIGITS and LONG_NUMBER.search(code) is not None


def has_new_strings(data: bytes, spans: Spans) -> bool:
    """Whether there is a template string before Python 3.14, or an f-string that is only read
    since 3.12, where a field may hold anything."""
    if VERSION >= (3, 14):
        return False
    unusual = []
    for start, stop in spans:
        if data[start - 1 : start] in LETTERS and (
            prefix := PREFIX.search(data, max(0, start - 3), start)
        ):
            kind = prefix[0].lower()
            if b"t" in kind:
                return True
            if b"f" in kind and not PLAIN_FIELDS.fullmatch(data, start, stop):
                unusual.append(b"f%s\n" % data[start:stop])
    return VERSION < (3, 12) and bool(unusual) and not python_accepts(b"".join(unusual))
