"""The next-token distribution against transformers' logits processors, over the vocabulary."""

from __future__ import annotations

import pytest
import torch
from transformers import (
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from ptx.errors import UserError
from ptx.sampling import Sampling, distribution, draw


@pytest.mark.parametrize("temperature", [0.3, 1.0, 1.7])
@pytest.mark.parametrize("top_k", [0, 1, 40])
@pytest.mark.parametrize("top_p", [0.1, 0.9, 1.0])
def test_distribution_equals_transformers(temperature: float, top_k: int, top_p: float) -> None:
    torch.manual_seed(0)
    logits = torch.randn(4, 16_384) * 3
    warpers = LogitsProcessorList([TemperatureLogitsWarper(temperature)])
    if top_k:
        warpers.append(TopKLogitsWarper(top_k))
    if top_p < 1.0:
        warpers.append(TopPLogitsWarper(top_p))
    expected = warpers(torch.zeros(4, 1, dtype=torch.long), logits.clone()).softmax(-1)
    ours = distribution(logits, Sampling(temperature, top_k, top_p))
    torch.testing.assert_close(ours, expected, atol=1e-6, rtol=1e-5)
    assert torch.equal(ours > 0, expected > 0)


def test_temperature_zero_takes_the_most_likely_token() -> None:
    probs = distribution(torch.tensor([0.1, 2.0, 1.9]), Sampling(temperature=0.0))
    assert probs.tolist() == [0.0, 1.0, 0.0]


def test_a_tiny_temperature_is_almost_zero() -> None:
    probs = distribution(torch.tensor([0.1, 2.0, 1.9]), Sampling(temperature=1e-39))
    assert probs.tolist() == [0.0, 1.0, 0.0]


def test_draws_follow_the_distribution_and_the_seed() -> None:
    probs = torch.tensor([0.1, 0.0, 0.6, 0.3])
    draws = [draw(probs, g) for g in [torch.Generator().manual_seed(1)] for _ in range(4000)]
    shares = torch.bincount(torch.tensor(draws), minlength=4) / 4000
    assert (shares - probs).abs().max() < 0.03
    assert shares[1] == 0
    again = torch.Generator().manual_seed(1)
    assert [draw(probs, again) for _ in range(100)] == draws[:100]


@pytest.mark.parametrize(
    ("values", "knob"),
    [((-1.0,), "temperature"), ((float("nan"),), "temperature"), ((1.0, -1), "top-k"),
     ((1.0, 0, 0.0), "top-p"), ((1.0, 0, 1.1), "top-p")],
)  # fmt: skip
def test_knobs_out_of_range_are_refused_by_name(values: tuple, knob: str) -> None:
    with pytest.raises(UserError, match=knob):
        Sampling(*values)
