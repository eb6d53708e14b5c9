"""Corrections: what is taught beside the batches while the rates fall to zero.

Grammar (grammar.py) makes unlikely what Python's parser would refuse, loops (repetition.py) to
write a passage yet again. Each draws windows of training files, and knows at how many places they
teach.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor

from ptx.config import ModelConfig
from ptx.corpus import Corpus
from ptx.model import GPT
from train.beginnings import Beginnings
from train.grammar import Grammar, judge
from train.parallel import World
from train.repetition import Loops, lesson
from train.settings import Settings


@dataclass(frozen=True)
class Correction:
    """One of them, at one step."""

    figure: str
    """What the log calls the probability of what is wrong."""
    windows: list[Any]
    n_places: int
    """At how many positions of them something is taught."""
    teach: Callable[[list[Any]], tuple[Tensor, float]]
    """Of some of the windows: the losses at all places, summed, and the probabilities of what is
    wrong there, summed."""


@dataclass(frozen=True)
class Corrections:
    """Those of a run: this process's part of the windows at each step."""

    grammar: Grammar | None
    loops: Loops | None

    def at(self, step: int, model: GPT) -> Iterator[Correction]:
        if self.grammar:
            excerpts = self.grammar.excerpts(step)
            judged = sum(excerpt.n_judged for excerpt in excerpts)
            teach = partial(judge, model, self.grammar.tokenizer)
            yield Correction("refused", excerpts, judged, teach)
        if self.loops:
            loops = self.loops.loops(step)
            forks = sum(loop.n_forks for loop in loops)
            yield Correction("looping", loops, forks, partial(lesson, model))


def corrections_of(
    settings: Settings, world: World, corpus: Corpus, shape: ModelConfig
) -> Corrections:
    """Raises UserError where the training text has nothing to correct by, or the processes cannot
    share the windows evenly."""
    grammar = loops = None
    if mine := _share(settings.grammar, "--grammar", world):
        beginnings = Beginnings(corpus.train, corpus.tokenizer, "--grammar")
        grammar = Grammar(beginnings, shape.context, settings.seed, mine)
    if mine := _share(settings.loops, "--loops", world):
        loops = Loops(corpus, shape.context, settings.seed, mine)
    return Corrections(grammar, loops)


def _share(count: int, option: str, world: World) -> range:
    """Which of the windows that an option wants at each step are this process's."""
    mine = world.rows(count, option)
    return range(mine.start, mine.stop)
