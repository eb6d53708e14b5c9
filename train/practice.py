"""Practice: the model continues training files itself, and is corrected where its text goes wrong.

Real text hardly teaches a small model to leave a loop that it has fallen into, or to be sure where
Python is strict: such mistakes are not in it. So at the end of a cooldown the model reads its own
text too. What repeats itself is made less likely (unlikelihood; Welleck et al., 2020), and so are,
where Python's parser gives up, all likely tokens at which it would. The batch of real text beside
it keeps everything else in place.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ptx.corpus import Corpus
from ptx.decoder import Decoder
from ptx.engine import Batch
from ptx.errors import UserError
from ptx.guard import text_of
from ptx.model import GPT
from ptx.prefix import can_go_on, syntax_error
from ptx.sampling import USUAL
from ptx.stream import Limits, Stream
from ptx.tokenizer import Tokenizer

PASSAGE = 12
"""Tokens that are a repetition when a text has them once more: real code repeats fewer."""
LONGEST = 1_500
"""Tokens of a file before its continuation, at most: Python parses them a second time."""
SHORTEST = 40
"""Tokens of a file before its continuation, at least; a file has twice as many."""
TRIES = 1_000
"""Beginnings looked at until one is Python."""
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
        self.tokens, self.tokenizer = corpus.train, corpus.tokenizer
        self.context, self.seed, self.numbers = context, seed, numbers
        ends = np.flatnonzero(np.asarray(self.tokens) == self.tokenizer.eot)
        starts = np.concatenate([[0], ends + 1])[:-1]
        long = ends - starts >= 2 * SHORTEST
        self.documents = np.stack([starts[long], ends[long]], 1)  # (N, 2)
        if not len(self.documents):
            raise UserError(
                f"--practice needs files of {2 * SHORTEST} tokens to continue, and {corpus.path} "
                "has none: leave it out"
            )
        self.beginning(np.random.default_rng(seed))  # refuses what is not Python

    def attempts(self, model: GPT, step: int) -> list[Attempt]:
        """Those of one step. A number's is the same whoever makes it, and among which others."""
        seeds = [np.random.SeedSequence([OWN, self.seed, step, n]) for n in self.numbers]
        begun = [self.beginning(np.random.default_rng(seed)) for seed in seeds]
        limits = Limits(max_tokens=self.context - self.context // 2)
        streams = [
            Stream(self.tokenizer, self.context, ids, USUAL, limits, int(seed.generate_state(1)[0]))
            for (_, ids), seed in zip(begun, seeds, strict=True)
        ]
        batch = Batch(Decoder(model, len(streams), native=True))
        for stream in streams:
            batch.join(stream)
        while batch.streams:
            batch.step()
        return [written(stream, before) for stream, (before, _) in zip(streams, begun, strict=True)]

    def beginning(self, random: np.random.Generator) -> tuple[bytes, list[int]]:
        """Of a training file that is Python up to there: its text, and the end of it as tokens."""
        for _ in range(TRIES):
            start, end = self.documents[random.integers(len(self.documents))]
            end = random.integers(start + SHORTEST, min(end, start + LONGEST))
            ids = self.tokens[start:end].tolist()
            before = self.tokenizer.decode(ids)
            if can_go_on(text_of(before)):
                return before, [self.tokenizer.eot, *ids[1 - self.context // 2 :]]
        raise UserError("--practice needs Python to continue, and this data is not: leave it out")


def written(stream: Stream, before: bytes) -> Attempt:
    """What became of a stream; raises the error that ended it."""
    if stream.error:
        raise stream.error
    ended = stream.finish == "end of text"
    ids = [*stream.ids, stream.tokenizer.eot] if ended else stream.ids
    return Attempt(before, ids, stream.n_prompt, ended)


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
        others = [t for t in likely if t != drawn and is_slip(before, t, tokenizer)]
        return torch.tensor([drawn, *others], device=probabilities.device)


def is_slip(before: bytes, token: int, tokenizer: Tokenizer) -> bool:
    """Whether a text, Python so far, cannot be any more with this token."""
    if token == tokenizer.eot:
        return syntax_error(text_of(before), ended=True) is not None
    return not can_go_on(text_of(before + tokenizer.token_bytes(token)))


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
