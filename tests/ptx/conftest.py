"""A small model with random weights and the shipped tokenizer."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from ptx.config import PRESETS
from ptx.model import GPT
from ptx.tokenizer import Tokenizer, get_tokenizer


@pytest.fixture(scope="session")
def py16k() -> Tokenizer:
    return get_tokenizer("py16k")


@pytest.fixture(scope="session")
def model() -> GPT:
    """Random, and far from uniform: its residual matrices are not zero."""
    torch.manual_seed(0)
    config = replace(PRESETS["nano"], context=64, n_layer=2, init="gpt2")
    model = GPT(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1 if parameter.ndim == 1 else 5)
    return model
