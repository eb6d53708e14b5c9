"""What a model has to beat: general compressors, and counting bytes."""

from __future__ import annotations

import lzma
import math

import numpy as np

from ptx.corpus import Corpus
from train.heldout import Text

DICTIONARY = 1 << 20
"""Bytes of the zstd dictionary."""
DICTIONARY_SAMPLES = 16 << 20
"""Bytes of training text that it is made from; COVER wants many times its size."""
NGRAM_BYTES = 32 << 20
"""Training text that the n-gram counts, in pieces spread evenly over all of it."""
PIECE = 16_384
"""Tokens of one such piece."""
ORDER = 5


def baselines(corpus: Corpus, texts: list[Text]) -> dict[str, list[float]]:
    """{name: bits that each text takes}. What they learn, they learn from the training text."""
    joined = [b"".join(text.documents) for text in texts]
    return {
        "xz -9": [8.0 * len(lzma.compress(data, preset=9)) for data in joined],
        "zstd -19, dictionary": zstd_bits(corpus, joined),
        f"order-{ORDER} n-gram": ngram_bits(corpus, joined),
    }


def zstd_bits(corpus: Corpus, texts: list[bytes]) -> list[float]:
    """Bits of zstd -19 with a dictionary of the training text; the dictionary is not paid for."""
    import zstandard  # only this needs it

    samples = pieces(corpus, DICTIONARY_SAMPLES, 1024)
    dictionary = zstandard.train_dictionary(min(DICTIONARY, sum(map(len, samples)) // 8), samples)
    # One window over all: its default ends before a long text does.
    window = max(max(map(len, texts)) - 1, 1 << 20).bit_length()
    level = zstandard.ZstdCompressionParameters.from_level(19, window_log=min(window, 27))
    compressor = zstandard.ZstdCompressor(dict_data=dictionary, compression_params=level)
    return [8.0 * len(compressor.compress(text)) for text in texts]


def pieces(corpus: Corpus, budget: int, tokens: int) -> list[bytes]:
    """About `budget` bytes of the training text, or all of it: parts of so many `tokens`, spread
    evenly."""
    total = corpus.manifest["splits"]["train"]["bytes"]
    starts = np.arange(0, len(corpus.train), tokens)
    count = max(1, round(min(1.0, budget / total) * len(starts)))
    chosen = starts[np.linspace(0, len(starts) - 1, count).astype(int)]
    decode = corpus.tokenizer.decode
    return [decode(corpus.train[start : start + tokens].tolist()) for start in chosen]


def ngram_bits(corpus: Corpus, texts: list[bytes]) -> list[float]:
    """Bits of an order-5 byte model, by counts of the training text."""
    learned = np.frombuffer(b"".join(pieces(corpus, NGRAM_BYTES, PIECE)), np.uint8)
    arrays = [np.frombuffer(text, np.uint8) for text in texts]
    chances = [np.full(len(array), 1 / 256) for array in arrays]
    for order in range(ORDER + 1):  # one table at a time is held
        counts = Counts(learned, order)
        chances = [counts.sharpen(p, array) for p, array in zip(chances, arrays, strict=True)]
    return [float(-np.log(p).sum() / math.log(2)) for p in chances]


class Counts:
    """How often each byte followed each context of `order` bytes."""

    def __init__(self, text: np.ndarray, order: int) -> None:
        self.order = order
        self.grams, self.times = np.unique(grams(text, order), return_counts=True)
        self.contexts, first = np.unique(self.grams >> np.uint64(8), return_index=True)
        self.totals = np.add.reduceat(self.times, first)
        self.kinds = np.diff([*first, len(self.grams)])

    def sharpen(self, shorter: np.ndarray, text: np.ndarray) -> np.ndarray:
        """The probability of every byte of `text`, (N,), from `shorter`, those with a context one
        byte shorter, interpolated as Witten and Bell (1991) do: a context that has shown many
        kinds of bytes in few occurrences leaves more to the shorter one."""
        wanted = grams(text, self.order)
        times = lookup(self.grams, self.times, wanted)
        totals = lookup(self.contexts, self.totals, wanted >> np.uint64(8))
        kinds = lookup(self.contexts, self.kinds, wanted >> np.uint64(8))
        seen = totals > 0
        mixed = (times + kinds * shorter) / np.maximum(1, totals + kinds)
        return np.where(seen, mixed, shorter)


def grams(text: np.ndarray, order: int) -> np.ndarray:
    """Each byte with the `order` before it in one number, (N,) uint64; zeros before the start."""
    padded = np.concatenate((np.zeros(order, np.uint8), text))
    out = np.zeros(len(text), np.uint64)
    for i in range(order + 1):
        out = (out << np.uint64(8)) | padded[i : i + len(text)]
    return out


def lookup(keys: np.ndarray, values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The values of sorted `keys`, 0 for what is not among them."""
    places = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[places] == wanted, values[places], 0)
