"""What is wrong with the texts that a model wrote, and the loss that makes it rarer.

What repeats itself is made less likely (unlikelihood; Welleck et al., 2020), and so is, at each
position up to where the text is no Python any more, all that Python's parser would refuse. To be
wrong in one place says nothing about what is right, and a model that only hears what is wrong ends
in signs that nobody forbids. So everywhere else it is held to what it expected before it practised
(as in Ziegler et al., 2019).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ptx.guard import text_of
from ptx.model import GPT
from ptx.prefix import can_go_on, syntax_error
from ptx.tokenizer import Tokenizer
from train.grammar import Excerpt, log_chances, refused_at, unlikelihood
from train.practice import Attempt

PASSAGE = 12
"""Tokens that are a repetition when a text has them once more: real code repeats fewer."""
REPEATED, REFUSED, KEPT = 0.5, 30.0, 2.0
"""Weights, beside the loss of real text: of a token that begins to repeat others, of all that would
be refused at a position (their probability p costs -log(1 - p), both), and, where nothing is wrong,
of the divergence from what was expected before."""


class Lessons:
    """What is wrong with attempts."""

    def __init__(self, attempts: list[Attempt], context: int, tokenizer: Tokenizer) -> None:
        self.context, self.tokenizer = context, tokenizer
        self.judged = [(attempt, *faults(attempt, tokenizer)) for attempt in attempts]
        self.written = sum(len(repeated) for _, repeated, _ in self.judged)
        self.parsed = sum(slip is None for *_, slip in self.judged)
        self.repeated = sum(np.count_nonzero(repeated) for _, repeated, _ in self.judged)

    def parts(self, rows: int, device: torch.device) -> Iterator[Part]:
        """All of them, `rows` at a time."""
        for first in range(0, len(self.judged), rows):
            ids = torch.full((rows, self.context), self.tokenizer.eot)
            repeated, kept = torch.zeros(2, rows, self.context, dtype=torch.bool)
            excerpts = []
            for row, (attempt, again, slip) in enumerate(self.judged[first : first + rows]):
                own = slice(attempt.n_prompt - 1, len(attempt.ids) - 1)
                ids[row, : len(attempt.ids)] = torch.tensor(attempt.ids)
                repeated[row, own] = torch.from_numpy(begins(again))
                kept[row, own] = torch.from_numpy(~again)
                upto = len(attempt.ids)
                if slip is not None:
                    kept[row, own.start + slip :] = False
                    upto = attempt.n_prompt + slip + 1
                excerpts.append(Excerpt(attempt.before, attempt.ids[:upto], attempt.n_prompt, True))
            yield Part(ids.to(device), repeated.to(device), kept.to(device), excerpts)


@dataclass(frozen=True)
class Part:
    """Some attempts, of the same size however many tokens they have, and what is wrong in them."""

    ids: Tensor
    """(B, T)."""
    repeated: Tensor
    """bool (B, T): where the token after each is of the beginning of a repetition."""
    kept: Tensor
    """bool (B, T): where the model chose a token of its own, and nothing is wrong with it."""
    excerpts: list[Excerpt]
    """What Python's parser judges: what was written up to where it is no Python any more."""


def correction(model: GPT, before: GPT, tokenizer: Tokenizer, part: Part) -> tuple[Tensor, Tensor]:
    """The sum of -log(1 - p) over tokens that begin to repeat others, and over all that would be
    refused at a position, and of the divergence from the model as it was before, in nats; and that
    divergence alone.

    p is the probability at the temperature that it was drawn with.
    """
    hidden = model.hidden(part.ids)  # (B, T, C)
    followed = part.ids.roll(-1, 1)[part.repeated, None]  # (N, 1)
    log_p = log_chances(model, hidden[part.repeated]).gather(-1, followed)  # (N, 1)
    repeats = unlikelihood(log_p.exp()).sum()
    refused = unlikelihood(refused_at(model, hidden, tokenizer, part.excerpts)).sum()
    strayed = divergence(model, hidden, before, part)
    return REPEATED * repeats + REFUSED * refused + KEPT * strayed, strayed.detach()


def divergence(model: GPT, hidden: Tensor, before: GPT, part: Part) -> Tensor:
    """Of what the model expects from what it expected before, over all that is kept, in nats."""
    with torch.no_grad():
        expected = before.head(before.hidden(part.ids)[part.kept]).float().log_softmax(-1)  # (N, V)
    found = model.head(hidden[part.kept]).float().log_softmax(-1)  # (N, V)
    return F.kl_div(found, expected, reduction="sum", log_target=True)


def faults(attempt: Attempt, tokenizer: Tokenizer) -> tuple[np.ndarray, int | None]:
    """Which of the tokens that were written repeat others, bool (N,); and which of them is a slip.
    What comes after that is not judged."""
    new = attempt.ids[attempt.n_prompt :]
    pieces = [tokenizer.token_bytes(t) for t in new[: len(new) - attempt.ended]]
    slip = first_slip(attempt.before, pieces, attempt.ended)
    repeated, judged = np.zeros(len(new), bool), len(new) if slip is None else slip + 1
    for end in repetitions(new):
        repeated[end - PASSAGE : min(end, judged)] = True
    return repeated, slip


def begins(repeated: np.ndarray) -> np.ndarray:
    """The first PASSAGE of each stretch of repeated tokens, bool (N,): further in, a model can do
    little else."""
    place = np.arange(len(repeated))
    since = place - np.maximum.accumulate(np.where(repeated, -1, place))
    return repeated & (since <= PASSAGE)


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
