"""The network against implementations nobody here wrote: transformers' GPT-2 and Qwen3."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from ptx.config import PRESETS
from ptx.errors import UserError
from ptx.model import GPT, KVCache
from tests.peers import COMPARED, MODERN, TOLERANCE, scrambled


def cached_logits(model: GPT, ids: Tensor, pieces: list[int]) -> Tensor:
    """Logits (B, T, V) read through the key/value cache in pieces of the given lengths."""
    cache = KVCache(model, batch=len(ids))
    return torch.cat([model(piece, cache=cache) for piece in ids.split(pieces, dim=1)], dim=1)


@pytest.mark.parametrize(("config", "convert"), COMPARED.values(), ids=COMPARED)
@torch.no_grad()
def test_logits_and_attention_equal_transformers_with_and_without_cache(config, convert) -> None:
    model = scrambled(config)
    ids = torch.randint(config.vocab_size, (2, config.context))
    expected = convert(model)(ids, output_attentions=True)
    record: list[Tensor] = []
    plain = model(ids, record=record)
    assert plain.std() > 0.1  # the comparison is not of zeros
    torch.testing.assert_close(plain, expected.logits, atol=TOLERANCE, rtol=0)
    for ours, theirs in zip(record, expected.attentions, strict=True):
        torch.testing.assert_close(ours, theirs, atol=TOLERANCE, rtol=0)
    pieces = [17, 1, 1, 5, config.context - 24]
    cached = cached_logits(model, ids, pieces)
    torch.testing.assert_close(cached, expected.logits, atol=TOLERANCE, rtol=0)


@torch.no_grad()
def test_recording_attention_changes_no_logit() -> None:
    model = scrambled(MODERN["tied"])
    ids = torch.randint(1000, (1, 40))
    assert torch.equal(model(ids), model(ids, record=[]))


def test_reference_has_the_originals_parameter_count() -> None:
    with torch.device("meta"):
        assert GPT(PRESETS["reference"]).n_params() == 164_553_555


def test_mini_has_about_ten_million_parameters() -> None:
    with torch.device("meta"):
        assert 8e6 < GPT(PRESETS["mini"]).n_params() < 12e6


def test_a_fresh_modern_model_predicts_nearly_uniformly() -> None:
    torch.manual_seed(0)
    config = MODERN["tied"]
    loss = GPT(config)(torch.randint(1000, (2, 64)), torch.randint(1000, (2, 64)))
    assert abs(loss.item() - torch.tensor(1000.0).log().item()) < 0.3


def test_positions_beyond_the_context_are_refused() -> None:
    model = GPT(MODERN["untied"])
    with pytest.raises(ValueError, match="context of 128"):
        model(torch.zeros(1, 129, dtype=torch.long))


@pytest.mark.parametrize(
    ("change", "field"),
    [({"n_kv_head": 3}, "n_kv_head"), ({"n_layer": 0}, "n_layer"), ({"head_size": 33}, "head_size"),
     ({"dropout": 1.0}, "dropout")],
)  # fmt: skip
def test_impossible_shapes_are_refused_by_field(change: dict, field: str) -> None:
    with pytest.raises(UserError, match=field):
        replace(PRESETS["nano"], **change)
