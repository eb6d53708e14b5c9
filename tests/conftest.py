"""What every test shares: one torch thread, and the vocabulary that may need a download."""

from __future__ import annotations

import os
from pathlib import Path

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

LONGEST = ("browser", "test_end_to_end.py", "train", "playground", "prepare")
"""What workers begin with, so that none is left alone with a long file at the end."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The order where several workers share the files: they are given out as they come."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: _place(item.path.relative_to(Path(__file__).parent).parts[0]))


def _place(part: str) -> int:
    return LONGEST.index(part) if part in LONGEST else len(LONGEST)


@pytest.fixture(scope="session")
def o200k() -> Tokenizer:
    """The original's tokenizer. Offline and not cached it skips the test, except in CI."""
    try:
        return get_tokenizer("o200k_base")
    except UserError as error:
        if os.environ.get("CI", "").lower() in {"1", "true"}:
            pytest.fail(f"CI needs o200k_base: {error}")
        pytest.skip(str(error))
