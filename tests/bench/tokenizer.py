"""How well and how fast py16k encodes code that it never saw, against what others use.

    python tests/bench/tokenizer.py [--quick] [--json]

Measured on the installed packages that validate: none of them trained py16k. Peers: o200k_base with
a vocabulary 12 times as large, and vocabularies of py16k's size trained on the same text with the
split patterns of o200k_base and (not with `--quick`) GPT-2. Speed is of one thread, in turns.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import rustbpe
import tiktoken

from prepare import sources, split, train_tokenizer
from ptx.errors import report_errors
from ptx.tokenizer import get_tokenizer
from tests.bench.report import arguments, report

GPT2_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"
SAMPLE = 40_000_000  # bytes, as for py16k


def bytes_per_token(encode: Callable[[str], list[int]], texts: list[str]) -> float:
    return sum(len(text.encode()) for text in texts) / sum(len(encode(text)) for text in texts)


def retrained(pattern: str, texts: list[str]) -> tiktoken.Encoding:
    """A vocabulary of py16k's size on the same text, with another split pattern."""
    trainer = rustbpe.Tokenizer()
    trainer.train_from_iterator(iter(texts), vocab_size=16_383, pattern=pattern)
    ranks = {bytes(token): rank for token, rank in trainer.get_mergeable_ranks()}
    return tiktoken.Encoding("peer", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})


def speeds(
    encoders: list[Callable[[str], list[int]]], texts: list[str], repeats: int
) -> list[float]:
    """Median MB/s of each, measured in turns."""
    size = sum(len(text.encode()) for text in texts) / 1e6
    rates: list[list[float]] = [[] for _ in encoders]
    for _ in range(repeats):
        for encode, rate in zip(encoders, rates, strict=True):
            start = time.perf_counter()
            for text in texts:
                encode(text)
            rate.append(size / (time.perf_counter() - start))
    return list(map(statistics.median, rates))


@report_errors()
def main() -> None:
    args = arguments(__doc__)
    train, val, _ = split.by_project(sources.installed(), split.VAL_FRACTION)
    texts = [text.decode() for p in val for text in sorted(train_tokenizer.clean_texts(p))]
    ours, o200k = get_tokenizer("py16k"), get_tokenizer("o200k_base")
    ratio, peer_ratio = (bytes_per_token(e, texts) for e in (ours.encode, o200k.encode))
    rate, peer_rate = speeds([ours.encode, o200k.encode], texts, repeats=3 if args.quick else 7)
    rows = [
        ("bytes per token, against o200k_base", ratio, peer_ratio, 3.66),
        ("encoding MB/s, against o200k_base", rate, peer_rate, None),
    ]
    sample = list(train_tokenizer.sample(train, SAMPLE))
    patterns = {"o200k_base": o200k.pattern, "GPT-2": GPT2_PATTERN}
    for name in list(patterns)[: 1 if args.quick else 2]:
        peer = bytes_per_token(retrained(patterns[name], sample).encode_ordinary, texts)
        rows.append((f"bytes per token, against {name}'s pattern at 16k", ratio, peer, None))
    report(rows, args)


if __name__ == "__main__":
    main()
