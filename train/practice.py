"""Practice: the model continues training files itself, and is corrected where its text goes wrong.

Real text hardly teaches a small model to leave a loop that it has fallen into, or to be sure where
Python is strict: such mistakes are not in it. So while the rate falls the model reads its own text
too. What repeats itself is made less likely (unlikelihood; Welleck et al., 2020), and so are the
tokens at which Python's parser gives up (REINFORCE; Williams, 1992). The batch of real text beside
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
from ptx.model import GPT
from ptx.sampling import Sampling
from ptx.stream import Limits, Stream
from ptx.tokenizer import Tokenizer
from train.continuations import syntax_error

SAMPLING = Sampling(temperature=0.6, top_p=0.95)
PASSAGE = 12
"""Tokens that are a repetition when a text has them once more: real code repeats fewer."""
LONGEST = 1_500
"""Tokens of a file before its continuation, at most: Python parses them a second time."""
SHORTEST = 40
"""Tokens of a file before its continuation, at least; a file has twice as many."""
TRIES = 1_000
"""Beginnings looked at until one is Python."""
REPEATED, SLIPPED, LINE = 0.5, 30.0, 2.0
"""Weights, beside the loss of real text, of a token that repeats, of one where the parser gives up,
and of the others on its line, which may be the cause."""
SURE = 0.999
"""A probability beyond which no token is pushed down harder: the loss would have no end."""
HOPELESS = -9.0
"""A log-probability that is low enough."""
AROUND = 3
"""Tokens of the place that the parser names, at most: its last ones."""
NEWLINE = ord("\n")
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
            Stream(
                self.tokenizer, self.context, ids, SAMPLING, limits, int(seed.generate_state(1)[0])
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
        """Of a training file that is Python up to there: its text, and the end of it as tokens."""
        for _ in range(TRIES):
            start, end = self.documents[random.integers(len(self.documents))]
            end = random.integers(start + SHORTEST, min(end, start + LONGEST))
            ids = self.tokens[start:end].tolist()
            before = self.tokenizer.decode(ids)
            if syntax_error(before.decode("utf-8", "replace")) is None:
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
        self.judged = [(attempt, faults(attempt, tokenizer)) for attempt in attempts]
        self.written = sum(weights.shape[1] for _, weights in self.judged)
        self.parsed = sum(not slipped.any() for _, (_, slipped) in self.judged)
        self.repeated = sum(np.count_nonzero(repeated) for _, (repeated, _) in self.judged)

    def parts(self, rows: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """What `correction` takes, of those in which something went wrong, `rows` at a time."""
        wrong = [(attempt, weights) for attempt, weights in self.judged if weights.any()]
        for first in range(0, len(wrong), rows):
            ids = torch.full((rows, self.context), self.tokenizer.eot)  # (B, T), always as large
            following = torch.zeros(2, rows, self.context)
            for row, (attempt, weights) in enumerate(wrong[first : first + rows]):
                ids[row, : len(attempt.ids)] = torch.tensor(attempt.ids)
                chosen_at = slice(attempt.n_prompt - 1, len(attempt.ids) - 1)
                following[:, row, chosen_at] = torch.from_numpy(weights)
            yield ids, following[0], following[1]


def correction(model: GPT, ids: Tensor, repeated: Tensor, slipped: Tensor) -> Tensor:
    """The sum over tokens of -log(1 - p) for what is repeated, and of log p for slips: both less
    when the token is less likely.

    ids: (B, T); repeated, slipped: (B, T), weights of the token after each. p is the probability at
    the temperature that it was drawn with.
    """
    at = (repeated + slipped) > 0  # (B, T)
    logits = model.head(model.hidden(ids)[at]).float() / SAMPLING.temperature  # (N, V)
    followed = ids.roll(-1, 1)[at, None]  # (N, 1)
    log_p = logits.log_softmax(-1).gather(-1, followed).squeeze(1)  # (N,)
    unlikelihood = -(-SURE * log_p.exp()).log1p()
    # no products of matrices, which autocast would round
    return (unlikelihood * repeated[at] + log_p.clamp_min(HOPELESS) * slipped[at]).sum()


def faults(attempt: Attempt, tokenizer: Tokenizer) -> np.ndarray:
    """Weights of the tokens that were written, float32 (2, N): of repetitions, and of slips. What
    comes after the line on which Python's parser gives up is not judged."""
    new = attempt.ids[attempt.n_prompt :]
    pieces = [tokenizer.token_bytes(t) for t in new[: len(new) - attempt.ended]]
    text = (attempt.before + b"".join(pieces)).decode("utf-8", "replace")
    weights, judged = np.zeros((2, len(new)), np.float32), len(new)
    if pieces and syntax_error(text):
        line, place = blamed(attempt.before, pieces)
        weights[1, line], weights[1, place] = LINE, SLIPPED
        judged = max(line.stop, place.stop)
    elif attempt.ended and syntax_error(text, ended=True):  # something was still open
        weights[1, -1] = SLIPPED
    for end in repetitions(new):
        weights[0, end - PASSAGE : min(end, judged)] = REPEATED
    return weights


def repetitions(tokens: list[int]) -> Iterator[int]:
    """The ends of all passages of PASSAGE tokens that were there before."""
    seen = set()
    for end in range(PASSAGE, len(tokens) + 1):
        passage = tuple(tokens[end - PASSAGE : end])
        if passage in seen:
            yield end
        seen.add(passage)


def blamed(before: bytes, pieces: list[bytes]) -> tuple[slice, slice]:
    """Which of the tokens that were written are on the first line with which the text is no Python
    any more, and which are where the parser gives up.

    What Python says about the whole text may be about a later line (its tokenizer goes on after an
    error of the parser), or about an earlier one (a bracket that was never closed).
    """
    text = before + b"".join(pieces)
    start, end = first_bad_line(text, len(before))
    line = text[start:end].decode("utf-8", "replace")
    first, last = place_in(line, text.count(b"\n", 0, end), _error(text[:end]) or SyntaxError())
    stops = len(before) + np.cumsum([len(piece) for piece in pieces])

    def token_at(byte: int) -> int:
        return min(int(np.searchsorted(stops, byte, "right")), len(pieces) - 1)

    def byte_of(character: int) -> int:
        return start - 1 if character < 0 else start + len(line[:character].encode())

    begin, stop = token_at(byte_of(first)), token_at(byte_of(last))
    whole = slice(token_at(start - 1), token_at(end - 1) + 1)
    return whole, slice(max(begin, stop + 1 - AROUND), stop + 1)


def first_bad_line(text: bytes, before: int) -> tuple[int, int]:
    """From where to where the line goes that makes the text no Python; the first `before` bytes
    are."""
    ends = [i + 1 for i, byte in enumerate(text) if byte == NEWLINE]
    ends = ends[bisect_left(ends, before) :]
    end = ends[bisect_left(ends[:-1], True, key=lambda end: bool(_error(text[:end])))]
    return text.rfind(b"\n", 0, end - 1) + 1, end


def place_in(line: str, number: int, error: SyntaxError) -> tuple[int, int]:
    """The first and the last character of the place in the line that the error is about; -1 is the
    line feed before it."""
    indent = len(line) - len(line.lstrip())
    if isinstance(error, IndentationError):  # the line feed has the wrong spaces after it
        return -1, indent
    if (error.end_lineno or error.lineno) != number:  # it goes on with what began earlier
        return indent, indent
    first = (error.offset or 1) - 1 if error.lineno == number else 0
    return first, max(first, (error.end_offset or 0) - 2)


def _error(text: bytes) -> SyntaxError | None:
    return syntax_error(text.decode("utf-8", "replace"))
