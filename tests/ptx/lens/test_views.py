"""Attention pictures: the model's own weights, and encodings that keep them."""

from __future__ import annotations

from base64 import b64encode

import numpy as np
import pytest
import torch

from ptx import lens
from ptx.config import ModelConfig
from ptx.lens import attention, thumbnails, triangle
from ptx.model import GPT
from tests.peers import MODERN, REFERENCE, scrambled


@pytest.fixture(scope="module")
def weights(model: GPT) -> torch.Tensor:
    torch.manual_seed(1)
    return attention(model, torch.randint(1000, (50,)).tolist())


def test_every_row_is_a_distribution_over_the_past(weights: torch.Tensor) -> None:
    assert weights.shape == (2, 4, 50, 50)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 4, 50))
    assert weights.triu(1).abs().max() == 0
    assert weights.std() > 0.01


def test_a_triangle_decodes_to_the_weights(weights: torch.Tensor) -> None:
    data = np.frombuffer(triangle(weights[1, 2]), dtype=np.uint8)
    assert len(data) == 50 * 51 // 2
    decoded = np.zeros((50, 50), dtype=np.float32)
    decoded[np.tril_indices(50)] = (data / 255.0) ** 2
    assert np.abs(decoded - weights[1, 2].numpy()).max() <= 0.005


def test_thumbnails_lose_no_bright_cell() -> None:
    large = torch.zeros(2, 4, 200, 200)
    large[:, :, 150, 33] = 1.0
    pixels = np.frombuffer(thumbnails(large), dtype=np.uint8).reshape(2, 4, 64, 64)
    assert (pixels.max(axis=(2, 3)) == 255).all()
    assert pixels[0, 0, 150 * 64 // 200, 33 * 64 // 200] == 255


def test_encodings_keep_to_their_sizes_in_base64() -> None:
    def kib(data: bytes) -> float:
        return len(b64encode(data)) / 1024

    for layers, heads in ((6, 4), (6, 6), (12, 12)):
        data = thumbnails(torch.rand(layers, heads, 256, 256))
        side = lens.thumbnail_side(layers * heads, 256)
        assert len(data) == layers * heads * side**2
        assert kib(data) <= 200
    assert lens.thumbnail_side(36, 256) == 64
    assert kib(triangle(torch.rand(256, 256))) <= 45
    assert len(lens.row(torch.rand(6, 6, 256))) == 36 * 256


@pytest.mark.parametrize("tokens", [40, 128])
def test_bands_together_are_the_thumbnails(tokens: int) -> None:
    weights = torch.rand(2, 3, tokens, tokens).tril()
    rows = [lens.row(weights[:, :, q, : q + 1]) for q in range(tokens)]
    side = lens.thumbnail_side(6, tokens)
    picture = np.zeros((6, side, side), np.uint8)
    for first, end in ((0, 7), (7, 8), (8, tokens)):
        top, band = lens.band(rows[first:end], 6, first, tokens)
        part = picture[:, top : top + band.shape[1]]
        np.maximum(part, band, out=part)
    assert picture.tobytes() == thumbnails(weights)


def test_a_pixel_of_a_band_is_the_largest_of_its_tokens() -> None:
    """Also where the tokens are no multiple of the pixels."""
    rng, tokens, first = np.random.default_rng(0), 100, 30
    rows = [rng.integers(0, 256, 6 * (q + 1), np.uint8) for q in range(first, 90)]
    top, band = lens.band([row.tobytes() for row in rows], 6, first, tokens)
    side = lens.thumbnail_side(6, tokens)
    expected = np.zeros((6, side, side), np.uint8)
    for q, row in enumerate(rows, first):
        for k, of_heads in enumerate(row.reshape(6, -1).T):
            pixel = expected[:, q * side // tokens, k * side // tokens]
            np.maximum(pixel, of_heads, out=pixel)
    assert tokens % side
    assert np.array_equal(band, expected[:, top : top + band.shape[1]])
    assert not expected[:, :top].any()
    assert not expected[:, top + band.shape[1] :].any()


def test_a_row_loses_its_sink_as_the_whole_does(weights: torch.Tensor) -> None:
    codes = lens.row_without_sink(lens.row(weights[:, :, 30, :31]), 8)
    shown = (np.frombuffer(codes, np.uint8).reshape(2, 4, 31) / 255.0) ** 2
    expected = lens.without_sink(weights[:, :, :31, :31])[:, :, 30].numpy()
    assert np.abs(shown - expected).max() <= 0.02  # of codes of eight bits


def test_rows_that_are_made_together_are_those_of_each(weights: torch.Tensor) -> None:
    some = [weights[:, :, i, : i + 1] for i in (0, 7, 30)]
    assert lens.rows([one.numpy() for one in some]) == [lens.row(one) for one in some]
    assert lens.rows([]) == []
    assert lens.rows([np.empty(0, np.float32), some[1].numpy()]) == [b"", lens.row(some[1])]


def test_without_its_sink_a_row_is_a_distribution_over_the_rest(weights: torch.Tensor) -> None:
    kept = weights.clone()
    left = lens.without_sink(weights)
    assert torch.equal(weights, kept)
    assert left[..., 0].abs().max() == 0
    assert left[:, :, 0].abs().max() == 0  # the first row had nothing else
    torch.testing.assert_close(left[:, :, 1:].sum(-1), torch.ones(2, 4, 49))
    row = weights[1, 2, 30, 1:]
    torch.testing.assert_close(left[1, 2, 30, 1:], row / row.sum())


@pytest.mark.parametrize("config", [REFERENCE, MODERN["grouped-query"]], ids=["gpt2", "grouped"])
@torch.inference_mode()
def test_value_weighting_is_the_norm_of_what_each_head_writes(config: ModelConfig) -> None:
    model = scrambled(config)
    c, (layer, head, q, k) = config, (1, 3, 9, 4)
    seen = lens.trace(model, list(range(12)))
    found = lens.value_weighted(model, seen)
    attn, x = model.blocks[layer].attn, model.blocks[layer].attn_norm(seen.residual[layer, k])
    D, source = c.head_size, head // (c.n_head // c.n_kv_head)
    v = attn.v(x)[source * D : (source + 1) * D]
    written = attn.out.weight[:, head * D : (head + 1) * D] @ v * seen.attention[layer, head, q, k]
    torch.testing.assert_close(found[layer, head, q, k], written.norm(), atol=1e-5, rtol=1e-4)
    assert lens.to_unit(found).max() == 1
