"""Loops: that a text goes on, and does not repeat itself yet again.

A model that has said a line twice has hardly seen a text that does not go on so: real text leaves
its repetitions, but each one that came makes the next likelier (Xu et al., 2022, "Learning to break
the loop"). So here it reads training files into which a passage was put again and again, and before
and after each of these copies yet another one is made less likely (unlikelihood; Welleck et al.,
2020), and the token with which the file goes on likelier. All of the file that is no copy is learnt
as ever, and so is a real text that repeats itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ptx.corpus import Corpus
from ptx.errors import UserError
from ptx.loss import IGNORED
from ptx.model import GPT

LEAVES, AGAIN = 0.03, 0.6
"""Weights, beside the loss of real text, where a copy could begin: of the loss of the token with
which the file goes on, and of -log(1 - p), p being the probability of a copy; means of both."""
CAME = 0.5
"""Of the loss of the file's own tokens, beside that of the batch; their mean."""
SURE = 0.999
"""A probability beyond which nothing is pushed down harder: the loss would have no end."""
SEEN, LONGEST = 0.125, 0.125
"""Shares of the context: what comes before the passage, at least, and the passage, at most."""
PLACES = 4
"""Where copies are put in, at most."""
ENOUGH = 0.4
"""The probability that no further copy follows one."""
TRIES, PROBES = 1_000, 20
"""Windows looked at until one has a passage, and how often that is tried before a run begins."""
LOOPS = 3
"""Tells its seeds from those of a step's other random numbers."""


@dataclass(frozen=True)
class Loop:
    """A window of a file with copies of a passage put in."""

    ids: np.ndarray
    """(T,) int64: end-of-text first, as before a prompt, or as in the middle of a text."""
    own: np.ndarray
    """(T,) bool: whether it is the file's own, and no copy."""
    forks: np.ndarray
    """int64 (3, F): the positions at which the file and a copy part, before each copy and after the
    last one; the token with which the file goes on there; and that of the copy."""

    @property
    def n_forks(self) -> int:
        return self.forks.shape[1]


class Loops:
    """Makes them from training files: at each step as many as there are `numbers`. Raises
    UserError if there is nothing to repeat."""

    def __init__(self, corpus: Corpus, context: int, seed: int, numbers: range) -> None:
        self.corpus, self.eot = corpus, corpus.tokenizer.eot
        self.context, self.seed, self.numbers = context, seed, numbers
        for first in range(PROBES):  # refuses what has little, before a run begins
            self.draw(np.random.default_rng(first))

    def loops(self, step: int) -> list[Loop]:
        """Those of one step. A number's is the same whoever makes it, and with which others."""
        seeds = [np.random.SeedSequence([LOOPS, self.seed, step, n]) for n in self.numbers]
        return [self.draw(np.random.default_rng(seed)) for seed in seeds]

    def draw(self, random: np.random.Generator) -> Loop:
        for _ in range(TRIES):
            if loop := repeated(self.window(random), self.eot, random):
                return loop
        raise UserError("--loops needs files with text to repeat: leave it out, or give more text")

    def window(self, random: np.random.Generator) -> np.ndarray:
        """(T,) int64 of training text; of half of the windows the first token is end-of-text."""
        first = random.integers(len(self.corpus.train) - self.context + 1)
        found = self.corpus.read(first, self.context)
        if random.integers(2):
            found[0] = self.eot
        return found.astype(np.int64)


def repeated(window: np.ndarray, eot: int, random: np.random.Generator) -> Loop | None:
    """`window` (T,) with copies of a passage of it; None where a random one cannot be.

    The passage reaches from a token to where that token comes again, and copies stand there, and
    where it comes yet again: so they join as people could have written them.
    """
    seen, longest = round(SEEN * len(window)), round(LONGEST * len(window))
    start = random.integers(seen, len(window) // 2)
    ends = np.flatnonzero(window[start - 1 : -1] == eot)
    file = window[start : start - 1 + ends[0]] if len(ends) else window[start:-1]
    joints = start + 1 + np.flatnonzero(file == window[start - 1])
    near = joints[joints <= start + longest]
    if not len(near):
        return None
    end = random.choice(near)
    further = random.permutation(joints[joints > end])[: random.integers(PLACES)]
    return with_copies(window, window[start:end], [end, *sorted(further)], random)


def with_copies(
    window: np.ndarray, passage: np.ndarray, places: list[int], random: np.random.Generator
) -> Loop | None:
    """`window` (T,) with copies of `passage` put in at each of `places`, but where the file itself
    goes on with it, and where a copy and the file have not parted yet; None if that is
    everywhere."""
    parts, own, forks, length, done, parted = [], [], [], len(passage), 0, 0
    for place in places:
        after = window[place : place + length]
        differs = np.flatnonzero(passage[: len(after)] != after)
        if not len(differs) or place <= parted:
            continue
        copies, fork = random.geometric(ENOUGH), differs[0]
        parts += [window[done:place], np.tile(passage, copies)]
        own += [np.ones(place - done, bool), np.zeros(copies * length, bool)]
        first = sum(map(len, parts)) - copies * length + fork - 1
        forks += [(first + i * length, after[fork], passage[fork]) for i in range(copies + 1)]
        done, parted = place, place + fork
    ids = np.concatenate([*parts, window[done:]])[: len(window)]
    own = np.concatenate([*own, np.ones(len(window) - done, bool)])[: len(window)]
    inside = [fork for fork in forks if fork[0] < len(window)]
    return Loop(ids, own, np.array(inside).T) if inside else None


def lesson(model: GPT, loops: list[Loop]) -> tuple[Tensor, float]:
    """The weighted losses at all forks, summed, with the mean one of the file's own tokens added to
    each; and the probabilities that the model gives to a copy there, summed."""
    device = model.tok_emb.weight.device
    rows = np.repeat(np.arange(len(loops)), [loop.n_forks for loop in loops])  # (F,)
    forks = np.concatenate([loop.forks for loop in loops], axis=1)  # (3, F)
    row, position, leaves, again = torch.from_numpy(np.stack([rows, *forks])).to(device)
    ids = torch.from_numpy(np.stack([loop.ids for loop in loops])).to(device)  # (B, T)
    own = torch.from_numpy(np.stack([loop.own for loop in loops])).to(device)  # (B, T)
    hidden = model.hidden(ids)  # (B, T, C)
    came = model.loss(hidden[:, :-1], ids[:, 1:].masked_fill(~own[:, 1:], IGNORED))
    log_p = model.head(hidden[row, position]).float().log_softmax(-1)  # (F, V)
    p = log_p.gather(-1, again[:, None]).exp()  # (F, 1)
    loss = LEAVES * F.nll_loss(log_p, leaves, reduction="sum") - AGAIN * (-SURE * p).log1p().sum()
    return loss + CAME * len(rows) * came, float(p.detach().sum())
