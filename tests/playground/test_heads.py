"""Attention on its way to the page, and what any client may ask for."""

from __future__ import annotations

from base64 import b64decode
from typing import Any

import numpy as np
import pytest

from ptx import lens
from ptx.playground.heads import Looker
from ptx.playground.served import Served


@pytest.fixture
def looker(served: Served) -> Looker:
    return Looker(served)


@pytest.fixture
def ids(served: Served) -> list[int]:
    return [served.tokenizer.eot, *served.tokenizer.encode("for i in range(10):\n")]


def test_one_head_decodes_to_the_weights_of_the_model(looker: Looker, ids: list[int]) -> None:
    answer = looker.head({"ids": ids, "layer": 1, "head": 2})
    values = np.frombuffer(b64decode(answer["triangle"]), np.uint8)
    T = len(ids)
    decoded = np.zeros((T, T))
    decoded[np.tril_indices(T)] = (values / 255) ** 2
    expected = lens.attention(looker.served.model, ids)[1, 2].numpy()
    assert np.abs(decoded - expected).max() < 0.005


def test_the_overview_has_a_thumbnail_for_every_head(looker: Looker, ids: list[int]) -> None:
    view = looker.overview(ids)
    assert (view["layers"], view["heads"], view["side"]) == (2, 3, len(ids))
    assert len(b64decode(view["thumbnails"])) == 2 * 3 * len(ids) ** 2
    assert view["labels"][0] == "⟨start⟩"
    assert "".join(view["labels"][1:]) == "for i in range(10):\n"


def test_a_long_text_shows_the_window_that_the_model_sees(looker: Looker, ids: list[int]) -> None:
    context = looker.served.context
    long = (ids * context)[: 2 * context + 3]
    view = looker.overview(long)
    assert len(view["ids"]) <= context
    assert view["ids"] == long[view["start"] :]
    assert view["start"] > 0


def test_several_heads_of_a_text_cost_one_forward(
    looker: Looker, ids: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    real = lens.attention
    monkeypatch.setattr(lens, "attention", lambda *a: calls.append(1) or real(*a))
    looker.overview(ids)
    for head in range(3):
        looker.head({"ids": ids, "layer": 0, "head": head})
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("request_", "named"),
    [
        (None, "object"),
        ([1, 2], "object"),
        ({}, "ids"),
        ({"ids": "1", "layer": 0, "head": 0}, "ids"),
        ({"ids": [], "layer": 0, "head": 0}, "ids"),
        ({"ids": [1] * 33, "layer": 0, "head": 0}, "ids"),
        ({"ids": [-1], "layer": 0, "head": 0}, "ids"),
        ({"ids": [10**9], "layer": 0, "head": 0}, "ids"),
        ({"ids": [1.0], "layer": 0, "head": 0}, "ids"),
        ({"ids": [True], "layer": 0, "head": 0}, "ids"),
        ({"ids": [[1]], "layer": 0, "head": 0}, "ids"),
        ({"ids": [1], "layer": 2, "head": 0}, "layer"),
        ({"ids": [1], "layer": "0", "head": 0}, "layer"),
        ({"ids": [1], "layer": 0, "head": -1}, "head"),
        ({"ids": [1], "layer": 0}, "head"),
    ],
)
def test_a_hostile_request_is_answered_with_a_sentence(
    looker: Looker, request_: Any, named: str
) -> None:
    answer = looker.head(request_)
    assert list(answer) == ["error"]
    assert named in answer["error"]
