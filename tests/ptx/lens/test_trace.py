"""A trace is the forward's own: equal to transformers' on the same weights, and it changes nothing;
a muted head is what the arithmetic by hand says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from ptx import lens
from ptx.config import PRESETS, ModelConfig
from ptx.errors import UserError
from ptx.lens.trace import muted
from ptx.model import GPT
from tests.peers import COMPARED, TOLERANCE, scrambled

IDS = [5, 7, 7, 900, 13, 5, 7, 99]


@pytest.mark.parametrize(("config", "convert"), COMPARED.values(), ids=COMPARED)
@torch.inference_mode()
def test_attention_and_residual_stream_equal_transformers(
    config: ModelConfig, convert: Callable
) -> None:
    model = scrambled(config)
    ids = torch.randint(config.vocab_size, (config.context,)).tolist()
    seen = lens.trace(model, ids)
    theirs = convert(model)(torch.tensor([ids]), output_attentions=True, output_hidden_states=True)
    torch.testing.assert_close(seen.attention, torch.cat(theirs.attentions), atol=TOLERANCE, rtol=0)
    # theirs ends with the stream after the final norm
    ours = torch.cat((seen.residual[:-1], model.norm(seen.residual[-1:])))
    # which grows from block to block, and its rounding with it
    theirs_all = torch.cat(theirs.hidden_states)  # (L + 1, T, C)
    size = theirs_all.abs().amax((1, 2), keepdim=True)
    torch.testing.assert_close(ours / size, theirs_all / size, atol=1e-5, rtol=0)
    torch.testing.assert_close(seen.logits, theirs.logits[0], atol=TOLERANCE, rtol=0)


@torch.inference_mode()
def test_tracing_changes_no_logit_and_leaves_no_hook(model: GPT) -> None:
    before = model(torch.tensor([IDS]))[0]
    seen = lens.trace(model, IDS)
    assert torch.equal(seen.logits, before)
    assert torch.equal(seen.attention, lens.attention(model, IDS))
    for position in (0, -1):
        one = seen.logits_after(position)
        torch.testing.assert_close(one, before[position], atol=1e-5, rtol=0)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


@torch.inference_mode()
def test_nothing_muted_is_bit_equal(model: GPT) -> None:
    batch = torch.tensor([IDS, IDS])
    assert torch.equal(muted(model, [lens.Mute(), lens.Mute()])(batch), model(batch))
    assert torch.equal(lens.trace(model, IDS, lens.Mute()).logits, lens.trace(model, IDS).logits)


@torch.no_grad()
def test_the_parts_add_up_to_the_residual_stream(model: GPT) -> None:
    seen = lens.trace(model, IDS)
    for layer, block in enumerate(model.blocks):
        written = seen.heads[layer].flatten(1) @ block.attn.out.weight.T  # (T, C)
        after = seen.residual[layer] + written + seen.mlps[layer]
        torch.testing.assert_close(after, seen.residual[layer + 1], atol=1e-4, rtol=1e-4)


def test_heads_are_the_weighted_sum_of_the_values(model: GPT) -> None:
    seen = lens.trace(model, IDS)
    torch.testing.assert_close(
        seen.attention @ seen.values, seen.heads.transpose(1, 2), atol=1e-5, rtol=1e-4
    )


@pytest.mark.parametrize("n", [1, 5, len(IDS) - 1])
@pytest.mark.parametrize("mute", [None, lens.Mute(heads=((0, 1), (1, 2)))], ids=["whole", "muted"])
@pytest.mark.parametrize("config", COMPARED.values(), ids=COMPARED)
def test_a_trace_that_goes_on_equals_one_of_the_whole_text(
    config: tuple[ModelConfig, Callable], mute: lens.Mute | None, n: int
) -> None:
    model = scrambled(config[0])
    whole = lens.trace(model, IDS, mute)
    other = lens.trace(model, [*IDS[:n], 11, 12], mute)
    found = lens.trace(model, IDS, mute, before=other.beginning(n))
    assert found.ids == whole.ids
    for name in ("attention", "keys", "values", "heads", "mlps", "residual", "final", "logits"):
        a, b = getattr(found, name), getattr(whole, name)
        torch.testing.assert_close(a, b, atol=TOLERANCE, rtol=1e-5)
    with pytest.raises(ValueError, match="does not go on"):
        lens.trace(model, IDS, mute, before=other)


@pytest.mark.parametrize("mean", [False, True], ids=["zero", "mean"])
@torch.inference_mode()
def test_a_muted_head_is_what_the_arithmetic_by_hand_says(model: GPT, mean: bool) -> None:
    """Head 2 of layer 1 by changing the stream; head 1 of layer 0 by changing the weights."""
    other = lens.trace(model, [3, 1, 4, 1, 5])
    means = lens.means(other) if mean else None
    seen = lens.trace(model, IDS)
    D = model.config.head_size
    z = seen.heads[1].clone()  # (T, H, D)
    z[:, 2] = other.heads[1, :, 2].mean(0) if mean else 0
    block = model.blocks[1]
    x = seen.residual[1] + z.flatten(1) @ block.attn.out.weight.T
    x = x + block.mlp(block.mlp_norm(x))
    by_hand = model.head(model.norm(x))
    found = lens.trace(model, IDS, lens.Mute(heads=((1, 2),)), means)
    torch.testing.assert_close(found.logits, by_hand, atol=1e-4, rtol=1e-4)
    if not mean:
        weaker = GPT(model.config).eval()
        weaker.load_state_dict(model.state_dict())
        weaker.blocks[0].attn.out.weight[:, D : 2 * D] = 0
        found = lens.trace(model, IDS, lens.Mute(heads=((0, 1),)))
        expected = weaker(torch.tensor([IDS]))[0]
        torch.testing.assert_close(found.logits, expected, atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_a_muted_mlp_adds_nothing_or_its_mean(model: GPT) -> None:
    found = lens.trace(model, IDS, lens.Mute(mlps=(0,)))
    assert (found.mlps[0] == 0).all()
    torch.testing.assert_close(
        found.residual[1] - found.residual[0],
        found.heads[0].flatten(1) @ model.blocks[0].attn.out.weight.T, atol=1e-4, rtol=1e-4,
    )  # fmt: skip
    means = lens.means(lens.trace(model, IDS))
    found = lens.trace(model, IDS, lens.Mute(mlps=(0,)), means)
    torch.testing.assert_close(found.mlps[0], means.mlps[0].expand(len(IDS), -1))


@torch.inference_mode()
def test_every_text_of_a_batch_is_muted_on_its_own(model: GPT) -> None:
    mutes = [lens.Mute(), lens.Mute(heads=((0, 3), (1, 0))), lens.Mute(mlps=(1,))]
    together = muted(model, mutes)(torch.tensor([IDS] * 3))
    for row, mute in zip(together, mutes, strict=True):
        alone = lens.trace(model, IDS, mute).logits
        torch.testing.assert_close(row, alone, atol=1e-4, rtol=1e-4)


def test_a_trace_is_taken_without_dropout_and_leaves_the_model_training() -> None:
    torch.manual_seed(0)
    model = GPT(replace(PRESETS["nano"], vocab_size=100, dropout=0.5, init="gpt2"))
    seen = lens.trace(model, IDS[:3])
    assert torch.equal(seen.logits, lens.trace(model, IDS[:3]).logits)
    assert torch.equal(seen.attention, lens.attention(model, IDS[:3]))
    assert model.training


@pytest.mark.parametrize(
    ("ids", "sentence"),
    [([], "the text is empty"), ([1] * 65, "65 tokens and the model sees at most 64"),
     ([1, 16_384], "token 16384 is outside the vocabulary: ids go from 0 to 16383"),
     ([-1], "token -1 is outside the vocabulary")],
)  # fmt: skip
def test_impossible_texts_are_refused_in_a_sentence(
    model: GPT, ids: list[int], sentence: str
) -> None:
    for look in (lens.trace, lens.attention):
        with pytest.raises(UserError, match=sentence):
            look(model, ids)


def test_the_refusal_of_a_long_text_offers_the_last_window(model: GPT) -> None:
    ids = list(range(100))
    with pytest.raises(UserError, match=r"lens.window\(ids, 64\)"):
        lens.trace(model, ids)
    assert lens.window(ids, 64) == ids[64:]
    assert lens.trace(model, lens.window(ids, 64)).ids == tuple(ids[64:])


@pytest.mark.parametrize(
    ("mute", "sentence"),
    [(lens.Mute(heads=((2, 0),)), "no layer 2: layers go from 0 to 1"),
     (lens.Mute(heads=((0, 4),)), "no head 4 in layer 0: heads go from 0 to 3"),
     (lens.Mute(heads=((0, -1),)), "no head -1"), (lens.Mute(mlps=(-1,)), "no layer -1")],
)  # fmt: skip
def test_heads_that_do_not_exist_are_refused(model: GPT, mute: lens.Mute, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        lens.trace(model, IDS, mute)
