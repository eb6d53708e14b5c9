"""What a model writes for practice, and that a run practises at the end of its cooldown."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ptx.checkpoint import find_model
from ptx.corpus import Corpus
from ptx.errors import UserError
from ptx.model import GPT
from tests.train.conftest import TINY
from train.loop import Run, practice_of, train
from train.parallel import World
from train.practice import Practice
from train.settings import Settings


def test_an_attempt_is_the_same_whoever_makes_it(data: Path) -> None:
    torch.manual_seed(0)
    corpus, model = Corpus(data), GPT(TINY).eval()
    four = Practice(corpus, 64, 3, range(4)).attempts(model, 7)
    two = Practice(corpus, 64, 3, range(2, 4)).attempts(model, 7)
    assert four[2:] == two
    assert len({tuple(one.ids) for one in four}) == 4
    assert four != Practice(corpus, 64, 3, range(4)).attempts(model, 8)
    for one in four:
        assert one.ids[0] == corpus.tokenizer.eot
        assert len(one.ids) <= 64
        assert one.before.endswith(bytes(one.ids[1 : one.n_prompt]))


def settings(data: Path, runs: Path, **more: object) -> Settings:
    return Settings(
        preset="tiny", data=data, runs=runs, steps=6, cooldown=0.5, practice=4, val_windows=4,
        device="cpu", precision="fp32", attention="math", compile="off", **more,
    )  # fmt: skip


def test_a_run_practises_at_the_end_of_its_cooldown(data: Path, tmp_path: Path) -> None:
    directory = train(settings(data, tmp_path))
    lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    told = [{"parsed", "repeated"} <= set(line) for line in lines if "loss" in line]
    assert told == [False] * 5 + [True]


def test_a_run_that_practises_resumes_bit_for_bit(data: Path, tmp_path: Path) -> None:
    whole = train(settings(data, tmp_path, name="whole"))
    paused = Run.start(settings(data, tmp_path, name="paused", save_every=4))
    for _ in range(4):
        paused.step()
    paused.close()
    resumed = Run.resume(paused.directory)
    resumed.to_the_end()
    resumed.close()
    for name in ("model.safetensors", "optimizer.safetensors"):
        ours, theirs = (find_model(run) / name for run in (whole, paused.directory))
        assert ours.read_bytes() == theirs.read_bytes()


def test_practice_is_shared_evenly_and_not_with_spread_weights(data: Path, tmp_path: Path) -> None:
    given, corpus = settings(data, tmp_path), Corpus(data)
    second = World(torch.device("cpu"), rank=1, size=2)
    found = practice_of(given, second, corpus, TINY)
    assert found
    assert found.numbers == range(2, 4)
    with pytest.raises(UserError, match="--practice"):
        practice_of(replace(given, practice=3), second, corpus, TINY)
    with pytest.raises(UserError, match="--shard"):
        practice_of(given, replace(second, shard=True), corpus, TINY)


def test_practice_without_a_cooldown_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--cooldown"):
        train(replace(settings(data, tmp_path), cooldown=0.0))
    with pytest.raises(UserError, match="--practice must be 0 or more"):
        train(replace(settings(data, tmp_path), practice=-1))
