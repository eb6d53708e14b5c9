"""Grammar: what Python's parser would refuse after real text is made unlikely.

The loss of real text tells a model which token came, and one that did not come is as wrong as any
other. That a bracket too many ends all hope of Python, and another name does not, it is told here:
position after position of some windows of training files the parser is asked about each likely
token (unlikelihood training; Welleck et al., 2020, with the parser as the judge). A window lies
near the beginning of its file, which the parser has to read.

What came in such a window is learnt as well: half of them begin as prompts do, with end-of-text
before the middle of a file, which the batches hardly show, and where nothing but refusals is heard,
the surest way not to be refused is to write no code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from ptx.guard import Guard
from ptx.loss import IGNORED
from ptx.model import GPT
from ptx.sampling import USUAL
from ptx.tokenizer import Tokenizer
from train.beginnings import Beginnings

WEIGHT = 60.0
"""Of -log(1 - p), p being the probability of all that is refused, beside the loss of real text."""
CAME = 0.5
"""Of the loss of the tokens that came, beside that of the batch."""
LIKELY = 0.02
"""The probability of a token from which on the parser is asked about it."""
SURE = 0.999
"""A probability beyond which nothing is pushed down harder: the loss would have no end."""
SEEN = 0.25
"""Share of the context that the model sees of a file before the first position that is judged, at
most: what is open may stand further back, and cannot be known."""
EXCERPTS = 2
"""Tells its seeds from those of a step's other random numbers."""


@dataclass(frozen=True)
class Excerpt:
    """A piece of a file."""

    before: bytes
    """The file up to the first token that is judged."""
    ids: list[int]
    """What the model sees: end-of-text first, as before a prompt, or as in the middle of a text."""
    n_seen: int
    """How many of `ids` are not judged."""

    @property
    def n_judged(self) -> int:
        return len(self.ids) - self.n_seen

    @property
    def judged(self) -> slice:
        """The positions that are judged: at each the model expects the token after it."""
        return slice(self.n_seen - 1, len(self.ids) - 1)


class Grammar:
    """Draws excerpts: at each step as many as there are `numbers`."""

    def __init__(self, beginnings: Beginnings, context: int, seed: int, numbers: range) -> None:
        self.beginnings, self.tokenizer = beginnings, beginnings.tokenizer
        self.context, self.seed, self.numbers = context, seed, numbers

    def excerpts(self, step: int) -> list[Excerpt]:
        """Those of one step. A number's is the same whoever draws it, and with which others."""
        seeds = [np.random.SeedSequence([EXCERPTS, self.seed, step, n]) for n in self.numbers]
        return [self._excerpt(np.random.default_rng(seed)) for seed in seeds]

    def _excerpt(self, random: np.random.Generator) -> Excerpt:
        begun, after = self.beginnings.draw(random)
        most = round(SEEN * self.context)
        seen = begun[-most:]
        if random.integers(2):
            seen = [self.tokenizer.eot, *last_lines(begun[1 - most :], self.tokenizer)]
        ids = [*seen, *after[: self.context - len(seen)]]
        return Excerpt(self.tokenizer.decode(begun), ids, len(seen))


def last_lines(ids: list[int], tokenizer: Tokenizer) -> list[int]:
    """`ids` from the beginning of a line at the left margin if there is one: so prompts begin."""
    for i in range(1, len(ids)):
        before, here = map(tokenizer.token_bytes, ids[i - 1 : i + 1])
        if before.endswith(b"\n") and not here[:1].isspace():
            return ids[i:]
    return ids


class Verdict(NamedTuple):
    """On some excerpts."""

    loss: Tensor
    """WEIGHT times the sum of -log(1 - p), where p is refused at a position, and CAME times that of
    the losses of all tokens that came."""
    refused: float
    """The sum of p, of likely tokens alone."""


def judge(model: GPT, tokenizer: Tokenizer, excerpts: list[Excerpt]) -> Verdict:
    """The parser's verdict on what the model expects in excerpts that it reads at once."""
    device = model.tok_emb.weight.device
    texts = [torch.tensor(excerpt.ids) for excerpt in excerpts]
    ids = pad_sequence(texts, batch_first=True, padding_value=tokenizer.eot)  # (B, T)
    hidden = model.hidden(ids.to(device))  # (B, T, C)
    found = torch.zeros(0, 3, dtype=torch.int64)  # (F, 3): row, position, token
    for row, excerpt in enumerate(excerpts):
        with torch.no_grad():
            chances = log_chances(model, hidden[row, excerpt.judged]).exp()  # (N, V)
        here = refused(excerpt, chances, tokenizer)  # (n, 2)
        found = torch.cat([found, F.pad(here, (1, 0), value=row)])
    places, which = found[:, :2].unique(dim=0, return_inverse=True)  # (P, 2), (F,)
    rows, positions = places.to(device).unbind(1)
    log_p = log_chances(model, hidden[rows, positions])  # (P, V)
    which, tokens = which.to(device), found[:, 2].to(device)
    p = torch.zeros(len(places), device=device).index_add(0, which, log_p[which, tokens].exp())
    loss = WEIGHT * -(-SURE * p).log1p().sum() + CAME * loss_of_all(model, hidden, texts)
    return Verdict(loss, float(p.detach().sum()))


def loss_of_all(model: GPT, hidden: Tensor, texts: list[Tensor]) -> Tensor:
    """The sum of the losses of the tokens of each text after its first, in nats.

    hidden: (B, T, C), what the model made of them.
    """
    came = [text[1:] for text in texts]
    targets = pad_sequence(came, True, IGNORED).to(hidden.device)  # (B, T - 1)
    return (targets != IGNORED).sum() * model.loss(hidden[:, :-1], targets)


def refused(excerpt: Excerpt, chances: Tensor, tokenizer: Tokenizer) -> Tensor:
    """The likely tokens that cannot come, int64 (F, 2): the position that each would be chosen at,
    and it.

    chances: (N, V), of the token after each position that is judged.
    """
    first = excerpt.judged.start
    candidates: dict[int, list[int]] = {}
    for number, token in (chances >= LIKELY).nonzero().tolist():
        candidates.setdefault(first + number, []).append(token)
    guard, found = Guard(excerpt.before, tokenizer), []
    for position in range(first, excerpt.judged.stop):
        if not guard.alive:
            break
        came = excerpt.ids[position + 1]
        others = (token for token in candidates.get(position, ()) if token != came)
        wrong = [(position, token) for token in others if not guard.allows(token)]
        if wrong and not guard.allows(came):  # the file is no Python itself
            break
        found += wrong
        guard.append(tokenizer.token_bytes(came))
    return torch.tensor(found, dtype=torch.int64).view(-1, 2)  # (F, 2)


def log_chances(model: GPT, hidden: Tensor) -> Tensor:
    """Log-probabilities of the next token at the usual temperature: (..., C) to (..., V)."""
    return (model.head(hidden).float() / USUAL.temperature).log_softmax(-1)
