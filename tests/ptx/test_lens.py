"""Attention pictures: the model's own weights, and encodings that keep them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ptx.lens import attention, thumbnails, triangle
from ptx.model import GPT


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


def test_thumbnails_lose_no_bright_cell(model: GPT) -> None:
    large = torch.zeros(2, 4, 200, 200)
    large[:, :, 150, 33] = 1.0
    pixels = np.frombuffer(thumbnails(large), dtype=np.uint8).reshape(2, 4, 64, 64)
    assert (pixels.max(axis=(2, 3)) == 255).all()
    assert pixels[0, 0, 150 * 64 // 200, 33 * 64 // 200] == 255
