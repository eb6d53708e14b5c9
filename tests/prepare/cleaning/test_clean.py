"""One document through all steps."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prepare.cleaning.clean import Cleaner
from prepare.cleaning.rules import REASONS, Rules
from prepare.sources import Document
from ptx.tokenizer import get_tokenizer

PY16K = get_tokenizer("py16k")
CLEANER = Cleaner(Rules(), PY16K)
NOTHING = Cleaner(Rules(**{f.name: False for f in fields(Rules) if f.name != "benchmarks"}), PY16K)
GOOD = Path(__file__).read_bytes()


def fault(content: bytes | None, cleaner: Cleaner = CLEANER, **source: str) -> str | None:
    return cleaner.clean(Document(content, "a.py", "a", **source)).fault


@given(st.binary(max_size=400), st.sampled_from(["", "unknown", "MIT", "\ud800 ((", "GPL-3.0"]))
def test_any_bytes_pass_and_kept_tokens_decode_to_the_kept_text(data: bytes, licence: str) -> None:
    for cleaner in (CLEANER, NOTHING):
        cleaned = cleaner.clean(Document(data, "a.py", "a", licence=licence))
        assert cleaned.size == len(data)
        assert (cleaned.fault is None) == bool(cleaned.content)
        assert cleaned.fault is None or cleaned.fault in REASONS
        assert PY16K.decode(cleaned.tokens.tolist()) == cleaned.content


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=200))
def test_without_any_step_text_stays_what_it_is(text: str) -> None:
    data = text.encode()
    assert NOTHING.clean(Document(data, "a.py", "a")).content == (data if data.strip() else b"")


@pytest.mark.parametrize(
    ("content", "source", "expected"),
    [
        (GOOD, {}, None),
        (GOOD, {"licence": "MIT", "language": "Python"}, None),
        (None, {}, "not delivered"),
        (GOOD, {"language": "Java"}, "another language"),
        (b"", {}, "empty"),
        (GOOD, {"licence": "unknown"}, "licence"),
        (GOOD, {"licence": "GPL-3.0-only"}, "licence"),
        (b"print 'x'  # a comment\n", {}, "Python 2"),
        (b"def f(:  # a comment\n", {}, "does not parse"),
        (b"x = 1\n" * 40, {}, "comments under 1 % or over 80 %"),
        (b"# \xe9\xff\nx = 1\n", {}, "not UTF-8"),
        (b"# a table of data\nx = '''" + b"Z9q8Xj2\n" * 90 + b"'''\n", {}, "bytes per token"),
    ],
)
def test_each_step_has_its_reason(
    content: bytes | None, source: dict[str, str], expected: str | None
) -> None:
    assert fault(content, **source) == expected


def test_a_step_that_is_off_removes_nothing() -> None:
    for content in (b"print 'x'\n", b"x = 1\n" * 40, b"\xe9 = 1\n" * 9):
        assert fault(content) is not None
        assert fault(content, NOTHING, licence="GPL-3.0-only") is None


def test_without_the_encoding_step_other_bytes_are_read_as_latin_1() -> None:
    cleaned = NOTHING.clean(Document(b"s = '\xe9'\n", "a.py", "a"))
    assert cleaned.content == "s = 'é'\n".encode()


def test_placeholders_are_counted() -> None:
    cleaned = CLEANER.clean(Document(b"# by ada@lovelace.org\nx = 1\n", "a.py", "a"))
    assert cleaned.content == b"# by <EMAIL>\nx = 1\n"
    assert cleaned.replaced == {"e-mail addresses": 1}
