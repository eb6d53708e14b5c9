"""A text that somebody asks for, from the page or as a program."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

from ptx.engine import Engine, Generation
from ptx.errors import UserError
from ptx.playground.answers import is_number
from ptx.playground.limits import LIMITS
from ptx.sampling import USUAL, Sampling
from ptx.stream import PROMPT_LIMIT, Limits

MAX_SEED = 2**32 - 1
LONGEST = LIMITS.prompt_bytes
"""Bytes of a prompt, or its tokens."""


@dataclass(frozen=True)
class Request:
    """A text that a person asks for, as it arrives from the page or the API: checked by `legs`."""

    prompt: str | Sequence[int]
    """A text, which may end anywhere; or the ids of one that goes on."""
    n_prompt: int = 0
    """How many of the ids a person wrote."""
    first: int | None = None
    """The token to begin with; None leaves that to the sampler."""
    temperature: float = USUAL.temperature
    top_k: int = 0
    top_p: float = USUAL.top_p
    min_p: float = USUAL.min_p
    repetition_penalty: float = 1.0
    length: int = 200
    seed: int = 0
    python: bool = False

    @classmethod
    def read(cls, prompt: Any, data: Any) -> Request:
        """What the browser sends beside the content of its editor. Raises UserError for what is
        not a request; its own `prompt`, a text or ids, comes before the editor's."""
        if not isinstance(data, dict):
            raise UserError("a request is an object")
        names = {field.name for field in fields(cls)}
        known = {name: value for name, value in data.items() if name in names}
        start = data.get("prompt", prompt) or ""
        if not isinstance(start, str | list):
            raise UserError("a prompt is a text or a list of token ids")
        return cls(**known | {"prompt": start})

    def sampling(self) -> Sampling:
        """Raises UserError for a knob out of range, or one that is no number."""
        for name in ("temperature", "top_p", "min_p", "repetition_penalty"):
            if not is_number(getattr(self, name)):
                raise UserError(f"{name} must be a number")
        for name, low, high in (
            ("top_k", 0, MAX_SEED),
            ("length", 1, LIMITS.new_tokens),
            ("seed", 0, MAX_SEED),
            ("n_prompt", 0, PROMPT_LIMIT),
        ):
            value = getattr(self, name)
            if not isinstance(value, int | float) or value != value or not low <= value <= high:
                raise UserError(f"{name} must be a whole number between {low} and {high:,}")
        return Sampling(
            float(self.temperature),
            int(self.top_k),
            float(self.top_p),
            float(self.min_p),
            float(self.repetition_penalty),
            python=self.python,
        )

    def legs(self, engine: Engine) -> Iterator[Generation]:
        """The generations that write the text, each to be read to its end before the next is asked
        for: the last one, and before it the token that a person chose, if there is one, placed
        where it can follow an open end. Raises UserError for a knob out of range and for a prompt
        that cannot be read."""
        sampling, seed, prompt = self.sampling(), int(self.seed), self.prompt
        limits = Limits(int(self.length), LIMITS.seconds)
        text = isinstance(prompt, str)
        size = len(prompt.encode("utf-8", "replace")) if text else len(prompt)
        if size > LONGEST:
            what = "bytes" if text else "tokens"
            raise UserError(
                f"the prompt has {size:,} {what} and at most {LONGEST:,} are read: shorten it"
            )
        if self.first is not None:
            if type(self.first) is not int:
                raise UserError("the first token must be a whole number")
            opening = engine.generate(
                prompt, Sampling(1.0, forced=(self.first,)), Limits(1), seed, attention=True
            )
            yield opening
            if opening.finish != "length":  # it was the end of the text
                return
            prompt = opening.ids
        yield engine.generate(prompt, sampling, limits, seed, attention=True)
