"""Whether a text can still become Python, wherever it stops."""

from __future__ import annotations

import gc
import inspect
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from ptx import stream
from ptx.prefix import can_go_on


@pytest.mark.parametrize(
    "text",
    [
        "x = ",
        "x = foo(a, b",
        "x = y i",  # if, in, is
        "x not i",
        "x = a.is",  # isdigit
        "s = 'ab",
        "a = '\\",
        '"""abc\n def',
        "f'{a",
        "def f(x):\n    if x:\n        ",
        "def f(x):\n    if x:\n",
        "def f(x):\n    if x:\n        y\n  ",
        "f(a=1, b",
        "try:\n    a\nex",
        "try:\n    a\n",
        "@a.b\nde",
        "# foo",
        "f([1]\n\n    ",
        "a = \\",
        "x = 1e",
        "x = 1e-",
        "('abc'\n    f",
        "{**a, *",
        "match x:\n    ca",
        "def f(a) -",
        "x = rb'\\",
        "x = ('a' 'b",
        "x = 0x",
        "",
        'x = f"{',
        'x = f"{a',
        'x = f"{a!',
        'x = f"{a:{',
        'x = f"{a:{w}',
        'x = f"{a}}',
        'x = f"{(a, [',
        "x = f\"{a['b",
        'x = (f"{a}"',
        "x = '\\x4",
        "x = '\\N{GREEK",
        "p = 'C:\\\\Users",
        "x = b'a",
        "x = 1 + \\\r\n",
        "x = [\r\n  1,\r",
        'x = f"""a\n    ',
        '"""C:\\U',
        '"""\\x4',
        '"""\\N{DASH',
        '"""a"',
        '"""\\x41"',
        'r"""C:\\Users',
        "b'''a",
        'x = f"""{a',
        'x = f"""{a["b"',
        'x = f"""{(a,\n',
        "f'{a!r",
        "f'{a!r:",
        "f'{a:!x",
        "f'{a}!x",
    ],
)
def test_a_text_that_stops_anywhere_can_go_on(text: str) -> None:
    assert can_go_on(text)


@pytest.mark.parametrize(
    "text",
    [
        "x = = ",
        "x = y z",
        "x = foo(a b",
        "x = if ",
        "s = 'ab\n",
        "s = 'ab\n    ",
        "s = 'ab\nc",
        "def f(x):\n    if x:\n    y",
        "def f():\n    x\n       y",
        "f(a=1, b)",
        "try:\n    a\nb",
        "@a.b\nx",
        "x = {'a': 1, b}",
        "class A: x y",
        "x = [\n  1\n 2",
        "f([1]\n\n    def",
        "x = [1]\n\n    ",
        "def f():\n    x\n        ",
        "x = 1 2",
        " x",
        "x = a if b)",
        "x = 1\0",
        "x = {'a': 1 '",
        "y = = 2\nz = 'ab",
        "y = = \\",
        "print 'a",
        'x = f"{}',
        'x = f"{a b} ',
        'x = (f"{} items"',
        "p = 'C:\\Users\\me",
        "x = 'a\\x4g",
        "x = b'é",
        "x = b'é'",
        'if x:\n"""',
        "if x:\n'''doc\n",
        'def f():\nr"""a',
        'x = 1\n  """',
        '@f\n"""a\nb',
        'def f():\n    """Use \\usepackage{x}.\n',
        '"""C:\\Users',
        '"""\\xzz"',
        '"""\\xzz \\x4',
        '"""\\N{foo}',
        "b'''é",
        'x = f"""{a b} ',
        "f'{a!rr",
        "f'{a!x",
        "f'{a!x:",
    ],
)
def test_a_text_that_cannot_be_python_any_more_cannot(text: str) -> None:
    assert not can_go_on(text)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="the first string ends at these quotes")
@pytest.mark.parametrize(
    ("text", "can"),
    [
        ('x = f"{"', True),
        ('x = f"{d["', True),
        ('x = f"{d["a', True),
        ('x = f"{a:{w["b', True),
        ('x = f"{d["a"]}', True),
        ('x = f"{d["a\n', False),
        ('x = f"{d["\\xzz', False),
        ('x = f"{f"{a!x', False),
    ],
)
def test_a_string_in_an_f_string_may_have_the_same_quotes(text: str, can: bool) -> None:
    assert can_go_on(text) is can


def test_real_python_can_go_on_wherever_it_is_cut() -> None:
    source = inspect.getsource(stream)[-6_000:]
    source = source[source.index("\ndef ") :]
    ends = range(1, len(source))
    assert len(ends) > 1_000
    assert [source[:end] for end in ends if not can_go_on(source[:end])] == []


@pytest.fixture
def restless() -> Iterator[None]:
    """Threads take turns whenever memory is tidied up, which is all the time."""
    usual = gc.get_threshold()

    def let_others(phase: str, info: dict[str, int]) -> None:
        time.sleep(0)

    gc.callbacks.append(let_others)
    gc.set_threshold(50)
    yield
    gc.set_threshold(*usual)
    gc.callbacks.remove(let_others)


@pytest.mark.usefixtures("restless")
def test_threads_may_ask_at_once() -> None:
    """Python 3.11 itself fails then with a SystemError."""
    text = "def f(a):\n    return [a, (a, {a: [[[[a]]]]})]\n" * 30
    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(can_go_on, [text] * 40))
