"""Boundary healing on the shipped tokenizer."""

from __future__ import annotations

import pytest

from ptx.healing import MAX_TAKEN_BACK, Healer
from ptx.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def healer(py16k: Tokenizer) -> Healer:
    return Healer(py16k)


@pytest.mark.parametrize("text", ["def f(n):", "x = fibona", "a\n    ", "é", "# " + "=" * 500, ""])
def test_what_is_taken_back_and_what_stays_spell_the_text(
    healer: Healer, py16k: Tokenizer, text: str
) -> None:
    ids = py16k.encode(text)
    kept, pending = healer.take_back(ids, text)
    assert py16k.decode(kept) + pending == text.encode()
    assert len(ids) - len(kept) <= MAX_TAKEN_BACK
    assert bool(pending) == bool(text)


@pytest.mark.parametrize("pending", [b":", b"):", b"fibonaccibo", b"\n    ", b"\xc3", b"\xff\xfe"])
def test_allowed_are_the_covering_tokens_of_a_scan_and_the_tokenizations_first(
    healer: Healer, py16k: Tokenizer, pending: bytes
) -> None:
    tokens = {i: py16k.token_bytes(i) for i in range(py16k.n_vocab) if i != py16k.eot}
    covering = {i for i, token in tokens.items() if token.startswith(pending)}
    allowed = healer.allowed(pending)
    assert set(allowed) == covering | {py16k.encode(pending)[0]}
    assert len(allowed) == len(set(allowed))


def test_a_colon_can_be_merged_with_the_newline_and_indentation_after_it(
    healer: Healer, py16k: Tokenizer
) -> None:
    _, pending = healer.take_back(py16k.encode("def f(n):"), "def f(n):")
    spelled = {py16k.token_bytes(i) for i in healer.allowed(pending)}
    assert b"):\n    " in spelled
