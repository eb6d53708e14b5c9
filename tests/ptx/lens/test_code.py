"""The small lexer and what it links, on finished and unfinished Python."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ptx.lens import code


def links(of: Callable, text: str) -> list[tuple[int, int]]:
    """(first character of the source, first character of the target)."""
    return [(link.source[0], link.target[0]) for link in of(code.lex(text))]


@pytest.mark.parametrize(
    "text",
    ["def f(x):\n    return x\n", "x = 'unfinished", 'a = """two\nlines', "f('it\\'s', b'\\", "))]",
     "# only", "\ud83d\x00 é = 1", "", "x = '\ny = 2", "1e5j + 0xFF", "a:=b**=c", 'r"\\" + "'],
)  # fmt: skip
def test_lexemes_cover_any_text(text: str) -> None:
    lexemes = code.lex(text)
    assert "".join(lexeme.text for lexeme in lexemes) == text
    assert [lexeme.start for lexeme in lexemes[1:]] == [lexeme.end for lexeme in lexemes[:-1]]


def test_lexemes_know_strings_comments_names_and_keywords() -> None:
    text = 'def f(x):  # say\n    return rb"a#" + x1 * 2.5'
    kinds = [(x.kind, x.text) for x in code.lex(text) if x.kind not in ("space", "other")]
    assert kinds == [
        ("keyword", "def"), ("name", "f"), ("name", "x"), ("comment", "# say"),
        ("newline", "\n    "), ("keyword", "return"), ("string", 'rb"a#"'), ("name", "x1"),
        ("number", "2.5"),
    ]  # fmt: skip


def test_an_unfinished_string_ends_with_its_line_or_with_the_text() -> None:
    strings = [x.text for x in code.lex('a = \'b\nc = "d\\"e') if x.kind == "string"]
    assert strings == ["'b", '"d\\"e']
    assert code.lex('"""a\n"b')[0].text == '"""a\n"b'


def test_brackets_close_the_innermost_and_strings_hide_them() -> None:
    #                             0123456789012345
    assert links(code.brackets, "f(a[0], ')', {}]") == [(5, 3), (14, 13)]
    assert links(code.brackets, ")(") == []


def test_a_name_is_linked_to_all_earlier_ones() -> None:
    #                                012345678901234
    assert links(code.identifiers, "ab = a + ab; ab") == [(9, 0), (13, 0), (13, 9)]


def test_a_use_is_linked_to_its_newest_definition() -> None:
    #       0         1         2         3         4         5         6
    #       0123456789012345678901234567890123456789012345678901234567890
    text = "def f(a, b=c):\n    x = a + b\n    x = f(x, b=x.a)\n    for i in x: i"
    expected = {
        text.index("a + b"): text.index("a, b"),
        text.index("b\n"): text.index("b="),
        text.index("f(x"): text.index("f("),
        text.index("x, b"): text.index("x = f"),  # a keyword argument's value and its object
        text.index("x.a"): text.index("x = f"),
        text.index("x: i"): text.index("x = f"),
        len(text) - 1: text.index("i in"),
    }
    found = dict(links(code.definitions, text))
    found.pop(text.index("b=x.a"))  # its name is the parameter's, which is right
    assert found == expected


def test_imports_and_walruses_define() -> None:
    assert links(code.definitions, "import re as r\nif (m := r): m; re") == [
        (24, 13), (28, 19), (31, 7),
    ]  # fmt: skip


def test_a_line_begins_with_the_newline_and_indentation_before_it() -> None:
    text = "a\n    b c\nd"
    assert {(text[s], t) for s, t in links(code.line_starts, text) if text[s] != " "} == {
        ("b", 1), ("c", 1), ("d", 9),
    }  # fmt: skip


def test_indentation_is_linked_to_earlier_of_the_same_depth() -> None:
    #                                 0 12345678 9 01 2
    assert links(code.indentations, "a\n  b\n  c\nd\n") == [(5, 1), (11, 9)]


def test_a_string_or_comment_is_linked_to_where_it_opens() -> None:
    (string, comment) = code.quotations(code.lex("x = 'abc'  # def"))
    assert string == ((4, 9), (4, 5))
    assert comment == ((11, 16), (11, 12))
