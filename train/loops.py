"""Loops: where a text has repeated itself, what people wrote next is to be said.

A model that has said a line twice has hardly seen a text that does not go on so: real text leaves
its repetitions, but each one after another that came makes the next likelier (Xu et al., 2022,
"Learning to break the loop"). So here it reads training files in which a passage stands again and
again, and after each of its copies the token to expect is the one that left the passage in the
file. Nothing is forbidden: a real text that repeats itself is read as ever.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ptx.corpus import Corpus
from ptx.errors import UserError
from ptx.model import GPT

WEIGHT = 0.05
"""Of the loss at the ends of copies, on average, beside that of real text."""
MOST_COPIES = 8
SEEN, LONGEST = 0.125, 0.125
"""Shares of the context: what comes before the passage, at least, and the passage, at most."""
TRIES = 1_000
"""Windows looked at until one has a passage."""
LOOPS = 3
"""Tells its seeds from those of a step's other random numbers."""


@dataclass(frozen=True)
class Loop:
    """A window in which a passage is repeated."""

    ids: np.ndarray
    """(T,) int64."""
    ends: np.ndarray
    """(E,) int64: positions, one for each copy, at which it and the file part."""
    again: int
    """The token with which the passage would go on there."""
    leaves: int
    """The token with which the file does."""


class Loops:
    """Makes them from training files: at each step as many as there are `numbers`. Raises
    UserError if there is nothing to repeat."""

    def __init__(self, corpus: Corpus, context: int, seed: int, numbers: range) -> None:
        self.tokens, self.eot = corpus.train, corpus.tokenizer.eot
        self.context, self.seed, self.numbers = context, seed, numbers
        self.draw(np.random.default_rng(0))  # refuses what has nothing

    def loops(self, step: int) -> list[Loop]:
        """Those of one step. A number's is the same whoever makes it, and with which others."""
        seeds = [np.random.SeedSequence([LOOPS, self.seed, step, n]) for n in self.numbers]
        return [self.draw(np.random.default_rng(seed)) for seed in seeds]

    def draw(self, random: np.random.Generator) -> Loop:
        for _ in range(TRIES):
            first = random.integers(len(self.tokens) - self.context + 1)
            window = self.tokens[first : first + self.context].astype(np.int64)
            if loop := repeated(window, self.eot, random):
                return loop
        raise UserError("--loops needs files with text to repeat: leave it out, or give more text")


def repeated(window: np.ndarray, eot: int, random: np.random.Generator) -> Loop | None:
    """`window` (T,) with a passage of it repeated; None where a random one cannot be.

    The passage reaches from a token to where that token comes again, so its copies join as people
    could have written them.
    """
    seen, longest = round(SEEN * len(window)), round(LONGEST * len(window))
    start = random.integers(seen, len(window) // 2)
    later = np.flatnonzero(window[start : start + longest] == window[start - 1])
    if not len(later):
        return None
    length = 1 + int(random.choice(later))
    passage, after = window[start : start + length], window[start + length :]
    differs = np.flatnonzero(passage != after[:length])
    if not len(differs) or eot in window[start - 1 : start + length + differs[0] + 1]:
        return None  # the file itself repeats it, or ends
    together = int(differs[0])
    copies = random.integers(1, min(MOST_COPIES, (len(after) - 1 - together) // length) + 1)
    ids = np.concatenate([window[: start + length], np.tile(passage, copies), after])
    ends = start + length * np.arange(2, copies + 2) + together - 1
    return Loop(ids[: len(window)], ends, int(passage[together]), int(after[together]))


def lesson(model: GPT, loops: list[Loop]) -> tuple[Tensor, float]:
    """WEIGHT times the loss at the ends of all copies, summed, and the probabilities that the model
    gives to yet another copy there, summed."""
    device = model.tok_emb.weight.device
    counts = torch.tensor([len(loop.ends) for loop in loops])
    rows = torch.arange(len(loops)).repeat_interleave(counts)  # (E,)
    positions = torch.from_numpy(np.concatenate([loop.ends for loop in loops]))  # (E,)
    leaves = torch.tensor([loop.leaves for loop in loops]).repeat_interleave(counts).to(device)
    again = torch.tensor([loop.again for loop in loops]).repeat_interleave(counts).to(device)
    ids = torch.from_numpy(np.stack([loop.ids for loop in loops])).to(device)  # (B, T)
    hidden = model.hidden(ids)[rows.to(device), positions.to(device)]  # (E, C)
    log_p = model.head(hidden).float().log_softmax(-1)  # (E, V)
    repeats = log_p.detach().gather(-1, again[:, None]).exp().sum()
    return WEIGHT * F.nll_loss(log_p, leaves, reduction="sum"), float(repeats)
