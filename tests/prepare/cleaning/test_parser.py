"""The fast parser says what `ast` says."""

from __future__ import annotations

import ast
import random
import re
import sysconfig
import warnings
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prepare.cleaning import parser
from prepare.cleaning.parser import accepts
from prepare.cleaning.syntax import quoted

STDLIB = Path(sysconfig.get_path("stdlib"))
MODULES = sorted(STDLIB.glob("*.py"))
WORDS = re.compile(rb"\s+|\w+|[^\w\s]")
STRAY = [
    *b"()[]{}:,=.*@!$?\\'\"\n\t#;\x00",
    *(b"lambda yield await not in f\" b' 01 := -> *a for").split(),
]


def ast_accepts(data: bytes) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            ast.parse(data)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return False
    return True


def same_verdict(data: bytes) -> bool:
    return accepts(data, quoted(data)) == ast_accepts(data)


def test_the_standard_library_is_judged_as_by_ast() -> None:
    assert len(MODULES) > 150
    assert [p.name for p in MODULES if not same_verdict(p.read_bytes())] == []


def test_most_of_the_standard_library_is_read_by_the_fast_parser_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    texts = [path.read_bytes() for path in MODULES]
    asked = []
    monkeypatch.setattr(parser, "python_accepts", lambda data: asked.append(data) or True)
    for data in texts:
        accepts(data, quoted(data))
    assert sum(map(len, asked)) < 0.15 * sum(map(len, texts))


@pytest.mark.parametrize("seed", range(4))
def test_broken_modules_are_judged_as_by_ast(seed: int) -> None:
    draw = random.Random(seed)
    for _ in range(150):
        data = draw.choice(MODULES).read_bytes()
        functions = re.split(rb"\n(?=def |class |@)", data)
        words = WORDS.findall(draw.choice(functions)[:3_000])
        for _ in range(draw.choice((1, 1, 2))):
            i = draw.randrange(len(words))
            stray = draw.choice(STRAY)
            other = bytes([stray]) if isinstance(stray, int) else stray
            words[i : i + draw.randrange(3)] = draw.choice([[], [other], [draw.choice(words)]])
            words.append(b"\n")
        assert same_verdict(b"".join(words)), b"".join(words)


@given(
    st.lists(
        st.sampled_from(["{", "}", "x", '"', "'", "!r", ":", "\n", "*", "{x}", "#", "\\", " "]),
        max_size=8,
    )
)
def test_f_strings_are_judged_as_by_ast(parts: list[str]) -> None:
    for quote in ('"', "'", '"""'):
        assert same_verdict(f"s = f{quote}{''.join(parts)}{quote}\n".encode())


@given(st.binary(max_size=80))
def test_any_bytes_are_judged_as_by_ast(data: bytes) -> None:
    assert same_verdict(data)


@pytest.mark.parametrize(
    "code",
    [
        "type X = int\n",
        "def f[T](x: T): pass\n",
        "class A[T]: pass\n",
        "try: pass\nexcept A, B: pass\n",
        "try: pass\nexcept* A: pass\n",
        "s = t'{x}'\n",
        "s = f'{'x'}'\n",
        "s = f'{x\n}'\n",
        "s = f'{*x, *y}'\n",
        "s = [*x for x in y]\n",
        "s = [\n    *f(x, g(y))\n    for x in y\n]\n",
        "f(*x for x in y)\n",
        "s = {**x for x in y}\n",
        "lazy import x\n",
        "yield , x\n",
        "yield@x\n",
        "nonlocal x\n",
        "def f(a, a): pass\n",
        "# coding: latin-1\ns = '\xe9'\n",
        "# coding: nonsense\n",
        "\ufeff# coding: latin-1\n",
        "x = " + "1" * 5_000 + "\n",
        "x = '\\N{no such character}'\n",
        "x\0",
        "a" + ".b" * 2_500,
        "if a:\n x\n" + "elif b:\n x\n" * 2_000,
    ],
)
def test_where_the_parsers_differ_ast_decides(code: str) -> None:
    assert same_verdict(code.encode())
    assert same_verdict(("import this\n\n" + code).encode())


@pytest.mark.parametrize("link", ["+1", ".a", "()", "[0]", "|a", "**a", "(b)(c)", "\\\n.a", "@a"])
def test_endless_expressions_do_not_end_the_process(link: str) -> None:
    code = ("a" + link * 200_000).encode()
    assert not accepts(code, quoted(code))
    assert not accepts(b"x = (" + code + b")", quoted(code))
