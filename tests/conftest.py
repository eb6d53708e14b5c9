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

HERE = Path(__file__).parent
BROWSER = "browser"
LONGEST = (
    BROWSER,
    "browser/test_training_lives.py",
    "test_end_to_end.py",
    "train/test_parallel.py",
    "train/test_survival.py",
    "playground/test_training.py",
)
"""What workers begin with, so that none is left alone with it at the end."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where several workers share the tests: a file's are one worker's, and so are those of all
    files that share one page and one browser."""
    if not hasattr(config, "workerinput"):
        return
    order = {group: place for place, group in enumerate(LONGEST)}
    for item in items:
        item.add_marker(pytest.mark.xdist_group(_group(item)))
    items.sort(key=lambda item: order.get(_group(item), len(order)))  # stable


def _group(item: pytest.Item) -> str:
    path = item.path.relative_to(HERE).as_posix()
    own = ("browser/test_training_lives.py", "browser/test_sampler.py")
    return BROWSER if path.startswith("browser/") and path not in own else path


@pytest.fixture(scope="session")
def o200k() -> Tokenizer:
    """The original's tokenizer. Offline and not cached it skips the test, except in CI."""
    try:
        return get_tokenizer("o200k_base")
    except UserError as error:
        if os.environ.get("CI", "").lower() in {"1", "true"}:
            pytest.fail(f"CI needs o200k_base: {error}")
        pytest.skip(str(error))
