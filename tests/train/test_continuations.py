"""What counts as Python that only lacks its end, and what does not."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from ptx.config import PRESETS
from ptx.errors import UserError
from ptx.model import GPT
from ptx.tokenizer import python_tokenizer
from train.continuations import (
    Continuation,
    bracket_closures,
    judge,
    line_depths,
    measure,
    parses,
    prompts,
    repeats,
    statements_parse,
)
from train.heldout import Text

WHOLE = "def f(a):\n    if a:\n        return [a]\n    return None\n"


@pytest.mark.parametrize(
    "text",
    [
        WHOLE,
        "x = (1,\n     2",  # a bracket is open
        "def f():\n    '''Does",  # a string is
        "def f():\n    '''Does\n    it",
        "if x:\n",  # a block has not begun
        "if x:\n    pass\nelse:\n",
        "try:\n    f()\n",  # its handler is to come
        "@decorator\n",
        "x = 1 +",  # the last line is cut anywhere
        "x = 1\nimpor",
        "x = 'ab",
        "x = 1 + \\\n",
        "",
    ],
)
def test_text_that_only_lacks_its_end_parses(text: str) -> None:
    assert parses(text)


@pytest.mark.parametrize(
    "text",
    [
        "x = = 1\n",
        "def f(:\n    pass\n",
        "f(\ndef g():\n    pass\n",  # no bracket closes over this
        "x = 1\n    y = 2\n",
        "if x:\ny = 2\n",
        "def f():\n        a\n    b\n",
        "x = )\ny = 1\n",
        "x = 'ab\ny = 1\n",
        "x = 1 +\n",
        "return = 3\nx",
        "\0\n",
    ],
)
def test_text_that_is_wrong_before_its_end_does_not(text: str) -> None:
    assert not parses(text)


def test_a_text_that_says_it_is_at_its_end_has_to_be_whole() -> None:
    assert parses(WHOLE, ended=True)
    assert not parses("x = (1,\n", ended=True)
    assert not parses("def f():\n", ended=True)


def test_every_beginning_of_a_module_parses() -> None:
    text = (
        "import os\n\n\nclass A(\n    dict,\n):\n    '''Doc\n\n    more'''\n\n    x = [\n"
        "        1,\n    ]\n\n    @property\n    def f(self):\n        try:\n            return {\n"
        "                'a': (1, 2),\n            }\n        except KeyError:\n            raise\n"
    )
    assert [i for i in range(len(text)) if not parses(text[:i])] == []


@pytest.mark.parametrize(
    ("text", "fine"),
    [
        ("x = 1\nf(\ndef g():\n    pass\n", True),  # one statement, which is never complete
        ("def f():\n    g([1, 2\n    y = 3\n    return y\n", True),
        ("def f():\n    x = [1, '''two\n    y = 3\n", True),
        ("x = = 1\nf(\ndef g():\n    pass\n", False),
        ("f(\ndef g():\n    pass\nx = 'ab", True),  # the last line may be cut anywhere
        ("f(\ndef g():\n    pass\n)", True),
        ("f(1]\ny = 2\n", False),  # closed, and by the wrong one
        ("f([1)\ny = 2\n", False),
        ("f('abc\ny = 1\n", False),  # a string that does not end on its line
        ("print('hello (world\ny = 1\n", False),
        ("x = (1, ?\ny = 1\n", False),  # no token of Python
        ("f(\ndef g():\n    pass\n)\n", False),
        ("x = 'ab\ny = 1\n", False),
        ("x = 1\n    y = 2\n", False),
        ("def f():\n        a\n    b\n", False),
        (WHOLE, True),
    ],
)
def test_a_statement_that_is_never_complete_is_not_judged(text: str, fine: bool) -> None:
    assert statements_parse(text) == fine
    assert not statements_parse(text, ended=True) or text == WHOLE


def closures(prompt: str, text: str) -> list[bool]:
    return list(bracket_closures(Continuation(prompt, text, False, "")))


def test_brackets_opened_in_the_first_half_have_to_be_closed_by_the_right_one() -> None:
    assert closures("f(", "[1, (2)], 3)" + " " * 20) == [True, True]  # not the prompt's own
    assert closures("", "f([1)" + " " * 20) == [False, False]
    assert closures("", "f('(', g" + " " * 20) == [False]  # one in a string is none
    assert closures("", " " * 20 + "f(") == []  # too late to be closed


def depths(prompt: str, text: str) -> list[bool]:
    return list(line_depths(Continuation(prompt, text, False, "")))


def test_lines_have_to_stand_at_an_open_level_or_one_in_after_a_colon() -> None:
    assert depths("def f():\n    a", "\n    b\nc\n") == [True, True]
    assert depths("if x:", "\n    a\n") == [True]
    assert depths("if x:", "\na\n") == [False]
    assert depths("a", "\n    b\n") == [False]
    assert depths("if x:\n        a", "\n    b\n") == [False]
    assert depths("x = {1:", "\n  2,\n      3}\ny\n") == [True]  # inside brackets all is allowed


def test_the_check_can_fail() -> None:
    good = Continuation(WHOLE[:20], WHOLE[20:], False, ") = oops\n")
    bad = replace(good, text="=\n" + good.text)
    found = judge([good, bad], [replace(good, tokens=4, refused=1)])
    assert (found.parsed, found.parsed_control, found.continuations) == (0.5, 0.0, 2)
    assert (found.parsed_python, found.refused) == (1.0, 0.25)
    assert (found.statements, found.statements_control) == (0.5, 0.0)


def test_lines_that_come_again_are_repeats_unless_they_say_little() -> None:
    assert list(repeats("return value\n    return value\nreturn other\n")) == [False, True, False]
    assert not list(repeats("else:\n    pass\nelse:\n    pass\n"))
    found = judge([Continuation("a = 1", "\ncall(first)" * 4, False, "\ncall(first)")], [])
    assert (found.repeated, found.repeated_control) == (0.75, 0.0)


def test_a_model_is_measured_and_the_same_seed_gives_the_same() -> None:
    tokenizer = python_tokenizer("bytes", {bytes([i]): i for i in range(256)})
    torch.manual_seed(0)
    shape = replace(PRESETS["nano"], vocab_size=257, context=64, n_layer=1, d_model=32, d_mlp=32)
    model = GPT(shape).eval()
    texts = [Text("a", (WHOLE.encode() * 20, WHOLE.encode() * 9, b"short"))]
    begun = prompts(texts, 3, seed=1)
    found = measure(begun, model, tokenizer, seed=1)
    assert found == measure(begun, model, tokenizer, seed=1)
    assert found.continuations == 3
    assert found.refused > 0.1  # noise is seldom Python
    begun = prompts(texts, 40, seed=1)
    assert {other == begun[0][0] for _, other in begun} == {False}
    assert all((WHOLE * 20).startswith(prompt) and parses(prompt) for prompt, _ in begun)
    with pytest.raises(UserError, match="continuations need two files"):
        prompts([Text("a", (b"x = 1\n" * 500,))], 3, seed=0)
