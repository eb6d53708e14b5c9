"""Whether a text that stops anywhere can still become Python: asked of Python's own parser."""

from __future__ import annotations

import ast
import keyword
import re
import sys
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

INCOMPLETE = "incomplete input"
FLAGS = ast.PyCF_ONLY_AST | 0x4000
"""A syntax tree and no code, with CPython's PyCF_ALLOW_INCOMPLETE_INPUT, what its interactive
prompt compiles with: text that only lacks its end fails with "incomplete input"."""
GOES_ON = "\\\n"
"""Put after a text, the parser gets to the end of what is there, and no further, if it can."""
BLANK = " \t\f\r"
WORDS = [*keyword.kwlist, *keyword.softkwlist]
LAST_WORD = re.compile(r"\w+\Z")
PREFIX = re.compile(r"\w*")
OPERATORS = ("!=", "==", "->", ":=", "...", "**")
"""Those that begin with what is none, or another one."""
NAME = "<text>"
# invalid escapes are Python all the same
warnings.filterwarnings("ignore", module=NAME)


def parse(text: str) -> None:
    """Raises what Python's parser does."""
    compile(text, NAME, "exec", FLAGS, dont_inherit=True)


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


def syntax_error(text: str, ended: bool = False) -> SyntaxError | None:
    """Why a text is not Python, or would not be if it went on after its last whole line; None if it
    is.

    ended: nothing is to come, so it has to be whole.
    """
    try:
        parse(text if ended else text[: text.rfind("\n") + 1])
    except SyntaxError as error:
        lacks_its_end = error.msg == INCOMPLETE
        if ended and lacks_its_end:
            return SyntaxError("the text lacks its end")
        return None if lacks_its_end else error
    except (ValueError, RecursionError, MemoryError) as error:  # NUL bytes, or too deep for it
        return SyntaxError(str(error))
    return None


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
