"""What is wrong with the texts that a model wrote, and the loss that makes it rarer.

What repeats itself is made less likely (unlikelihood; Welleck et al., 2020), and so are, where
Python's parser gives up, all likely tokens at which it would.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ptx.guard import Guard, text_of
from ptx.model import GPT
from ptx.prefix import can_go_on, syntax_error
from ptx.sampling import USUAL
from ptx.tokenizer import Tokenizer
from train.practice import Attempt

PASSAGE = 12
"""Tokens that are a repetition when a text has them once more: real code repeats fewer."""
REPEATED, SLIPPED, LED = 0.2, 30.0, 1.0
"""Weights, beside the loss of real text: of a token that repeats, of all that are fatal where the
parser gives up (their probability p costs -log(1 - p)), and of the token before, which may have led
there (log p, as much of it as is doomed)."""
SURE = 0.999
"""A probability beyond which nothing is pushed down harder: the loss would have no end."""
HOPELESS = -9.0
"""A log-probability that is low enough."""
LIKELY = 0.01
"""The probability of a token from which on Python is asked whether the text could go on with it."""


class Lessons:
    """What is wrong with attempts."""

    def __init__(self, attempts: list[Attempt], context: int, tokenizer: Tokenizer) -> None:
        self.context, self.tokenizer = context, tokenizer
        self.judged = [(attempt, *faults(attempt, tokenizer)) for attempt in attempts]
        self.written = sum(len(repeated) for _, repeated, _ in self.judged)
        self.parsed = sum(slip is None for *_, slip in self.judged)
        self.repeated = sum(np.count_nonzero(repeated) for _, repeated, _ in self.judged)

    def parts(self, rows: int) -> Iterator[tuple[Tensor, Tensor, list[Slip]]]:
        """What `correction` takes, of those in which something went wrong, `rows` at a time."""
        wrong = [one for one in self.judged if one[1].any() or one[2] is not None]
        for first in range(0, len(wrong), rows):
            ids = torch.full((rows, self.context), self.tokenizer.eot)  # (B, T), always as large
            following = torch.zeros(rows, self.context)
            slips = []
            for row, (attempt, repeated, slip) in enumerate(wrong[first : first + rows]):
                ids[row, : len(attempt.ids)] = torch.tensor(attempt.ids)
                following[row, attempt.n_prompt - 1 : len(attempt.ids) - 1] = torch.from_numpy(
                    repeated
                )
                if slip is not None:
                    slips.append(Slip(row, attempt, slip))
            yield ids, following, slips


@dataclass(frozen=True)
class Slip:
    """A token at which Python's parser gives up."""

    row: int
    """Where its text stands among others."""
    attempt: Attempt
    number: int
    """Which of the tokens that were written it is."""

    @property
    def at(self) -> int:
        """The position that it was chosen at."""
        return self.attempt.n_prompt - 1 + self.number

    def fatal(self, probabilities: Tensor, tokenizer: Tokenizer) -> Tensor:
        """The token, and which of the others that were likely there would have been slips too;
        int64 (N,).

        probabilities: (V,), at that position.
        """
        likely = (probabilities >= LIKELY).nonzero()[:, 0].tolist()
        drawn = self.attempt.ids[self.at + 1]
        before = self.attempt.before + tokenizer.decode(
            self.attempt.ids[self.attempt.n_prompt : self.at + 1]
        )
        guard = Guard(before, tokenizer)
        others = [t for t in likely if t != drawn and not guard.allows(t)]
        return torch.tensor([drawn, *others], device=probabilities.device)


def correction(
    model: GPT, tokenizer: Tokenizer, ids: Tensor, repeated: Tensor, slips: list[Slip]
) -> Tensor:
    """The sum of -log(1 - p) over tokens that are repeated, and of what is wrong at each slip.

    ids: (B, T); repeated: (B, T), weights of the token after each. p is the probability at the
    temperature that it was drawn with.
    """
    hidden = model.hidden(ids)  # (B, T, C)
    again = repeated > 0  # (B, T)
    followed = ids.roll(-1, 1)[again, None]  # (N, 1)
    log_p = log_chances(model, hidden[again]).gather(-1, followed).squeeze(1)  # (N,)
    # no product of matrices, which autocast would round
    total = (unlikelihood(log_p.exp()) * repeated[again]).sum()
    for slip in slips:
        led, there = log_chances(model, hidden[slip.row, slip.at - 1 : slip.at + 1])  # (V,) each
        fatal = there[slip.fatal(there.detach().exp(), tokenizer)].exp().sum()
        total = total + SLIPPED * unlikelihood(fatal)
        if slip.number:  # the token before it is the model's own too
            before = led[ids[slip.row, slip.at]].clamp_min(HOPELESS)
            total = total + LED * fatal.detach() * before
    return total


def log_chances(model: GPT, hidden: Tensor) -> Tensor:
    """Log-probabilities of the next token at the temperature it is drawn with: (..., C) to
    (..., V)."""
    return (model.head(hidden).float() / USUAL.temperature).log_softmax(-1)


def unlikelihood(p: Tensor) -> Tensor:
    """-log(1 - p), with an end."""
    return -(-SURE * p).log1p()


def faults(attempt: Attempt, tokenizer: Tokenizer) -> tuple[np.ndarray, int | None]:
    """Weights of the tokens that were written, float32 (N,), where they repeat others; and which of
    them is a slip. What comes after that is not judged."""
    new = attempt.ids[attempt.n_prompt :]
    pieces = [tokenizer.token_bytes(t) for t in new[: len(new) - attempt.ended]]
    slip = first_slip(attempt.before, pieces, attempt.ended)
    repeated, judged = np.zeros(len(new), np.float32), len(new) if slip is None else slip + 1
    for end in repetitions(new):
        repeated[end - PASSAGE : min(end, judged)] = REPEATED
    return repeated, slip


def repetitions(tokens: list[int]) -> Iterator[int]:
    """The ends of all passages of PASSAGE tokens that were there before."""
    seen = set()
    for end in range(PASSAGE, len(tokens) + 1):
        passage = tuple(tokens[end - PASSAGE : end])
        if passage in seen:
            yield end
        seen.add(passage)


def first_slip(before: bytes, pieces: list[bytes], ended: bool) -> int | None:
    """The number of the piece after which the text, Python before, cannot be any more; that of the
    end, if it only ended too soon. A last line that is not whole is not judged."""
    if not syntax_error(text_of(before + b"".join(pieces)), ended):
        return None

    def dead(n: int) -> bool:
        return not can_go_on(text_of(before + b"".join(pieces[: n + 1])))

    return bisect_left(range(len(pieces) - (not ended)), True, key=dead)
