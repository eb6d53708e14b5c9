"""What any client may ask about a text, checked field by field."""

from __future__ import annotations

from typing import Any

from ptx import lens
from ptx.errors import UserError
from ptx.playground.models import FIRST, Models
from ptx.playground.served import Served


class Question:
    """A request, any JSON, about a model. Whatever is asked for raises UserError if it is missing
    or is not what it should be."""

    def __init__(self, models: Models, request: Any) -> None:
        if not isinstance(request, dict):
            raise UserError("a question is an object with named fields")
        self._fields, self._limits = request, models.limits
        self.served: Served = models.get(request.get("model", FIRST))

    @property
    def ids(self) -> list[int]:
        ids, limit = self._fields.get("ids"), self.served.model.config.vocab_size
        most = self._limits.text_tokens
        if not isinstance(ids, list) or not 1 <= len(ids) <= most:
            raise UserError(f"ids must be a list of 1 to {most:,} token ids")
        if not all(type(token) is int and 0 <= token < limit for token in ids):
            raise UserError(f"ids must be whole numbers from 0 to {limit - 1}")
        return ids

    @property
    def optional_ids(self) -> list[int] | None:
        return None if self._fields.get("ids") is None else self.ids

    def cursor(self, ids: list[int]) -> int:
        """The position of a token of `ids` that was chosen, or of the next one."""
        return self.whole("at", 1, len(ids))

    def token(self, name: str) -> int | None:
        """A token id, or None if none is given."""
        if self._fields.get(name) is None:
            return None
        return self.whole(name, 0, self.served.model.config.vocab_size - 1)

    @property
    def mute(self) -> lens.Mute:
        """The heads that write nothing; none if left out."""
        names = self._fields.get("muted") or []
        known = self._heads
        if not isinstance(names, list) or not all(
            isinstance(name, str) and name in known for name in names
        ):
            raise UserError(f'muted must be a list of heads "layer.head", {_range(known)}')
        return lens.Mute(heads=tuple(sorted({known[name] for name in names})))

    @property
    def heads_from(self) -> dict[tuple[int, int], int]:
        """A position for each of some heads; none if left out."""
        given = self._fields.get("heads") or {}
        known, context = self._heads, self.served.model.config.context
        if not isinstance(given, dict) or not all(
            name in known and type(position) is int and 0 <= position <= context
            for name, position in given.items()
        ):
            raise UserError(
                f'heads must name heads "layer.head", {_range(known)}, each with a position from '
                f"0 to {context}"
            )
        return {known[name]: position for name, position in given.items()}

    @property
    def _heads(self) -> dict[str, tuple[int, int]]:
        c = self.served.model.config
        return {f"{layer}.{head}": (layer, head)
                for layer in range(c.n_layer) for head in range(c.n_head)}  # fmt: skip

    @property
    def head(self) -> tuple[int, int]:
        c = self.served.model.config
        return self.whole("layer", 0, c.n_layer - 1), self.whole("head", 0, c.n_head - 1)

    def text(self, name: str) -> str:
        value = self._fields.get(name)
        if not isinstance(value, str):
            raise UserError(f"{name} must be a text")
        size, most = len(value.encode("utf-8", "surrogatepass")), self._limits.prompt_bytes
        if size > most:
            raise UserError(f"{name} has {size:,} bytes and at most {most:,} are read: shorten it")
        return value

    def optional_text(self, name: str) -> str | None:
        return None if self._fields.get(name) is None else self.text(name)

    def one_of(self, name: str, choices: tuple[str, ...]) -> str:
        """The first choice if left out."""
        value = self._fields.get(name, choices[0])
        if not isinstance(value, str) or value not in choices:
            raise UserError(f"{name} must be one of: {', '.join(choices)}")
        return value

    def flag(self, name: str) -> bool:
        """False if left out."""
        value = self._fields.get(name, False)
        if not isinstance(value, bool):
            raise UserError(f"{name} must be true or false")
        return value

    def number(self, name: str) -> float:
        value = self._fields.get(name)
        if type(value) not in (int, float):
            raise UserError(f"{name} must be a number")
        return value

    def whole(self, name: str, low: int, high: int, default: int | None = None) -> int:
        value = self._fields.get(name, default)
        if type(value) is not int or not low <= value <= high:
            raise UserError(f"{name} must be a whole number from {low} to {high}")
        return value


def _range(heads: dict[str, tuple[int, int]]) -> str:
    names = list(heads)
    return f'from "{names[0]}" to "{names[-1]}"'
