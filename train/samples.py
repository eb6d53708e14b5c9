"""Samples to judge a model by: fixed prompts, fixed seeds, none left out."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from ptx.engine import Engine
from ptx.model import GPT
from ptx.sampling import USUAL
from ptx.stream import Limits
from ptx.tokenizer import Tokenizer

PROMPTS = (
    "def fibonacci(n):",
    'class Stack:\n    """A last-in, first-out collection."""\n\n    def __init__(self):',
    "import unittest\n\n\nclass TestStack(unittest.TestCase):\n    def test_push(self):",
    'def read_config(path, encoding="utf-8"):\n    """',
    "for name, value in sorted(counts.items()):\n    if ",
    "import os\n\n\n# Return the names of all files in a directory.\ndef ",
    "import numpy as np\n\n\ndef normali",
    "try:\n    import json\nexcept ",
    "class Config:\n    def __init__(self, name, size):\n        self.name = name\n        self.s",
    "def main():\n    parser = argparse.ArgumentParser(",
)
"""The page's examples, and ends inside a word, after a bracket, before a name."""
KNOBS = f"temperature {USUAL.temperature}, top-p {USUAL.top_p}"
LIMITS = Limits(max_tokens=96)
SLOTS = 10


@dataclass(frozen=True)
class Sample:
    prompt: str
    seed: int
    text: str


def write_samples(model: GPT, tokenizer: Tokenizer, count: int) -> list[Sample]:
    """`count` samples: every prompt with seed 0, then with 1, and so on."""
    wanted = [(PROMPTS[i % len(PROMPTS)], i // len(PROMPTS)) for i in range(count)]
    with (
        Engine(model, tokenizer, slots=SLOTS, waiting=count) as engine,
        ThreadPoolExecutor(SLOTS) as readers,
    ):

        def one(prompt: str, seed: int) -> Sample:
            steps = engine.generate(prompt, USUAL, LIMITS, seed)
            return Sample(prompt, seed, "".join(step.text for step in steps))

        return list(readers.map(one, *zip(*wanted, strict=True))) if wanted else []


def page(name: str, samples: list[Sample]) -> str:
    """All of them as Markdown."""
    head = (
        f"# {len(samples)} samples of {name}\n\nFixed prompts and seeds, none left out; {KNOBS}, "
        f"{LIMITS.max_tokens} tokens each. ‸ marks where the prompt ends and the model goes on.\n"
    )
    return head + "".join(f"\n## Prompt {_place(s)}\n\n{quoted(s)}\n" for s in samples)


def _place(sample: Sample) -> str:
    number = PROMPTS.index(sample.prompt) + 1
    return f"{number}, seed {sample.seed}"


def quoted(sample: Sample) -> str:
    """A fenced block that the text cannot close."""
    text = f"{sample.prompt}‸{sample.text}"
    fence = "`" * max(3, max(map(len, re.findall("`+", text)), default=0) + 1)
    return f"{fence}python\n{text}\n{fence}"
