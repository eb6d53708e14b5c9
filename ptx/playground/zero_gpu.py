"""ZeroGPU: a graphics card that a Space borrows for one call at a time.

`spaces`, which lends it, is imported only where that is; anywhere else nothing here is used. The
card is seen only by a decorated function, in a process of its own: so texts on it are written one
by one, and the model is loaded there from its directory.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from ptx.checkpoint import load_model
from ptx.engine import generate
from ptx.model import GPT
from ptx.sampling import Sampling
from ptx.stream import Limits, Step, Stream
from ptx.tokenizer import Tokenizer

PRESENT = os.environ.get("SPACES_ZERO_GPU", "").lower() in ("1", "true")
LARGE = 50_000_000
"""Parameters from which on a card is borrowed: below, the compiled step on a CPU writes a token
before a card has started its first operation."""
SECONDS = 60
"""For which a card is asked for at a time."""
CARD = "cuda"

Progress = tuple[Step | None, list[int], int, str | None]
"""A step, and `ids`, `n_prompt` and `finish` of the generation after it."""


def borrowing(function: Callable[..., Iterator[Progress]]) -> Callable[..., Iterator[Progress]]:
    if not PRESENT:
        return function
    import spaces

    return spaces.GPU(duration=SECONDS)(function)


@lru_cache(maxsize=1)
def on_card(directory: Path) -> tuple[GPT, Tokenizer]:
    model, tokenizer, _ = load_model(directory, CARD)
    return model, tokenizer


def packed(step: Step) -> Step:
    """For another process: without the tensors that were worked out, whose memory would end with
    this one."""
    return replace(step, choice=replace(step.choice))


@borrowing
def write(
    directory: Path,
    prompt: str | Sequence[int],
    sampling: Sampling | None,
    limits: Limits | None,
    seed: int,
    options: dict[str, bool],
) -> Iterator[Progress]:
    """A text by the model in `directory`, on the card."""
    model, tokenizer = on_card(directory)
    generation = generate(model, tokenizer, prompt, sampling, limits, seed, **options)
    for step in generation:
        yield packed(step), generation.ids, generation.n_prompt, None
    yield None, generation.ids, generation.n_prompt, generation.finish


class Borrowed:
    """A text that grows on the card; read like `ptx.Generation`."""

    def __init__(self, stream: Stream, progress: Iterator[Progress]) -> None:
        self.ids, self.n_prompt = list(stream.ids), stream.n_prompt
        self.finish: str | None = None
        self._progress, self._cancelled = progress, False

    def __iter__(self) -> Iterator[Step]:
        for step, ids, n_prompt, finish in self._progress:
            self.ids, self.n_prompt, self.finish = ids, n_prompt, finish
            if step is None or self._cancelled:
                return
            yield step

    def cancel(self) -> None:
        self._cancelled = True


class GpuEngine:
    """What the page asks of `ptx.Engine`, on a borrowed card; the Space queues its visitors."""

    def __init__(self, directory: Path, model: GPT, tokenizer: Tokenizer) -> None:
        self.model, self.tokenizer = model, tokenizer
        self._directory = directory

    def generate(
        self,
        prompt: str | Sequence[int],
        sampling: Sampling | None = None,
        limits: Limits | None = None,
        seed: int = 0,
        **options: bool,
    ) -> Borrowed:
        """As `ptx.Engine.generate`; what cannot be written is refused here, before a card is
        borrowed."""
        context = self.model.config.context
        stream = Stream(self.tokenizer, context, prompt, sampling, limits, seed, **options)
        return Borrowed(stream, write(self._directory, prompt, sampling, limits, seed, options))

    def place(self, generation: Any) -> int:
        """None wait here."""
        return 0

    def close(self) -> None:
        """Nothing is held."""

    def retire(self) -> None:
        """Nothing is held."""
