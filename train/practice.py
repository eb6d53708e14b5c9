"""Practice: the model continues training files itself, and is corrected where its text goes wrong.

Real text hardly teaches a small model to leave a loop that it has fallen into, or to be sure where
Python is strict: such mistakes are not in it. So a model that can write reads its own text too
(train/lessons.py), beside the batch of real text.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ptx.corpus import Corpus
from ptx.decoder import Decoder
from ptx.engine import Batch
from ptx.model import GPT
from ptx.sampling import USUAL
from ptx.stream import Limits, Stream
from train.beginnings import Beginnings

OWN = 1
"""Tells its seeds from those of a step's other random numbers."""


@dataclass(frozen=True)
class Attempt:
    """A text that the model wrote."""

    before: bytes
    """The beginning of the file: what the model sees of it, and what comes before that."""
    ids: list[int]
    """What the model sees of the beginning, end-of-text first, and what it wrote."""
    n_prompt: int
    ended: bool
    """Whether it closed the file: the last of `ids` is end-of-text then."""


class Practice:
    """Has files of a corpus continued: at each step as many as there are `numbers`.

    On a CPU by the compiled step, so that the same step gives the same texts; torch's operations,
    where numba is missing, may round differently from one time to the next.
    """

    def __init__(self, corpus: Corpus, context: int, seed: int, numbers: range) -> None:
        self.beginnings = Beginnings(corpus.train, corpus.tokenizer, "--practice")
        self.context, self.seed, self.numbers = context, seed, numbers

    def attempts(self, model: GPT, step: int) -> list[Attempt]:
        """Those of one step. A number's is the same whoever makes it, and among which others."""
        seeds = [np.random.SeedSequence([OWN, self.seed, step, n]) for n in self.numbers]
        begun = [self.beginning(np.random.default_rng(seed)) for seed in seeds]
        limits = Limits(max_tokens=self.context - self.context // 2)
        streams = [
            Stream(
                self.beginnings.tokenizer,
                self.context,
                ids,
                USUAL,
                limits,
                int(seed.generate_state(1)[0]),
            )
            for (_, ids), seed in zip(begun, seeds, strict=True)
        ]
        batch = Batch(Decoder(model, len(streams), native=True))
        for stream in streams:
            batch.join(stream)
        while batch.streams:
            batch.step()
        return [written(stream, before) for stream, (before, _) in zip(streams, begun, strict=True)]

    def beginning(self, random: np.random.Generator) -> tuple[bytes, list[int]]:
        """Of a training file: its text, and the end of it as tokens."""
        ids, _ = self.beginnings.draw(random)
        tokenizer = self.beginnings.tokenizer
        return tokenizer.decode(ids), [tokenizer.eot, *ids[1 - self.context // 2 :]]


def written(stream: Stream, before: bytes) -> Attempt:
    """What became of a stream; raises the error that ended it."""
    if stream.error:
        raise stream.error
    ended = stream.finish == "end of text"
    ids = [*stream.ids, stream.tokenizer.eot] if ended else stream.ids
    return Attempt(before, ids, stream.n_prompt, ended)
