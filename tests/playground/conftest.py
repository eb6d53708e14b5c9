"""A model small enough to be made for every run of the tests, and not trained at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from ptx import GPT, ModelConfig, get_tokenizer, save_model
from ptx.playground.served import Served

INFO = {"val_bpb": 1.2345, "steps": 10, "made of": "<img src=x onerror=alert(1)>"}
CONTEXT = 32


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Served:
    torch.manual_seed(0)
    tokenizer = get_tokenizer("py16k")
    shape = ModelConfig(
        vocab_size=tokenizer.n_vocab, context=CONTEXT, n_layer=2, n_head=3, n_kv_head=3,
        head_size=8, d_model=16, d_mlp=32, init="gpt2",
    )  # fmt: skip
    directory = tmp_path_factory.mktemp("models") / "tiny"
    save_model(directory, GPT(shape), tokenizer, INFO)
    (directory / "README.md").write_text("---\nlicense: mit\n---\n# Tiny\n")
    lines = [{"step": step, "bpb": 3 - step / 10} for step in range(10)]
    (directory / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return Served.load(directory)


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return tmp_path / "runs"
