"""How a text that a model wrote repeats itself, and the loss that makes it rarer (unlikelihood;
Welleck et al., 2020)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from ptx.guard import text_of
from ptx.model import GPT
from ptx.prefix import syntax_error
from ptx.sampling import USUAL
from ptx.tokenizer import Tokenizer
from train.practice import Attempt

PASSAGE = 12
"""Tokens that are a repetition when a text has them once more: real code repeats fewer."""
REPEATED = 0.2
"""Weight of a token that repeats, beside the loss of real text."""
SURE = 0.999
"""A probability beyond which nothing is pushed down harder: the loss would have no end."""


class Lessons:
    """What is wrong with attempts."""

    def __init__(self, attempts: list[Attempt], context: int, tokenizer: Tokenizer) -> None:
        self.context, self.tokenizer = context, tokenizer
        self.judged = [(attempt, repeated(attempt)) for attempt in attempts]
        self.written = sum(len(again) for _, again in self.judged)
        self.repeated = sum(np.count_nonzero(again) for _, again in self.judged)
        self.parsed = sum(parses(attempt, tokenizer) for attempt in attempts)

    def parts(self, rows: int) -> Iterator[tuple[Tensor, Tensor]]:
        """What `correction` takes, of those in which something repeats, `rows` at a time."""
        wrong = [one for one in self.judged if one[1].any()]
        for first in range(0, len(wrong), rows):
            ids = torch.full((rows, self.context), self.tokenizer.eot)  # (B, T), always as large
            following = torch.zeros(rows, self.context)
            for row, (attempt, again) in enumerate(wrong[first : first + rows]):
                ids[row, : len(attempt.ids)] = torch.tensor(attempt.ids)
                following[row, attempt.n_prompt - 1 : len(attempt.ids) - 1] = torch.from_numpy(
                    again
                )
            yield ids, following


def correction(model: GPT, ids: Tensor, again: Tensor) -> Tensor:
    """The sum of -log(1 - p) over tokens that are repeated.

    ids: (B, T); again: (B, T), weights of the token after each. p is the probability at the
    temperature that it was drawn with.
    """
    wrong = again > 0  # (B, T)
    followed = ids.roll(-1, 1)[wrong, None]  # (N, 1)
    log_p = log_chances(model, model.hidden(ids)[wrong]).gather(-1, followed).squeeze(1)  # (N,)
    # no product of matrices, which autocast would round
    return (unlikelihood(log_p.exp()) * again[wrong]).sum()


def log_chances(model: GPT, hidden: Tensor) -> Tensor:
    """Log-probabilities of the next token at the temperature it is drawn with: (..., C) to
    (..., V)."""
    return (model.head(hidden).float() / USUAL.temperature).log_softmax(-1)


def unlikelihood(p: Tensor) -> Tensor:
    """-log(1 - p), with an end."""
    return -(-SURE * p).log1p()


def repeated(attempt: Attempt) -> np.ndarray:
    """Weights of the tokens that were written, float32 (N,), where they repeat others."""
    new = attempt.ids[attempt.n_prompt :]
    again = np.zeros(len(new), np.float32)
    for end in repetitions(new):
        again[end - PASSAGE : end] = REPEATED
    return again


def repetitions(tokens: list[int]) -> Iterator[int]:
    """The ends of all passages of PASSAGE tokens that were there before."""
    seen = set()
    for end in range(PASSAGE, len(tokens) + 1):
        passage = tuple(tokens[end - PASSAGE : end])
        if passage in seen:
            yield end
        seen.add(passage)


def parses(attempt: Attempt, tokenizer: Tokenizer) -> bool:
    """Whether a text, up to its last whole line, is Python."""
    text = attempt.before + tokenizer.decode(attempt.ids[attempt.n_prompt :])
    return syntax_error(text_of(text), attempt.ended) is None
