"""Generation: tokens per second, time to the first token, many readers, a busy machine.

    python tests/bench/generate.py [--only NAME ...] [--quick] [--json]

The released model's weights in a context of 512, so that a prompt of 200 tokens and 256 new ones
fit: this measures decoding. Sides take turns, each in the process of its own; figures are medians
of the turns. Tokens are the most likely ones, without guessing ahead, as greedy text repeats itself
and would flatter it; the table below the figures has the usual knobs, with guesses and without.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch

from ptx.batch import Batch
from ptx.checkpoint import load_model
from ptx.decoder import Decoder
from ptx.engine import Engine
from ptx.int8 import as_int8
from ptx.model import GPT
from ptx.sampling import USUAL, Sampling
from ptx.stream import Limits, Stream
from ptx.tokenizer import Tokenizer
from tests.bench.llama import LlamaCpp, missing
from tests.bench.report import Row, parser, report
from tests.bench.training.turns import Side

ROOT = Path(__file__).resolve().parents[2]
KEYS = (
    "speed_vs_transformers",
    "speed_vs_recompute",
    "speed_vs_llama_cpp",
    "batch16_gain",
    "first_token_ms",
    "busy_share",
    "compile_seconds",
)
CONTEXT, PROMPT, NEW = 512, 200, 256
THREADS = sorted({1, os.cpu_count() or 1})
COMPILES = """
import time
from ptx.decoder import Decoder
from tests.bench.generate import shipped
model, _ = shipped()
started = time.perf_counter()
assert Decoder(model, native=True).compiled
print(time.perf_counter() - started)
"""
RECOMPUTED = 32
"""Tokens by recomputation, from the middle of the text on: its cost grows with the position."""


def shipped() -> tuple[GPT, Tokenizer]:
    """The released weights, in a context that holds the whole text."""
    model, tokenizer, _ = load_model(ROOT / "checkpoints" / "mini")
    longer = GPT(replace(model.config, context=CONTEXT)).eval()
    longer.load_state_dict(model.state_dict())
    return longer, tokenizer


def prompt_ids(tokenizer: Tokenizer, n: int = PROMPT, start: int = 0) -> list[int]:
    """n tokens of this file, end-of-text before them included."""
    ids = tokenizer.encode(Path(__file__).read_text())
    return [tokenizer.eot, *ids[start : start + n - 1]]


class Ours:
    """Our engine: one stream, or several."""

    def __init__(self, slots: int, int8: bool = False) -> None:
        model, self.tokenizer = shipped()
        self.decoder = Decoder(as_int8(model) if int8 else model, slots, native=True)
        self.context = model.config.context
        self.greedy = Sampling(0.0, banned=(self.tokenizer.eot,))
        self.usual = replace(USUAL, banned=(self.tokenizer.eot,))

    def rate(
        self,
        streams: int,
        new: int,
        usual: bool = False,
        speculate: bool = False,
        attention: bool = False,
        python: bool = False,
        alike: bool = True,
    ) -> float:
        """New tokens per second of so many streams together, once their prompts are read.

        alike: whether all have one prompt, whose keys and values they share then.
        """
        batch, made = Batch(self.decoder), 0
        sampling = replace(self.usual if usual else self.greedy, python=python)
        for seed in range(streams):
            stream = Stream(
                self.tokenizer,
                self.context,
                prompt_ids(self.tokenizer, start=0 if alike else 100 * seed),
                sampling,
                Limits(new),
                seed,
                attention,
                speculate,
            )
            batch.join(stream)
        while len(batch.step()) < streams:
            pass
        started = time.perf_counter()
        while batch.streams:
            made += sum(len(steps) for _, steps in batch.step())
        return made / (time.perf_counter() - started)


class Transformers:
    """`generate` of transformers on the same weights, with its own cache."""

    def __init__(self, dtype: str) -> None:
        from tests.peers import as_qwen3

        model, tokenizer = shipped()
        self.model = as_qwen3(model, "sdpa").to(getattr(torch, dtype))
        self.ids = torch.tensor([prompt_ids(tokenizer)])

    def rate(self, new: int) -> float:
        """New tokens per second, the prompt's reading left out."""
        return (new - 1) / (self._seconds(new) - self._seconds(1))

    def _seconds(self, new: int) -> float:
        started = time.perf_counter()
        options = {"max_new_tokens": new, "min_new_tokens": new, "do_sample": False}
        self.model.generate(self.ids, attention_mask=torch.ones_like(self.ids), **options)
        return time.perf_counter() - started


class Recompute:
    """What nanoGPT and minGPT do: the whole text is read again for each token."""

    def __init__(self) -> None:
        self.model, self.tokenizer = shipped()

    @torch.inference_mode()
    def rate(self, new: int) -> float:
        """New tokens per second around the middle of the text."""
        ids = prompt_ids(self.tokenizer, PROMPT + NEW // 2 - new // 2)
        started = time.perf_counter()
        for _ in range(new):
            ids.append(int(self.model(torch.tensor([ids]))[0, -1].argmax()))
        return new / (time.perf_counter() - started)


class Llama(LlamaCpp):
    """llama.cpp on the same weights."""

    def __init__(self, kind: str, threads: int) -> None:
        model, tokenizer = shipped()
        super().__init__(model, prompt_ids(tokenizer), kind, threads)


class Page:
    """The engine behind the page, warm."""

    def __init__(self) -> None:
        model, self.tokenizer = shipped()
        self.engine = Engine(model, self.tokenizer, native=True)
        source = Path(__file__).read_text()
        self.prompts = [source[200 * i :] for i in range(30)]

    def first_token(self, turn: int) -> float:
        """Seconds from a request with an unseen prompt of 200 tokens to its first token."""
        text = self.tokenizer.text(
            self.tokenizer.encode(self.prompts[turn % len(self.prompts)])[: PROMPT - 1]
        )
        started = time.perf_counter()
        generation = self.engine.generate(text, Sampling(0.8, top_p=0.95), Limits(8), seed=turn)
        next(generation)
        taken = time.perf_counter() - started
        for _ in generation:
            pass
        return taken


def compile_seconds() -> float:
    """Until the decoder is compiled where nothing was kept, in a process of its own."""
    with TemporaryDirectory() as nothing:
        environment = os.environ | {"NUMBA_CACHE_DIR": nothing, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-c", COMPILES]
        done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return float(done.stdout)


def busy_loop() -> None:
    while True:
        pass


class Competitor:
    """A process that uses a core for all it can get."""

    def __enter__(self) -> None:
        self.process = multiprocessing.get_context("spawn").Process(target=busy_loop, daemon=True)
        self.process.start()
        time.sleep(1.0)

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.join()


def in_turns(sides: dict[str, Callable[[], float]], turns: int) -> dict[str, list[float]]:
    """Each side's figures; a first turn warms up."""
    found: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(1 + turns):
        for name, measure in sides.items():
            value = measure()
            if turn:
                found[name].append(value)
    return found


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--only", nargs="+", choices=KEYS, metavar="NAME", help=", ".join(KEYS))
    args = options.parse_args()
    wanted = set(args.only or KEYS)
    turns, new = (2, 24) if args.quick else (7, NEW)
    recomputed = 4 if args.quick else RECOMPUTED
    figures: list[Row] = []
    details: list[Row] = []
    ours = Side(Ours, 16)

    def versus(key: str, peer: str, kind: type, given: tuple, n: int, target: float | None) -> None:
        side = Side(kind, *given)
        rates = in_turns(
            {"ours": lambda: ours("rate", 1, new), "peer": lambda: side("rate", n)}, turns
        )
        side.close()
        ratio = statistics.median(a / b for a, b in zip(rates["ours"], rates["peer"], strict=True))
        figures.append((key, ratio, 1.0, target))
        mine, theirs = (statistics.median(rates[name]) for name in ("ours", "peer"))
        details.append((f"tokens/s, one stream, against {peer}", mine, theirs, None))

    if "speed_vs_transformers" in wanted:
        [dtype] = best_of(Transformers, [("float32",), ("bfloat16",)])
        versus("speed_vs_transformers", f"transformers, {dtype}", Transformers, (dtype,), new, 4.0)
    if "speed_vs_recompute" in wanted:
        versus("speed_vs_recompute", "recomputing", Recompute, (), recomputed, 20.0)
    if "speed_vs_llama_cpp" in wanted and missing():
        names = " and ".join(missing())
        print(f"speed_vs_llama_cpp: {names} not installed (pip install llama-cpp-python gguf)")
    elif "speed_vs_llama_cpp" in wanted:
        kind, threads = best_of(Llama, [(k, n) for k in ("F16", "BF16") for n in THREADS])
        peer = f"llama.cpp, {kind}, {threads} threads"
        versus("speed_vs_llama_cpp", peer, Llama, (kind, threads), new, 1.0)
    if "batch16_gain" in wanted:
        rates = in_turns(
            {"1": lambda: ours("rate", 1, new), "16": lambda: ours("rate", 16, new)}, turns
        )
        gain = statistics.median(a / b for a, b in zip(rates["16"], rates["1"], strict=True))
        figures.append(("batch16_gain", gain, 1.0, 5.0))
        many, one = (statistics.median(rates[n]) for n in ("16", "1"))
        details.append(("tokens/s, 16 streams in all, against one", many, one, None))
        others = statistics.median(
            ours("rate", 16, new, False, False, False, False, False) for _ in range(turns)
        )
        details.append(("tokens/s, 16 streams with prompts of their own", others, one, None))
    if "first_token_ms" in wanted:
        page = Side(Page)
        times = [page("first_token", turn) for turn in range(2 + 2 * turns)][2:]
        page.close()
        figures.append(("first_token_ms", 1000 * statistics.median(times), None, 40.0))
    if "busy_share" in wanted:
        shares = []
        for _ in range(turns):
            idle = ours("rate", 1, new)
            with Competitor():
                shares.append(ours("rate", 1, new) / idle)
        figures.append(("busy_share", statistics.median(shares), 1.0, 0.4))
    if "compile_seconds" in wanted and not (args.quick and not args.only):
        times = [compile_seconds() for _ in range(1 if args.quick else 3)]
        figures.append(("compile_seconds", statistics.median(times), None, None))
    if not args.only:
        int8 = Side(Ours, 1, True)
        rates = in_turns(
            {
                "plain": lambda: ours("rate", 1, new, True),
                "guessing": lambda: ours("rate", 1, new, True, True),
                "attention": lambda: ours("rate", 1, new, True, False, True),
                "python": lambda: ours("rate", 1, new, True, False, False, True),
                "16": lambda: ours("rate", 16, new, True),
                "int8": lambda: int8("rate", 1, new, True),
            },
            turns,
        )
        int8.close()
        plain = statistics.median(rates["plain"])
        labels = {
            "guessing": "with guesses",
            "attention": "with every attention row",
            "python": "only Python",
            "16": "16 streams in all",
            "int8": "with int8 weights",
        }
        for name, label in labels.items():
            figure = f"tokens/s, the knobs to begin with, {label}, against without"
            details.append((figure, statistics.median(rates[name]), plain, None))
    ours.close()
    report(figures, args, details)


def best_of(kind: type, options: list[tuple]) -> tuple:
    """The arguments with which a peer is fastest here."""
    rates = {}
    for given in options:
        side = Side(kind, *given)
        side("rate", 4)
        rates[given] = side("rate", 12)
        side.close()
    return max(rates, key=rates.__getitem__)


if __name__ == "__main__":
    main()
