"""The parts of a logit sum to it, in both families, with every bias there is."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from ptx import lens
from ptx.config import ModelConfig
from ptx.errors import UserError
from ptx.model import GPT
from tests.peers import MODERN, REFERENCE, scrambled

IDS = [5, 7, 7, 900, 13, 5, 7, 99]
SHAPES = {"reference": replace(REFERENCE, qkv_bias=True), **MODERN}


def biased(config: ModelConfig) -> GPT:
    model = scrambled(config)
    if model.head.bias is not None:
        torch.nn.init.normal_(model.head.bias)
    return model


@pytest.mark.parametrize("config", SHAPES.values(), ids=SHAPES)
def test_the_parts_sum_to_the_logit_and_to_the_difference(config: ModelConfig) -> None:
    model = biased(config)
    seen = lens.trace(model, IDS)
    for position, token, against in ((-1, 3, None), (-1, 3, 700), (2, 11, 12)):
        found = lens.attribution(model, seen, token, against, position)
        logits = seen.logits_after(position).double()
        real = logits[token] - (0 if against is None else logits[against])
        assert float(found.total) == pytest.approx(float(real), abs=1e-5)
        assert abs(float(found.sum() - real)) <= 1e-3
        assert found.heads.shape == (config.n_layer, config.n_head)
        assert found.heads.abs().min() > 0
        assert (found.biases.abs() > 1e-3) == config.bias


@torch.inference_mode()
def test_a_heads_part_is_what_its_output_adds_at_the_frozen_scale() -> None:
    model = biased(SHAPES["reference"])
    seen = lens.trace(model, IDS)
    D, (layer, head) = model.config.head_size, (4, 2)
    x = seen.residual[-1, -1]
    weight = model.blocks[layer].attn.out.weight[:, head * D : (head + 1) * D]
    wrote = weight @ seen.heads[layer, -1, head]
    scaled = (wrote - wrote.mean()) / (x.var(correction=0) + model.config.norm_eps).sqrt()
    expected = (scaled * model.norm.weight) @ model.head.weight[3]
    found = lens.attribution(model, seen, 3).heads[layer, head]
    assert float(found) == pytest.approx(float(expected), abs=1e-4)


def test_the_parts_of_a_muted_model_sum_to_its_logit() -> None:
    model = biased(SHAPES["reference"])
    seen = lens.trace(model, IDS, lens.Mute(heads=((0, 1),)))
    found = lens.attribution(model, seen, 3)
    assert float(found.heads[0, 1]) == 0
    assert abs(float(found.sum() - found.total)) <= 1e-3


def test_a_token_leads_itself_by_nothing(model: GPT) -> None:
    found = lens.attribution(model, lens.trace(model, IDS), 3, against=3)
    assert float(found.sum()) == float(found.total) == 0


def test_tokens_outside_the_vocabulary_are_refused(model: GPT) -> None:
    with pytest.raises(UserError, match="token -5 is outside the vocabulary"):
        lens.attribution(model, lens.trace(model, IDS), 3, against=-5)
