"""The logit lens ends with the model's own answer, and each row is the head on that layer."""

from __future__ import annotations

import pytest
import torch

from ptx import lens
from ptx.errors import UserError
from ptx.model import GPT
from tests.peers import REFERENCE, scrambled

IDS = [5, 7, 7, 900, 13, 5, 7, 99]


@torch.inference_mode()
def test_the_last_row_is_the_real_output(model: GPT) -> None:
    seen = lens.trace(model, IDS)
    real = model(torch.tensor([IDS]))[0]
    for position in (-1, 2):
        found = lens.logit_lens(model, seen, position)
        torch.testing.assert_close(found.logits[-1], real[position], atol=1e-5, rtol=0)
        assert found.token == int(real[position].argmax())
        assert int(found.rank[-1]) == 1


@torch.inference_mode()
def test_each_row_is_the_final_norm_and_the_head_on_that_layer() -> None:
    model = scrambled(REFERENCE)
    seen = lens.trace(model, IDS)
    found = lens.logit_lens(model, seen, 4)
    for layer in range(model.config.n_layer + 1):
        expected = model.head(model.norm(seen.residual[layer, 4]))
        torch.testing.assert_close(found.logits[layer], expected, atol=1e-4, rtol=0)


def test_probability_and_rank_follow_the_chosen_token(model: GPT) -> None:
    found = lens.logit_lens(model, lens.trace(model, IDS), token=321, k=5)
    assert found.tokens.shape == found.probs.shape == (3, 5)
    for layer in range(3):
        row = found.logits[layer].softmax(-1)
        order = row.argsort(descending=True).tolist()
        assert order[:5] == found.tokens[layer].tolist()
        assert int(found.rank[layer]) == 1 + order.index(321)
        assert float(found.prob[layer]) == pytest.approx(float(row[321]))


def test_positions_and_tokens_that_do_not_exist_are_refused(model: GPT) -> None:
    seen = lens.trace(model, IDS)
    with pytest.raises(UserError, match="no position 8: the text has 8, 0 to 7"):
        lens.logit_lens(model, seen, 8)
    with pytest.raises(UserError, match="token 20000 is outside the vocabulary"):
        lens.logit_lens(model, seen, token=20_000)
