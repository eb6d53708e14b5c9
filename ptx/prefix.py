"""Whether a text that stops anywhere can still become Python: asked of Python's own parser."""

from __future__ import annotations

import ast
import codeop
import keyword
import os
import re
import sys
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

INCOMPLETE = "incomplete input"
FLAGS = ast.PyCF_ONLY_AST | codeop.PyCF_ALLOW_INCOMPLETE_INPUT
"""A syntax tree and no code, as Python's interactive prompt compiles: text that only lacks its end
fails with "incomplete input"."""
GOES_ON = "\\\n"
"""Put after a text, the parser gets to the end of what is there, and no further, if it can."""
BLANK = " \t\f\r"
WORDS = [*keyword.kwlist, *keyword.softkwlist]
LAST_WORD = re.compile(r"\w+\Z")
TRIPLE = ('"""', "'''")
OPENING = re.compile(rf"(\w*)({'|'.join(TRIPLE)}|['\"])")
"""Of a string: its prefix and its quotes."""
LOOKED_INTO = re.compile(r"\\|\A\w*[bf]", re.I)
"""What a string has if Python may find fault with what is in it."""
OPERATORS = ("!=", "==", "->", ":=", "...", "**")
"""Those that begin with what is none, or another one."""
STRING_FAULT = re.compile(r"f-string|\(unicode error\)|\(value error\)|bytes can only")
"""How Python's messages about what is in a string begin."""
FSTRING_OPEN = re.compile(r"f-string: (expecting '}'|unterminated string|unmatched '[([{]')")
"""Those that only tell of a missing end."""
SAME_QUOTES = "f-string: expecting '}'"
"""What Python 3.12 says of an open string whose quotes are those of the f-string around it."""
CONVERSION = re.compile(r"!(?![rsa]\b)[^\W\d]\w*(:[^{}'\"]*)?\Z")
"""None that the field of an f-string may have, if it is in one."""
ESCAPE_OPEN = re.compile(r"\\(x[\da-fA-F]?|u[\da-fA-F]{0,3}|U[\da-fA-F]{0,7}|N(\{[^}]*)?)\Z")
NAME = "<text>"
# invalid escapes are Python all the same
warnings.filterwarnings("ignore", module=NAME)

_alone = threading.Lock()


def parse(text: str, flags: int = FLAGS) -> None:
    """Raises what Python's parser does. One text at a time: Python 3.11 counts how deep trees are
    that several threads make as if they were one thread's."""
    with _alone:
        compile(text, NAME, "exec", flags, dont_inherit=True)


def _after_fork() -> None:
    """The thread that had it, if one had, is not in the new process."""
    global _alone
    _alone = threading.Lock()


if hasattr(os, "register_at_fork"):  # Windows never forks
    os.register_at_fork(after_in_child=_after_fork)


if sys.version_info < (3, 11):  # noqa: UP036  (ZeroGPU has 3.10)
    # It does not count how deeply "a.b.c" and the like are nested: a long text of nothing else
    # overruns a usual stack, and that ends the process. So it parses in a thread whose stack is
    # twice what the longest text needs that the page takes; only what is used of it takes memory.
    _parse = parse

    def _start() -> None:
        global _thread
        usual = threading.stack_size(128 << 20)
        _thread = ThreadPoolExecutor(1, "parse")
        _thread.submit(int).result()  # it starts now, with this stack
        threading.stack_size(usual)

    _start()
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_start)  # threads stay behind

    def parse(text: str, flags: int = FLAGS) -> None:
        """Raises what Python's parser does."""
        _thread.submit(_parse, text, flags).result()


def syntax_error(text: str, ended: bool = False, flags: int = FLAGS) -> SyntaxError | None:
    """Why a text is not Python, or would not be if it went on after its last whole line; None if it
    is.

    ended: nothing is to come, so it has to be whole.
    """
    try:
        parse(text if ended else text[: text.rfind("\n") + 1], flags)
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
    text = text.replace("\r\n", "\n").replace("\r", "\n").removesuffix("\\")
    since = _open_string(text)
    if since is not None:
        opening = OPENING.match(text, since)
        if _wrong_so_far(text, opening):
            return False
        text = text[: opening.end()] + opening[2]  # whether there may be one
    elif _wrong_conversion(text) or (text.endswith(("'", '"')) and _string_fault(text)):
        return False
    if not _last_line(text).strip(BLANK):  # nothing but an indent, or nothing at all
        return _excused(syntax_error(text)) and not _too_deep(text)
    return _reaches_end(text) or any(map(_reaches_end, _longer(text)))


def _last_line(text: str) -> str:
    return text[text.rfind("\n") + 1 :]


def _open_string(text: str) -> int | None:
    """Where a string begins, with its prefix, that is open; one of several lines may be missed that
    has such quotes in it."""
    lines, flags = text.split("\n"), FLAGS
    if any(text.count(quotes) % 2 for quotes in TRIPLE):
        flags = ast.PyCF_ONLY_AST  # so that it is no text that only lacks its end
    elif "'" not in lines[-1] and '"' not in lines[-1]:
        return None
    error = syntax_error(text + "\n", flags=flags)
    message = str(error and error.msg)
    same_quotes = message == SAME_QUOTES and sys.version_info >= (3, 12)
    on_last_line = message.endswith(f"literal (detected at line {len(lines)})")
    if not (on_last_line or same_quotes or message.startswith("unterminated triple-quoted")):
        return None
    since = sum(len(line) + 1 for line in lines[: error.lineno - 1]) + error.offset - 1
    opening = OPENING.match(text, since)
    goes_on = opening and (opening[2] in TRIPLE or error.lineno == len(lines))
    return since if goes_on or not same_quotes else None


def _string_fault(text: str) -> str:
    """What Python finds wrong in the string that the text ends with, if anything."""
    error = syntax_error(text + "+" + GOES_ON)  # it is looked into once it is known to be the last
    message = str(error and error.msg)
    return message if STRING_FAULT.match(message) else ""


def _wrong_so_far(text: str, opening: re.Match[str]) -> bool:
    """Whether the string that begins there, and is open, is wrong however it goes on."""
    if not LOOKED_INTO.search(text[opening.start() :]):
        return False
    begun, quotes = text[: opening.end()], opening[2]
    content = ESCAPE_OPEN.sub("", text[opening.end() :])
    gap = " " if content.endswith(quotes[0]) else ""  # else that would be one of its quotes
    fault = _string_fault(begun + content + gap + quotes)
    may_double = content.endswith("}") and "single '}'" in fault
    excused = may_double or content.endswith("!") or FSTRING_OPEN.match(fault)
    return bool(fault and not excused) or _wrong_conversion(text, quotes)


def _wrong_conversion(text: str, quotes: str = "") -> bool:
    """Whether the text ends in the field of an f-string, after a conversion that is none.

    quotes: what ends the f-string, before Python 3.12.
    """
    if not CONVERSION.search(text):
        return False
    fault = _string_fault(text + "}" + quotes)
    return fault.startswith(("f-string: invalid conversion", "f-string: expecting '}'"))


def _too_deep(text: str) -> bool:
    """Whether a statement that begins here stands deeper than is allowed, and so with any more
    indent. An empty line or a comment might; nobody indents those so."""
    error = syntax_error(text + "x" + GOES_ON)
    return error is not None and error.msg == "unexpected indent"


def _reaches_end(text: str) -> bool:
    return _excused(syntax_error(text + GOES_ON))


def _excused(error: SyntaxError | None) -> bool:
    """Whether there is none, or one of an f-string that is open, which Python 3.12 has."""
    return error is None or bool(re.match("unterminated .*f-string", str(error.msg)))


def _longer(text: str) -> Iterator[str]:
    """The text with what its last word or sign may become. One that is too long is just no Python:
    what is dead stays dead."""
    yield text + "0"  # 1e-, 0x, .
    for sign in OPERATORS:
        if any(text.endswith(sign[:n]) for n in range(1, len(sign))):
            yield text + sign[-1]
    if text.endswith("}"):
        yield text + "}"  # in an f-string of Python 3.12
    if found := LAST_WORD.search(text):
        word = found.group()
        if len(word) <= 2:
            yield text + "''"  # the prefix of a string
        if keyword.iskeyword(word):
            yield text + "x"
        yield from (text + k[len(word) :] for k in WORDS if k.startswith(word) and k != word)
