"""What in a piece of Python belongs to what, as far as it has been written.

A small lexer that takes anything, unfinished strings and brackets included, and from it which
characters a head with a role for code would look at. No parser: most text under the lens does not
parse yet.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterator
from typing import NamedTuple

# In order of preference. Strings may lack their end: one with a single quote stops at its line's.
LEXEME = re.compile(
    "|".join(
        [
            r"(?P<newline>\n[ \t]*)",
            r"(?P<space>[^\S\n]+)",
            r"(?P<comment>\#[^\n]*)",
            r"(?P<string>[rRbBuUfFtT]{0,2}(?:"
            r"(?P<triple>\"\"\"|''')(?:\\.|[^\\])*?(?:(?P=triple)|\\?\Z)|"
            r"(?P<quote>[\"'])(?:\\.|(?!(?P=quote))[^\\\n])*(?:(?P=quote)|\\?)))",
            r"(?P<number>\.?\d[\w.]*)",
            r"(?P<word>[^\W\d]\w*)",
            r"(?P<operator>[-+*/%@&|^<>=!:]=|//=|\*\*=|>>=|<<=|->)",
            r"(?P<other>.)",
        ]
    ),
    re.DOTALL,
)
CLOSES = {")": "(", "]": "[", "}": "{"}
DEFINES_NEXT = {"def", "class", "as", "import", "for"}
"""Words after which a name begins to mean something."""
ASSIGNS = {"=", ":="}


class Lexeme(NamedTuple):
    """A piece of the text, from character `start` to before `end`."""

    kind: str
    text: str
    start: int
    end: int


class Link(NamedTuple):
    """Two stretches of characters: who reads `source` would look at `target`, which is earlier."""

    source: tuple[int, int]
    target: tuple[int, int]


def lex(text: str) -> list[Lexeme]:
    """Lexemes that cover `text`: newline (with the indentation after it), space, comment, string,
    number, name, keyword, operator, other. Never fails."""
    found = []
    for match in LEXEME.finditer(text):
        kind = str(match.lastgroup)  # the outermost group
        if kind == "word":
            kind = "keyword" if keyword.iskeyword(match[0]) else "name"
        found.append(Lexeme(kind, match[0], *match.span()))
    return found


def brackets(lexemes: list[Lexeme]) -> Iterator[Link]:
    """Closing bracket -> the bracket that it closes. One that closes nothing is passed over."""
    opened: list[Lexeme] = []
    for lexeme in lexemes:
        if lexeme.kind != "other":
            continue
        if lexeme.text in CLOSES.values():
            opened.append(lexeme)
        elif opened and CLOSES.get(lexeme.text) == opened[-1].text:
            yield Link(lexeme[2:], opened.pop()[2:])


def identifiers(lexemes: list[Lexeme]) -> Iterator[Link]:
    """A name -> every earlier occurrence of it."""
    seen: dict[str, list[Lexeme]] = {}
    for lexeme in lexemes:
        if lexeme.kind == "name":
            before = seen.setdefault(lexeme.text, [])
            yield from (Link(lexeme[2:], earlier[2:]) for earlier in before)
            before.append(lexeme)


def definitions(lexemes: list[Lexeme]) -> Iterator[Link]:
    """A name in use -> the newest place before it where it got its meaning: after def, class, as,
    import or for, among a function's parameters, or to the left of an assignment. Attributes
    (`x.name`) have no such place and are passed over."""
    code = [lexeme for lexeme in lexemes if lexeme.kind not in ("space", "newline", "comment")]
    defined: dict[str, Lexeme] = {}
    depth, parameters = 0, -1  # of brackets; the depth of a def's parameters, -1 outside
    for i, lexeme in enumerate(code):
        before = code[i - 1].text if i else ""
        after = code[i + 1].text if i + 1 < len(code) else ""
        if lexeme.text in CLOSES.values() and lexeme.kind == "other":
            depth += 1
            if i > 1 and code[i - 2].text == "def":
                parameters = depth
        elif lexeme.text in CLOSES and lexeme.kind == "other":
            parameters = -1 if depth == parameters else parameters
            depth = max(0, depth - 1)
        elif lexeme.kind == "name" and before != ".":
            parameter = depth == parameters and before in ("(", ",", "*", "**")
            assigned = after in ASSIGNS and (depth == 0 or after == ":=")
            if before in DEFINES_NEXT or parameter or assigned:
                defined[lexeme.text] = lexeme
            elif lexeme.text in defined:
                yield Link(lexeme[2:], defined[lexeme.text][2:])


def line_starts(lexemes: list[Lexeme]) -> Iterator[Link]:
    """Anything in a line -> the newline and indentation that it began with."""
    start: Lexeme | None = None
    for lexeme in lexemes:
        if lexeme.kind == "newline":
            start = lexeme
        elif start:
            yield Link(lexeme[2:], start[2:])


def indentations(lexemes: list[Lexeme]) -> Iterator[Link]:
    """A newline and its indentation -> earlier ones of the same depth."""
    seen: dict[str, list[Lexeme]] = {}
    for lexeme in lexemes:
        if lexeme.kind == "newline":
            before = seen.setdefault(lexeme.text, [])
            yield from (Link(lexeme[2:], earlier[2:]) for earlier in before)
            before.append(lexeme)


def quotations(lexemes: list[Lexeme]) -> Iterator[Link]:
    """A string or a comment -> its first character. Not all of it: a head that looks a few tokens
    back, wherever it is, would seem to have this role."""
    for lexeme in lexemes:
        if lexeme.kind in ("string", "comment"):
            yield Link(lexeme[2:], (lexeme.start, lexeme.start + 1))
