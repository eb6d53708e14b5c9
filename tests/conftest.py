"""What every test shares: one torch thread, and the vocabulary that may need a download."""

from __future__ import annotations

import os

import pytest
import torch
from hypothesis import settings

from ptx.errors import UserError
from ptx.tokenizer import Tokenizer, get_tokenizer

# One thread adds numbers in one order, so results repeat; on tensors this small it is also fastest.
torch.set_num_threads(1)

# The same examples in every run, and no deadline: a busy machine is not a failure.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")


@pytest.fixture(scope="session")
def o200k() -> Tokenizer:
    """The original's tokenizer. Offline and not cached it skips the test, except in CI."""
    try:
        return get_tokenizer("o200k_base")
    except UserError as error:
        if os.environ.get("CI", "").lower() in {"1", "true"}:
            pytest.fail(f"CI needs o200k_base: {error}")
        pytest.skip(str(error))
