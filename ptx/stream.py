"""One text being continued: what the model has to read next, and what becomes of its answer.

A prompt is read as the start of a file: end-of-text comes first, as it does in training. When the
context is full, the oldest half of it is dropped and the rest read again, so memory and time per
token stay bounded however long the text grows.
"""

from __future__ import annotations

import codecs
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from ptx.decoder import Drawn, Going
from ptx.errors import UserError
from ptx.guard import Guard
from ptx.healing import OpenEnd, healer
from ptx.lookup import GUESSES, WINDOW, Lookup
from ptx.sampling import GREEDY, NO_NUMBERS, Choice, Sampling, at, drawn, possible, shares
from ptx.tokenizer import Tokenizer

PROMPT_LIMIT = 65_536
"""Bytes of a prompt, or its tokens; many times the context of any model here."""
LONGEST_CHARACTER = 4
"""Bytes in UTF-8."""
STOPS = 16
"""Stop strings of a text."""
REFUSALS, PARSED = 200, 100_000
"""Tokens refused at one place, and bytes parsed for that, after which the first of them is taken:
while a text asks the parser all others wait."""
UNFAMILIAR = 2.2
"""Bytes per token below which a prompt is not what the tokenizer was made for (Python: 3 to 5)."""


@dataclass(frozen=True)
class Limits:
    """When a text is long enough."""

    max_tokens: int = 128
    """New tokens."""
    max_seconds: float | None = None
    """From the first new token on."""
    stop: tuple[str, ...] = ()
    """Ends with the token that completes one of these in the new text; nothing is cut off."""

    def __post_init__(self) -> None:
        if not isinstance(self.max_tokens, int) or self.max_tokens < 1:
            raise UserError(
                f"the limit in tokens must be a whole number, at least 1, not {self.max_tokens}"
            )
        if self.max_seconds is not None and not self.max_seconds > 0:
            raise UserError(f"the limit in seconds must be more than 0, not {self.max_seconds}")
        if isinstance(self.stop, str) or len(self.stop) > STOPS or not all(self.stop):
            raise UserError(f"stop takes at most {STOPS} strings, none of them empty")


@dataclass(frozen=True, eq=False)
class Step:
    """One generated token."""

    token: int | None
    """None if this is only what a text that ends inside a character leaves over."""
    bytes: bytes
    """What it adds to the text."""
    text: str
    """The same as text; a character split over tokens arrives whole, with its last token."""
    logprob: float
    """Natural logarithm of the probability it was drawn with, after the knobs."""
    choice: Choice
    """The distribution it was drawn from: before and after the knobs, over the vocabulary."""
    settled: tuple[int, ...] = ()
    """Tokens at the prompt's end that are certain only now, before this one."""
    weights: np.ndarray | None = None
    """`attention` as it was recorded."""
    unchecked: bool = False
    """Whether Python's parser was to be asked, and is not any more (`UNCHECKED`)."""

    @property
    def attention(self) -> Tensor | None:
        """Where every head looked, (L, H, S), if it was asked for; in the memory of `weights`."""
        return None if self.weights is None else torch.from_numpy(self.weights)

    @property
    def rank(self) -> int:
        """1 for the token that the model found most likely; ValueError without a token."""
        if self.token is None:
            raise ValueError("this step has no token")
        return self.choice.rank(self.token)


class Stream:
    """A text, its knobs and its random numbers. No model: something else reads `ids` and `guesses`
    and hands the logits to `take`.

    ids: every token so far: end-of-text, the prompt as the model reads it, what was generated.
    n_prompt: how many of them belong to the prompt.
    finish: why it ended, or None: length, end of text, stop string, time, cancelled, error, not
        read (see `ptx.engine`).
    error: what went wrong, if it was that.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        context: int,
        prompt: str | Sequence[int],
        sampling: Sampling | None = None,
        limits: Limits | None = None,
        seed: int = 0,
        attention: bool = False,
        speculate: bool = True,
    ) -> None:
        """prompt: a text, which may end anywhere; or the `ids` of an earlier one, or a part of
        them, that stay as they are."""
        if not isinstance(seed, int) or not 0 <= seed < 2**63:
            raise UserError(f"the seed must be a whole number from 0 to 2**63 - 1, not {seed}")
        self.sampling, self.limits = sampling or Sampling(), limits or Limits()
        self.sampling.check(tokenizer.n_vocab)
        self.tokenizer, self.context, self.attention = tokenizer, context, attention
        self._end: OpenEnd | None = None
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        if isinstance(prompt, str):
            check_prompt(prompt)
            end = healer(tokenizer).open_end(prompt)
            # Without a choice there is nothing to weigh, nor with a memory that holds none of it.
            open_tokens = max(map(len, end.nodes))
            self._end = end if len(end.nodes) > 1 and open_tokens < context // 2 else None
            self.ids = [tokenizer.eot, *end.kept, *(() if self._end else end.path)]
        else:
            check_ids(prompt, tokenizer)
            self.ids = list(prompt)
            # They may end inside a character.
            self._decoder.decode(tokenizer.decode(self.ids[-LONGEST_CHARACTER:]))
        self.n_prompt = len(self.ids)
        self._guard = guard_of(tokenizer, prompt) if self.sampling.python else None
        self.finish: str | None = None
        self.error: Exception | None = None
        self._shares = shares(seed)
        self._coming: list[float] = []
        """The next of them, where they had to be known before."""
        self.paused = False
        """Its reader is far behind: a batch leaves it out."""
        self._new = bytearray()
        self._distinct: set[int] = set()
        self._n_counted = 0
        """How many of `ids` are among them."""
        self._generated, self._started = 0, 0.0
        self._lookup = Lookup() if speculate else None
        self._stops = [s.encode("utf-8", "surrogatepass") for s in self.limits.stop]

    def visible_from(self) -> int:
        """Index of the first of `ids` that the model still sees while it chooses the next."""
        open_tokens = max(map(len, self._end.nodes)) if self._end else 0
        return visible_from(len(self.ids) + open_tokens, self.context)

    @property
    def plain(self) -> bool:
        """Whether logits and knobs alone decide what the next token is drawn from."""
        return self._end is None and self.sampling.repetition_penalty == 1.0

    @property
    def asks_torch(self) -> bool:
        """Whether its next draw may take operations of torch, even where `ptx.draws` is at hand."""
        return bool(self._end or self._guard or self.sampling.names_tokens)

    @property
    def goes_on_alone(self) -> bool:
        """Whether all that decides what comes can be said beforehand (`going`)."""
        return self.plain and not (self._guard or self.sampling.forced)

    def branches(self) -> list[list[int]]:
        """Other ends of the prompt, to be read after the last of `ids` one by one, before any
        guess: `take` needs what follows each of their tokens."""
        return [list(leaf) for leaf, _ in self._end.leaves()[1:]] if self._end else []

    def guesses(self, most: int) -> list[int]:
        """Tokens to read after the last of `ids`, in the hope that they are the next: at most so
        many, but as many as it takes while the prompt's end is open."""
        if self._end:
            return self._end.path
        room = self.context - (len(self.ids) - self.visible_from())
        most = min(most, room, self.limits.max_tokens - self._generated - 1)
        return self._lookup.guess(self.ids, most) if self._lookup and most > 0 else []

    def take(
        self,
        guesses: list[int],
        logits: np.ndarray,
        attention: list[np.ndarray] | None = None,
        branches: Sequence[tuple[np.ndarray, list[np.ndarray] | None]] = (),
        picked: tuple[int, float] | None = None,
        compiled: bool = False,
    ) -> list[Step]:
        """The steps that come of reading the last token and `guesses`; at least one, unless the
        text ends.

        logits: fp32 (1 + guesses, V), what follows each, kept as long as a step of them;
            attention: (L, H, S) for each; branches: both for each of `branches`; picked: the first
            token and its log-probability, if it was drawn already, by a `share` of this stream;
            compiled: whether `ptx.draws` is at hand.
        """
        self._started = self._started or time.monotonic()
        if self._end:
            return self._heal([(logits, attention), *branches], compiled)
        steps = []
        for i in range(len(logits)):
            choice = Choice(logits[i], self.sampling, self._seen(), compiled=compiled)
            token, logprob, choice = self._draw(choice, None if i else picked)
            if self.finish:
                break
            steps += self._accept(token, logprob, choice, attention and attention[i])
            if self.finish or i == len(guesses) or token != guesses[i]:
                break
        if self._lookup:
            self._lookup.note(len(guesses), i)
        return steps

    def going(self, steps: int) -> Going:
        """How it goes on by itself for so many steps, at most as many tokens as it may have."""
        guesses = GUESSES if self._lookup else 0
        room = min(steps + guesses, self.limits.max_tokens - self._generated)
        self._coming += islice(self._shares, max(0, room - len(self._coming)))
        past = self._lookup.past if self._lookup else np.zeros(2)
        how = self.sampling, self.tokenizer.eot, self._coming[:room]
        return Going(self.ids[-WINDOW:], guesses, past, *how)

    def take_drawn(self, drawn: Drawn) -> list[Step]:
        """The steps that come of going on by itself; those after the text's end are dropped."""
        self._started = self._started or time.monotonic()
        if not drawn.tokens:
            raise UserError(NO_NUMBERS)
        if self.sampling.temperature >= GREEDY:
            del self._coming[: len(drawn.tokens)]
        steps = []
        for i, (token, logprob) in enumerate(zip(drawn.tokens, drawn.logprobs, strict=True)):
            if self.finish:
                break
            choice = Choice(drawn.logits[i], self.sampling, compiled=True)
            steps += self._accept(token, logprob, choice, drawn.attention and drawn.attention[i])
        return steps

    def _heal(
        self, read: list[tuple[np.ndarray, list[np.ndarray] | None]], compiled: bool
    ) -> list[Step]:
        """The first new token, together with how much of the prompt's own end goes before it.

        read: logits and attention after each token of each of the open end's leaves.
        """
        end = self._end
        each = np.empty((len(end.nodes), read[0][0].shape[-1]), np.float32)  # (nodes, V)
        shown: dict[int, np.ndarray] = {}
        for (_, numbers), (logits, attention) in zip(end.leaves(), read, strict=True):
            each[numbers] = logits
            shown |= zip(numbers, attention or ())
        rows = torch.from_numpy(each)
        found = healer(self.tokenizer).candidates(rows, end)
        seen = self._seen(end.path)
        together = found.together(rows).numpy()
        choice = Choice(together, self.sampling, seen, compiled=compiled)

        @cache
        def node_of(token: int) -> int:
            ways = (found.token == token).nonzero()[:, 0]  # nearly always one
            return int(found.node[ways[at(found.logprob[ways].softmax(-1), self.share())]])

        def inside(token: int) -> int:
            return self._length(end.path) - self._length(end.nodes[node_of(token)])

        if possible(choice.logits, self.sampling):
            token, logprob, choice = self._draw(choice, inside=inside)
            node = node_of(token)
        else:  # no token that may come goes on from inside the prompt: the prompt stands as it is
            node = len(end.path)
            choice = Choice(each[node].copy(), self.sampling, seen, compiled=compiled)
            token, logprob, choice = self._draw(choice)
        if self.finish:
            return []
        self._end, settled = None, end.nodes[node]
        self.ids += settled
        self.n_prompt += len(settled)
        held = self._length(end.path) - self._length(settled)
        return self._accept(token, logprob, choice, shown.get(node), settled, held)

    def _seen(self, more: Sequence[int] = ()) -> tuple[int, ...]:
        """The tokens that the repetition penalty counts, each once, if there is one."""
        if self.sampling.repetition_penalty == 1.0:
            return ()
        self._distinct.update(self.ids[self._n_counted :])
        self._n_counted = len(self.ids)
        return tuple(sorted(self._distinct.union(more)))

    def share(self) -> float:
        """The random number of one draw."""
        return self._coming.pop(0) if self._coming else next(self._shares)

    def _draw(
        self,
        choice: Choice,
        picked: tuple[int, float] | None = None,
        inside: Callable[[int], int] | None = None,
    ) -> tuple[int, float, Choice]:
        """A token, the logarithm of its probability, and the choice with what was refused before.
        What is drawn from is not kept: `Choice` works it out again for those who ask.

        picked: what was drawn first, if it was. inside: how many bytes of a token the prompt has.
        """
        first, most = None, self._guard.parsed + PARSED if self._guard else 0
        while True:
            c, share = choice, map(Stream.share, [self])
            what = c.given[None], c.sampling, share, c.ids, c.dead, c.compiled
            token, logprob = picked or drawn(*what)[0]
            if not self._guard or self._guard.allows(token, inside(token) if inside else 0):
                return token, logprob, choice
            first = first or (token, logprob, choice)
            if self.finish:  # cancelled meanwhile: nobody wants it
                return first
            dead = (*c.dead, *([token] if inside else self._guard.as_dead(token)))
            tired = len(c.refused) == REFUSALS or self._guard.parsed > most
            if tired or not possible(c.logits, c.sampling, dead):
                self._guard = None
                return first
            choice, picked = replace(c, refused=(*c.refused, token), dead=dead), None

    def _length(self, tokens: Sequence[int]) -> int:
        """Bytes."""
        return sum(len(self.tokenizer.token_bytes(t)) for t in tokens)

    def _accept(
        self,
        token: int,
        logprob: float,
        choice: Choice,
        attention: np.ndarray | None,
        settled: tuple[int, ...] = (),
        inside: int = 0,
    ) -> list[Step]:
        """Appends a token, of which `inside` bytes still belong to the prompt."""
        if token == self.tokenizer.eot:
            return self.end("end of text")
        self.ids.append(token)
        new = self.tokenizer.token_bytes(token)[inside:]
        if self._guard:
            self._guard.append(new)
            self._guard = self._guard if self._guard.alive else None
        self._generated += 1
        self._new += new
        text = self._decoder.decode(new)
        unchecked = self.sampling.python and not self._guard
        step = Step(token, new, text, logprob, choice, settled, attention, unchecked)
        finish = self._finished(len(new))
        return [step, *self.end(finish)] if finish else [step]

    def _finished(self, n_new: int) -> str | None:
        for stop in self._stops:
            if stop in self._new[-(len(stop) + n_new) :]:
                return "stop string"
        if self._generated >= self.limits.max_tokens:
            return "length"
        seconds = self.limits.max_seconds
        if seconds is not None and time.monotonic() - self._started >= seconds:
            return "time"
        return None

    def cancel(self) -> None:
        """Ends the text where it is; from any thread."""
        self.finish = self.finish or "cancelled"

    def fail(self, error: Exception) -> None:
        """Ends the text because of an error."""
        self.finish, self.error = self.finish or "error", error

    def prompt_ids(self) -> list[int]:
        """The prompt's tokens; its own ones where they are open still."""
        return self.ids[: self.n_prompt] + (list(self._end.path) if self._end else [])

    def end(self, finish: str) -> list[Step]:
        """No more tokens; what is left of half a character comes as a step without a token."""
        if self.finish is None:
            self.finish = finish
            if rest := self._decoder.decode(b"", final=True):
                nothing = Choice(np.zeros(1, np.float32), Sampling())
                return [Step(None, b"", rest, 0.0, nothing)]
        return []


def guard_of(tokenizer: Tokenizer, prompt: str | Sequence[int]) -> Guard | None:
    """What keeps the continuation of a prompt Python; None if the prompt is none already."""
    text = prompt.encode("utf-8", "surrogatepass") if isinstance(prompt, str) else None
    guard = Guard(tokenizer.decode(prompt[1:]) if text is None else text, tokenizer)
    return guard if guard.alive else None


def check_prompt(prompt: str) -> None:
    """Raises UserError, in one sentence, for a prompt that no Python file could begin with."""
    size = len(prompt.encode("utf-8", "surrogatepass"))
    if size > PROMPT_LIMIT:
        raise UserError(
            f"the prompt has {size:,} bytes and at most {PROMPT_LIMIT:,} are read: shorten it"
        )
    if (where := prompt.find("\0")) >= 0:
        raise UserError(
            f"the prompt has a NUL character at position {where}, which no Python file may "
            "contain: remove it"
        )


def check_ids(ids: Sequence[int], tokenizer: Tokenizer) -> None:
    """Raises UserError, in one sentence, for tokens that are not those of a text."""
    if not len(ids) or ids[0] != tokenizer.eot:
        raise UserError(
            f"a prompt of token ids begins with end-of-text, {tokenizer.eot}, as every text does"
        )
    if len(ids) > PROMPT_LIMIT:
        raise UserError(
            f"the prompt has {len(ids):,} tokens and at most {PROMPT_LIMIT:,} are read: shorten it"
        )
    for i, token in enumerate(ids):
        if type(token) is not int or not 0 <= token < tokenizer.n_vocab:
            raise UserError(
                f"id {i} of the prompt must be a whole number from 0 to {tokenizer.n_vocab - 1}, "
                f"not {token!r}"
            )
        if i and token == tokenizer.eot:
            raise UserError(f"id {i} of the prompt is end-of-text, which only begins a text")


def visible_from(n_tokens: int, context: int) -> int:
    """Index of the first of `n_tokens` that the model still sees while it chooses the next."""
    dropped_at_once = context - context // 2
    return dropped_at_once * max(0, math.ceil((n_tokens - context) / dropped_at_once))


def prompt_notes(tokenizer: Tokenizer, prompt: str) -> list[str]:
    """Sentences a person should read before judging the continuation of this prompt."""
    if not prompt:
        return ["The prompt is empty: the model begins a new file."]
    size = len(prompt.encode("utf-8", "surrogatepass"))
    rate = size / len(tokenizer.encode(prompt))
    if size > 40 and rate < UNFAMILIAR:
        return [
            "This does not look like the Python the model knows "
            f"({rate:.1f} bytes per token, Python has 3 to 5): expect nonsense."
        ]
    return []


UNCHECKED = (
    "Only Python was given up on the way: nothing likely was Python at one place, or a statement "
    "grew too long to check it at every token. From there on the text is as the model has it."
)


def python_notes(tokenizer: Tokenizer, prompt: str | Sequence[int]) -> list[str]:
    """A sentence about a prompt whose continuation no parser can keep Python."""
    if guard_of(tokenizer, prompt):
        return []
    return [
        "The prompt cannot become Python any more, or its last statement is too long to check it "
        "at every token, so Only Python has no effect here: correct or shorten the prompt to use "
        "it."
    ]


def window_notes(n_tokens: int, context: int) -> list[str]:
    """A sentence about a text of which the model sees only the end."""
    if n_tokens <= context:
        return []
    seen = n_tokens - visible_from(n_tokens, context)
    return [
        f"The text is longer than the context of {context} tokens: the model now sees the last "
        f"{seen} of {n_tokens - 1:,}."
    ]
