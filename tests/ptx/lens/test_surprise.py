"""Bits by token, character and line are the same bits."""

from __future__ import annotations

import math

import pytest
import torch

from ptx import lens
from ptx.lens.text import text_of
from ptx.model import GPT
from ptx.tokenizer import Tokenizer

SOURCE = 'def café(x):\n    """Größe"""\n    return x + 1\n'


def test_tokens_characters_and_lines_sum_to_the_models_loss(model: GPT, py16k: Tokenizer) -> None:
    ids = [py16k.eot, *py16k.encode(SOURCE)]
    found = lens.surprise(py16k, lens.trace(model, ids))
    batch = torch.tensor([ids])
    with torch.inference_mode():
        nats = model(batch[:, :-1], targets=batch[:, 1:]) * (len(ids) - 1)
    total = float(nats) / math.log(2)
    assert found.text == SOURCE
    assert len(found.chars) == len(SOURCE)
    assert len(found.lines) == 3
    assert float(found.tokens[0]) == 0
    for bits in (found.tokens, found.chars, found.lines):
        assert float(bits.sum()) == pytest.approx(total, rel=1e-5)
    assert found.bits_per_byte == pytest.approx(total / len(SOURCE.encode()), rel=1e-5)
    first = SOURCE.index("\n") + 1
    assert float(found.lines[0]) == pytest.approx(float(found.chars[:first].sum()))


def test_a_token_is_the_negative_logarithm_of_its_probability(model: GPT, py16k: Tokenizer) -> None:
    ids = py16k.encode("x = [1, 2]")
    seen = lens.trace(model, ids)
    found = lens.surprise(py16k, seen)
    prob = float(seen.logits[1].softmax(-1)[ids[2]])
    assert float(found.tokens[2]) == pytest.approx(-math.log2(prob), rel=1e-4)
    # the first token was not predicted: its bytes do not count
    size = len("x = [1, 2]") - len(py16k.token_bytes(ids[0]))
    assert found.bits_per_byte == pytest.approx(float(found.tokens.sum()) / size)


def test_a_character_split_over_tokens_gets_the_bits_of_all_its_bytes(
    model: GPT, py16k: Tokenizer
) -> None:
    ids = [py16k.eot, *(py16k.encode(bytes([b]))[0] for b in "é".encode())]
    assert len(ids) == 3
    found = lens.surprise(py16k, lens.trace(model, ids))
    assert found.text == "é"
    assert float(found.chars[0]) == pytest.approx(float(found.tokens.sum()))


def test_bytes_that_are_no_text_are_one_character_each(py16k: Tokenizer) -> None:
    text = text_of(py16k, py16k.encode(b"a\xff\xfe\n"))
    assert text.string == "a��\n"
    assert text.chars.tolist() == [0, 1, 2, 3, 4]


def test_one_token_has_no_rate(model: GPT, py16k: Tokenizer) -> None:
    assert math.isnan(lens.surprise(py16k, lens.trace(model, [py16k.eot])).bits_per_byte)


def test_characters_know_their_tokens(py16k: Tokenizer) -> None:
    ids = [py16k.eot, *py16k.encode("def area(width):\n    return width\n"), py16k.eot]
    text = text_of(py16k, ids)
    for start in range(len(text.string)):
        (token,) = text.tokens_of(start, start + 1)
        before = len(py16k.decode(ids[:token]))
        assert before <= start < before + len(py16k.token_bytes(ids[token]))
    assert text.tokens_of(0, len(text.string)) == range(1, len(ids) - 1)
