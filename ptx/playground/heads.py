"""Heads: where every head of every layer looks, and one of them large."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from functools import lru_cache
from threading import Lock
from typing import Any

import gradio as gr
from torch import Tensor

from ptx import lens
from ptx.errors import UserError
from ptx.playground.served import Served
from ptx.playground.web import panel
from ptx.stream import visible_from

CACHE = 100_000_000
"""Bytes of attention kept at most, but for the text at hand."""


class Looker:
    """Attention of the window that the model sees, computed once for all heads of a text."""

    def __init__(self, served: Served) -> None:
        self.served = served
        # The browser asks for heads outside Gradio's queue: one forward at a time is enough.
        self._one = Lock()
        c = served.model.config
        size = 4 * c.n_layer * c.n_head * c.context**2  # bytes of one text's attention
        self._attention = lru_cache(maxsize=max(1, CACHE // size))(self._forward)

    def _forward(self, ids: tuple[int, ...]) -> Tensor:
        return lens.attention(self.served.model, list(ids))  # (L, H, T, T)

    def attention(self, ids: list[int]) -> Tensor:
        with self._one:
            return self._attention(tuple(ids))

    def overview(self, ids: list[int]) -> dict[str, Any]:
        """All heads small: thumbnails in base64, and the tokens they are about."""
        start = visible_from(len(ids), self.served.context)
        window = ids[start:]
        weights = self.attention(window)  # (L, H, T, T)
        return {
            "ids": window,
            "labels": [self._label(token, start + i) for i, token in enumerate(window)],
            "start": start,
            "layers": weights.shape[0],
            "heads": weights.shape[1],
            "side": lens.thumbnail_side(weights.shape[0] * weights.shape[1], len(window)),
            "thumbnails": b64encode(lens.thumbnails(weights)).decode(),
        }

    def head(self, request: Any) -> dict[str, str]:
        """One head large, for `{"ids", "layer", "head"}` from any client: {"triangle": base64} or
        {"error": sentence}, because the browser never learns of an exception."""
        try:
            ids, layer, head = self._checked(request)
        except UserError as error:
            return {"error": str(error)}
        return {"triangle": b64encode(lens.triangle(self.attention(ids)[layer, head])).decode()}

    def _checked(self, request: Any) -> tuple[list[int], int, int]:
        if not isinstance(request, dict):
            raise UserError("a head is asked for with an object {ids, layer, head}")
        config = self.served.model.config
        ids, layer, head = (request.get(name) for name in ("ids", "layer", "head"))
        if not isinstance(ids, list) or not 1 <= len(ids) <= config.context:
            raise UserError(f"ids must be a list of 1 to {config.context} token ids")
        if not all(_within(token, config.vocab_size) for token in ids):
            raise UserError(f"ids must be whole numbers from 0 to {config.vocab_size - 1}")
        if not _within(layer, config.n_layer):
            raise UserError(f"layer must be a whole number from 0 to {config.n_layer - 1}")
        if not _within(head, config.n_head):
            raise UserError(f"head must be a whole number from 0 to {config.n_head - 1}")
        return ids, layer, head

    def _label(self, token: int, position: int) -> str:
        if token == self.served.tokenizer.eot:
            return "⟨start⟩" if position == 0 else "⟨end⟩"
        return self.served.tokenizer.text([token])


def _within(value: Any, limit: int) -> bool:
    return type(value) is int and 0 <= value < limit


def build(looker: Looker, ids: list[int]) -> gr.HTML:
    """The panel, showing the heads on `ids` until there is another text."""

    def head(request: Any) -> dict[str, str]:
        return looker.head(request)

    server: list[Callable[..., Any]] = [head]
    return panel("heads", looker.overview(ids), server)
