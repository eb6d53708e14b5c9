"""Tokens per second of one stream, against transformers running the same weights.

    python tests/bench/generate.py [--quick] [--json]

Both continue the same 200-token prompt greedily with a key/value cache, in fp32, in turn.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch

from ptx.config import preset
from ptx.engine import Generation
from ptx.model import GPT
from ptx.sampling import Sampling
from ptx.tokenizer import get_tokenizer
from tests.bench.report import arguments, report
from tests.peers import as_qwen3

PROMPT_TOKENS = 200
NEW_TOKENS = 50  # both fit the context: this measures decoding, not the sliding of the window


def ours(model: GPT, prompt: str) -> float:
    generation = Generation(
        model, get_tokenizer("py16k"), prompt, Sampling(temperature=0.0), NEW_TOKENS
    )
    return seconds_per_token(lambda: sum(1 for _ in generation))


def theirs(model: torch.nn.Module, ids: torch.Tensor) -> float:
    def run() -> int:
        out = model.generate(
            ids, max_new_tokens=NEW_TOKENS, min_new_tokens=NEW_TOKENS, do_sample=False
        )
        return out.shape[1] - ids.shape[1]

    return seconds_per_token(run)


def seconds_per_token(run: Callable[[], int]) -> float:
    start = time.perf_counter()
    count = run()
    return (time.perf_counter() - start) / count


def main() -> None:
    args = arguments(__doc__)
    torch.manual_seed(0)
    model = GPT(preset("mini")).eval()
    peer = as_qwen3(model, "sdpa")
    tokenizer = get_tokenizer("py16k")
    source = Path(__file__).read_text() * 4
    prompt_ids = tokenizer.encode(source)[:PROMPT_TOKENS]
    prompt = tokenizer.text(prompt_ids)
    ids = torch.tensor([[tokenizer.eot, *tokenizer.encode(prompt)]])
    repeats = range(3 if args.quick else 9)
    rates = [(1 / ours(model, prompt), 1 / theirs(peer, ids)) for _ in repeats]
    our_rate, their_rate = (statistics.median(side) for side in zip(*rates[1:], strict=True))
    ratio = statistics.median(a / b for a, b in rates[1:])  # the first pair warms up
    report(
        [
            ("tokens/s, one stream, 200-token prompt", our_rate, their_rate, None),
            ("ratio to transformers", ratio, 1.0, 1.0),
        ],
        args,
    )


if __name__ == "__main__":
    main()
