"""The baselines take what they say: by the compressors themselves, and by counting by hand."""

from __future__ import annotations

import lzma
import math
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
import zstandard

from ptx.corpus import Corpus
from train import baselines as module
from train.baselines import baselines, grams, ngram_bits, zstd_bits
from train.heldout import Text


def by_definition(learned: bytes, text: bytes, order: int) -> float:
    """Bits by Witten and Bell's recursion, one byte at a time."""
    following: dict[bytes, Counter[int]] = defaultdict(Counter)
    padded = bytes(order) + learned
    for i in range(len(learned)):
        for k in range(order + 1):
            following[padded[i + order - k : i + order]][learned[i]] += 1
    padded, bits = bytes(order) + text, 0.0
    for i, byte in enumerate(text):
        p = 1 / 256
        for k in range(order + 1):
            seen = following.get(padded[i + order - k : i + order])
            if seen:
                p = (seen[byte] + len(seen) * p) / (seen.total() + len(seen))
        bits -= math.log2(p)
    return bits


def test_the_byte_model_is_witten_bells(data: Path) -> None:
    corpus = Corpus(data)
    learned = corpus.tokenizer.decode(corpus.train[:].tolist())
    text = corpus.tokenizer.decode(corpus.val[:700].tolist())
    [found] = ngram_bits(corpus, [text])
    assert found == pytest.approx(by_definition(learned, text, module.ORDER), rel=1e-9)
    assert found / len(text) < 8.0  # better than knowing nothing


def test_the_byte_models_chances_sum_to_one() -> None:
    learned = np.frombuffer(b"abracadabra" * 3, np.uint8)
    total = np.zeros(1)
    for byte in range(256):
        text = np.array([*b"abrac", byte], np.uint8)
        p = np.full(len(text), 1 / 256)
        for order in range(module.ORDER + 1):
            p = module.Counts(learned, order).sharpen(p, text)
        total += p[-1]
    assert total == pytest.approx(1.0)


def test_a_gram_holds_its_bytes_in_order() -> None:
    assert [hex(int(g)) for g in grams(np.array([1, 2, 3], np.uint8), 2)] == [
        "0x1", "0x102", "0x10203",
    ]  # fmt: skip


def test_the_compressors_take_what_their_own_files_take(data: Path) -> None:
    corpus = Corpus(data)
    texts = [
        Text("one", (b"import os\n" * 50, b"x = 1\n")),
        Text("two", (b"def f():\n    pass\n",)),
    ]
    found = baselines(corpus, texts)
    joined = [b"".join(text.documents) for text in texts]
    assert found["xz -9"] == [8 * len(lzma.compress(data, preset=9)) for data in joined]
    [bits] = zstd_bits(corpus, joined[:1])
    assert bits <= 8 * len(zstandard.ZstdCompressor(level=19).compress(joined[0]))
    assert list(found) == ["xz -9", "zstd -19, dictionary", "order-5 n-gram"]
