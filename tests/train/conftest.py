"""A data directory and a model small enough to train in a test."""

from __future__ import annotations

import inspect
import json
from dataclasses import replace
from pathlib import Path

import pytest

from ptx.checkpoint import find_model
from ptx.config import PRESETS
from ptx.corpus import CorpusWriter
from ptx.tokenizer import python_tokenizer
from train import grammar
from train.loop import Run
from train.settings import RECIPES, Settings

BYTES = python_tokenizer("bytes", {bytes([i]): i for i in range(256)})
TINY = replace(
    PRESETS["nano"], vocab_size=257, context=64, n_layer=2, n_head=2, n_kv_head=2, head_size=8,
    d_model=16, d_mlp=32,
)  # fmt: skip


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two modules of the standard library, one token a byte."""
    directory = tmp_path_factory.mktemp("prepared") / "data"
    with CorpusWriter(directory, BYTES) as writer:
        sources = {}
        for split, module in (("train", inspect), ("val", json)):
            text = Path(module.__file__).read_bytes()
            tokens = [*BYTES.encode(text), BYTES.eot]
            writer.write(split, tokens)
            project = {"name": module.__name__, "version": "1", "licence": "PSF-2.0"}
            counts = {"files": 1, "bytes": len(text), "tokens": len(tokens)}
            sources[split] = [project | counts]
        writer.finish(sources)
    return directory


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """A preset of milliseconds a step; with dropout, so that resuming needs its generator."""
    shape = replace(
        PRESETS["nano"], context=16, n_layer=2, n_head=2, n_kv_head=2, head_size=8, d_model=16,
        d_mlp=32, dropout=0.1,
    )  # fmt: skip
    monkeypatch.setitem(PRESETS, "tiny", shape)
    monkeypatch.setitem(
        RECIPES, "tiny", RECIPES["nano"] | {"steps": 12, "batch_size": 4, "micro_batch": 2}
    )


def interrupted(settings: Settings, steps: int) -> Path:
    """The directory of a run that was stopped after some steps."""
    run = Run.start(settings)
    for _ in range(steps):
        run.step()
    run.close()
    return run.directory


def assert_equal_ends(one: Path, other: Path) -> None:
    """Two runs came to the same weights and the same optimizers' state, bit for bit."""
    for name in ("model.safetensors", "optimizer.safetensors"):
        assert (find_model(one) / name).read_bytes() == (find_model(other) / name).read_bytes()


@pytest.fixture
def any_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python's parser is asked about all tokens: a model of noise holds none of them likely."""
    monkeypatch.setattr(grammar, "LIKELY", 0.0)
