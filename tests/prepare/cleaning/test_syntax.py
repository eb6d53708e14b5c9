"""Comments are counted and the parser is asked, against ast and tokenize."""

from __future__ import annotations

import ast
import io
import sysconfig
import tokenize
import warnings
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prepare.cleaning.syntax import comment_fault, comment_share, quoted, syntax_fault

STDLIB = Path(sysconfig.get_path("stdlib"))
MODULES = ["argparse.py", "ast.py", "json/decoder.py", "textwrap.py", "typing.py", "difflib.py"]


def fault_of(data: bytes) -> str | None:
    return syntax_fault(data, quoted(data))


def share(data: bytes) -> float:
    return comment_share(data, quoted(data))


@pytest.mark.parametrize("name", MODULES)
def test_comments_and_strings_are_those_of_tokenize(name: str) -> None:
    data = (STDLIB / name).read_bytes()
    lines = data.decode().splitlines(keepends=True)
    expected = {
        sum(len(line.encode()) for line in lines[: t.start[0] - 1])
        + len(lines[t.start[0] - 1][: t.start[1]].encode())
        for t in tokenize.tokenize(io.BytesIO(data).readline)
        if t.type in (tokenize.COMMENT, tokenize.STRING)
    }
    prefixes = b"rRbBuUfF"
    found = set()
    for start, _ in quoted(data):
        while start and data[start - 1] in prefixes and data[start] != ord("#"):
            start -= 1
        found.add(start)
    assert len(found ^ expected) <= 0.01 * len(expected)


@pytest.mark.parametrize("name", MODULES)
def test_the_share_of_comments_is_that_of_ast_and_tokenize(name: str) -> None:
    data = (STDLIB / name).read_bytes()
    comments = sum(
        len(t.string.encode())
        for t in tokenize.tokenize(io.BytesIO(data).readline)
        if t.type == tokenize.COMMENT
    )
    docstrings = sum(
        len(ast.get_source_segment(data.decode(), node.body[0]).encode())
        for node in ast.walk(ast.parse(data))
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
        and ast.get_docstring(node) is not None
    )
    assert share(data) == pytest.approx((comments + docstrings) / len(data), rel=0.05, abs=0.003)


def test_a_hash_in_a_string_is_no_comment() -> None:
    assert share(b"x = '# no'\n") == 0
    assert share(b"# yes\n") == pytest.approx(5 / 6)


@pytest.mark.parametrize(
    ("data", "removed"),
    [
        (b"x = 1\n" * 100, True),
        (b"# note\n" + b"x = 1\n" * 50, False),
        (b"# only comments\n" * 50, True),
        (b'"""Only a docstring."""\n', True),
    ],
)
def test_too_few_and_too_many_comments_are_removed(data: bytes, removed: bool) -> None:
    assert (comment_fault(data, quoted(data)) is not None) == removed


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        ("print('x')\n", None),
        ("match x:\n    case [a, *_]: pass\n", None),
        ("s = '\\d'\n", None),
        ("print 'x'\n", "Python 2"),
        ("try:\n    pass\nexcept IOError, e:\n    pass\n", "Python 2"),
        ("raise ValueError, 'no'\n", "Python 2"),
        ("x = 0777\n", "Python 2"),
        ("if a <> b: pass\n", "Python 2"),
        ("x = ur'a'\n", "Python 2"),
        ("x = 10L\n", "Python 2"),
        ("def f(:\n", "does not parse"),
        ("x = '\n", "does not parse"),
        ("x\0y\n", "does not parse"),
        ("(" * 5_000, "does not parse"),
    ],
)
def test_what_the_parser_refuses_is_found_and_python_2_told_apart(
    code: str, fault: str | None
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert fault_of(code.encode()) == fault


@given(st.text(alphabet="()[]:x=1 \n\t'\"#\\def", max_size=60))
def test_what_ast_refuses_is_refused(code: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            ast.parse(code)
        except (SyntaxError, ValueError):
            assert fault_of(code.encode()) is not None
