"""What muting costs is the difference between two plain forwards, however many run at once."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ptx import lens
from ptx.errors import UserError
from ptx.lens import ablation
from ptx.model import GPT

IDS = [5, 7, 7, 900, 13, 5, 7, 99]
MUTES = [lens.Mute(), lens.Mute(heads=((0, 1),)), lens.Mute(heads=((0, 1), (1, 3)), mlps=(1,))]


def log_probs(model: GPT, mute: lens.Mute, means: lens.Means | None = None) -> Tensor:
    return lens.trace(model, IDS, mute, means).logits.log_softmax(-1)


@pytest.mark.parametrize("mean", [False, True], ids=["zero", "mean"])
@pytest.mark.parametrize("at_once", [1, 100])
def test_changes_are_differences_of_single_forwards(
    model: GPT, mean: bool, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ablation, "LOGITS", at_once * len(IDS) * model.config.vocab_size)
    means = lens.means(lens.trace(model, [3, 1, 4])) if mean else None
    found = lens.ablate(model, IDS, MUTES, token=42, means=means)
    base = log_probs(model, lens.Mute())
    for n, mute in enumerate(MUTES):
        muted = log_probs(model, mute, means)
        change = muted[-1, 42] - base[-1, 42]
        assert float(found.next_logprob[n]) == pytest.approx(float(change), abs=1e-4)
        for t in range(len(IDS) - 1):
            loss = base[t, IDS[t + 1]] - muted[t, IDS[t + 1]]
            assert float(found.token_losses[n, t]) == pytest.approx(float(loss), abs=1e-4)
    torch.testing.assert_close(found.loss, found.token_losses.mean(1))
    assert found.base_logprob == pytest.approx(float(base[-1, 42]), abs=1e-4)
    assert found.next_logprob[0] == 0 or at_once > 1
    assert found.next_logprob[1].abs() > 1e-3


def test_the_likeliest_token_is_watched_if_none_is_named(model: GPT) -> None:
    found = lens.ablate(model, IDS, [])
    assert found.token == int(lens.trace(model, IDS).logits[-1].argmax())
    assert found.next_logprob.shape == (0,)
    assert found.token_losses.shape == (0, len(IDS) - 1)


def test_every_head_on_its_own_comes_layer_by_layer(model: GPT) -> None:
    mutes = lens.single_heads(model.config)
    assert [mute.heads for mute in mutes] == [((i, j),) for i in range(2) for j in range(4)]
    assert lens.ablate(model, IDS, mutes).loss.view(2, 4).abs().min() > 0


def test_a_batch_costs_what_its_texts_cost(model: GPT) -> None:
    other = IDS[::-1]
    found = lens.ablate_batch(model, torch.tensor([IDS, other]), MUTES)
    alone = [lens.ablate(model, ids, MUTES).loss for ids in (IDS, other)]
    torch.testing.assert_close(found, (alone[0] + alone[1]) / 2, atol=1e-4, rtol=1e-4)
    assert float(found[0]) == 0


def test_impossible_ablations_are_refused(model: GPT) -> None:
    missing = [lens.Mute(heads=((0, 9),))]
    with pytest.raises(UserError, match="no head 9 in layer 0"):
        lens.ablate(model, IDS, missing)
    with pytest.raises(UserError, match="no head 9 in layer 0"):
        lens.ablate_batch(model, torch.tensor([IDS]), missing)
    with pytest.raises(UserError, match="the text is empty"):
        lens.ablate(model, [], MUTES)
    with pytest.raises(UserError, match="token 99999 is outside the vocabulary"):
        lens.ablate(model, IDS, MUTES, token=99_999)
    with pytest.raises(UserError, match="two tokens at least"):
        lens.ablate_batch(model, torch.tensor([[1]]), MUTES)
    with pytest.raises(UserError, match="65 tokens and the model sees at most 64"):
        lens.ablate_batch(model, torch.ones(2, 65, dtype=torch.long), MUTES)
