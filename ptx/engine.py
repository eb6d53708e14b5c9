"""Streaming generation with a key/value cache.

A prompt is read as the start of a file: end-of-text comes first, as it does in training. When the
context is full, the oldest half of it is dropped and the rest read again, so memory and time per
token stay bounded however long the text grows.
"""

from __future__ import annotations

import codecs
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from ptx.errors import UserError
from ptx.healing import Healer
from ptx.model import GPT, KVCache
from ptx.sampling import Sampling, distribution, draw
from ptx.tokenizer import Tokenizer

PROMPT_LIMIT = 65_536
"""Bytes of a prompt; many times the context of any model here."""


UNFAMILIAR = 2.2
"""Bytes per token below which a prompt is not what the tokenizer was made for (Python: 3 to 5)."""


@dataclass(frozen=True)
class Step:
    """One generated token."""

    token: int
    bytes: bytes
    """What it adds to the text."""
    text: str
    """The same as text; a character split over tokens arrives whole, with its last token."""
    logprob: float
    """Natural logarithm of the probability it was drawn with, after the knobs."""


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


def window_notes(n_tokens: int, context: int) -> list[str]:
    """A sentence about a text of which the model sees only the end."""
    if n_tokens <= context:
        return []
    seen = n_tokens - visible_from(n_tokens, context)
    return [
        f"The text is longer than the context of {context} tokens: the model now sees the last "
        f"{seen} of {n_tokens:,}."
    ]


@lru_cache(maxsize=4)
def _healer(tokenizer: Tokenizer) -> Healer:
    return Healer(tokenizer)


class Generation:
    """One text being continued; iterate over it for the steps.

    ids: every token so far: end-of-text, the prompt as the model reads it, what was generated.
    n_prompt: how many of them belong to the prompt.
    """

    def __init__(
        self,
        model: GPT,
        tokenizer: Tokenizer,
        prompt: str,
        sampling: Sampling | None = None,
        max_tokens: int = 128,
        seed: int = 0,
        should_stop: Callable[[], bool] | None = None,
    ) -> None:
        check_prompt(prompt)
        if max_tokens < 1:
            raise UserError(f"max_tokens must be at least 1, not {max_tokens}")
        if not 0 <= seed < 2**63:
            raise UserError(f"the seed must be a whole number from 0 to 2**63 - 1, not {seed}")
        self.model, self.tokenizer = model, tokenizer
        self.sampling = sampling or Sampling()
        self.max_tokens = max_tokens
        self.should_stop = should_stop or (lambda: False)
        self._random = torch.Generator().manual_seed(seed)
        kept, self._pending = _healer(tokenizer).take_back(tokenizer.encode(prompt), prompt)
        self.ids = [tokenizer.eot, *kept]
        self.n_prompt = len(self.ids)

    def __iter__(self) -> Iterator[Step]:
        """Yields until `max_tokens`, end-of-text or `should_stop`."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        cache, generated = KVCache(self.model), 0
        while generated < self.max_tokens and not self.should_stop():
            token, logprob = self._next(cache)
            if token == self.tokenizer.eot:
                break
            self.ids.append(token)
            new = self._beyond_prompt(self.tokenizer.token_bytes(token))
            if not new:  # the token lies inside the prompt
                self.n_prompt += 1
                continue
            generated += 1
            yield Step(token, new, decoder.decode(new), logprob)
        if rest := decoder.decode(b"", final=True):
            yield Step(self.ids[-1], b"", rest, 0.0)

    def _beyond_prompt(self, token: bytes) -> bytes:
        new = token[len(self._pending) :]
        self._pending = self._pending[len(token) :]
        return new

    @torch.inference_mode()
    def _next(self, cache: KVCache) -> tuple[int, float]:
        logits = self._read(cache).cpu()  # (V,)
        if self._pending:
            allowed = _healer(self.tokenizer).allowed(self._pending)
            logits = torch.full_like(logits, float("-inf")).index_copy_(
                0, torch.tensor(allowed), logits[allowed]
            )
        probs = distribution(logits, self.sampling)
        token = draw(probs, self._random)
        return token, float(probs[token].log())

    def _read(self, cache: KVCache) -> Tensor:
        """Feeds what the cache has not seen; returns the logits (V,) after the last token."""
        start = visible_from(len(self.ids), self.model.config.context)
        if cache.start != start:
            cache.start, cache.length = start, 0
        new = self.ids[start + cache.length :]
        device = self.model.tok_emb.weight.device
        hidden = self.model.hidden(torch.tensor([new], device=device), cache)  # (1, T, C)
        return self.model.head(hidden[:, -1])[0]


def generate(
    model: GPT,
    tokenizer: Tokenizer,
    prompt: str,
    sampling: Sampling | None = None,
    max_tokens: int = 128,
    seed: int = 0,
    should_stop: Callable[[], bool] | None = None,
) -> Iterator[Step]:
    """Continues `prompt`, token by token. The same seed gives the same text.

    Raises UserError for a prompt that is too long or holds a NUL.
    """
    return iter(Generation(model, tokenizer, prompt, sampling, max_tokens, seed, should_stop))
