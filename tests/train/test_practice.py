"""What a model writes for practice, and that a run practises at the end of its cooldown."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ptx.checkpoint import load_model, save_model
from ptx.corpus import Corpus
from ptx.errors import UserError
from ptx.model import GPT
from tests.train.conftest import BYTES, TINY, assert_equal_ends, interrupted
from tests.train.test_beginnings import written
from train.loop import Run, practice_of, train
from train.parallel import World
from train.practice import Practice
from train.settings import Settings

SHAPE = replace(TINY, context=16)
"""Of the preset `tiny`, without dropout."""


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


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model to begin with."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("given") / "model"
    save_model(folder, GPT(SHAPE), BYTES)
    return folder


def settings(data: Path, runs: Path, given: Path | None, **more: object) -> Settings:
    return Settings(
        preset="tiny", data=data, runs=runs, init_from=given, steps=6, cooldown=0.5, practice=4,
        val_windows=4, device="cpu", precision="fp32", attention="math", compile="off", **more,
    )  # fmt: skip


def test_a_run_practises_in_its_cooldown_and_tells_how_far_it_strayed(
    data: Path, tmp_path: Path, given: Path
) -> None:
    directory = train(settings(data, tmp_path, given))
    lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    told = [line.get("strayed") for line in lines if "loss" in line]
    assert told[:3] == [None] * 3
    assert all(strayed > 0 for strayed in told[3:])
    assert all({"parsed", "repeated"} <= set(line) for line in lines if "strayed" in line)


def test_what_it_began_with_is_kept_in_the_run(data: Path, tmp_path: Path, given: Path) -> None:
    run = Run.start(settings(data, tmp_path, given))
    for _ in range(5):
        run.step()
    run.close()
    assert run.before
    kept = run.before.state_dict()
    for name, tensor in load_model(given)[0].state_dict().items():
        torch.testing.assert_close(kept[name], tensor, rtol=0, atol=0)


def test_a_run_that_practises_resumes_bit_for_bit_without_what_it_began_with(
    data: Path, tmp_path: Path, given: Path
) -> None:
    given = Path(shutil.copytree(given, tmp_path / "given"))
    whole = train(settings(data, tmp_path, given, name="whole"))
    paused = interrupted(settings(data, tmp_path, given, name="paused", save_every=4), 4)
    shutil.rmtree(given)
    train(Settings(resume=paused))
    assert_equal_ends(whole, paused)


def test_practice_is_shared_evenly_and_not_with_spread_weights(data: Path, tmp_path: Path) -> None:
    given, corpus = settings(data, tmp_path, None), Corpus(data)
    second = World(torch.device("cpu"), rank=1, size=2)
    found = practice_of(given, second, corpus, TINY)
    assert found
    assert found.numbers == range(2, 4)
    with pytest.raises(UserError, match="--practice"):
        practice_of(replace(given, practice=3), second, corpus, TINY)
    with pytest.raises(UserError, match="--shard"):
        practice_of(given, replace(second, shard=True), corpus, TINY)


def test_practice_without_a_model_to_begin_with_or_a_cooldown_is_refused(
    data: Path, tmp_path: Path, given: Path
) -> None:
    with pytest.raises(UserError, match="--init-from"):
        train(settings(data, tmp_path, None))
    with pytest.raises(UserError, match="--cooldown"):
        train(replace(settings(data, tmp_path, given), cooldown=0.0))
    with pytest.raises(UserError, match="--practice must be 0 or more"):
        train(replace(settings(data, tmp_path, given), practice=-1))


def test_data_without_python_is_refused_before_anything_is_written(
    tmp_path: Path, given: Path
) -> None:
    data = written(tmp_path, "This is (not) a program, = is it?\n" * 99).path
    with pytest.raises(UserError, match="--practice needs Python"):
        train(settings(data, tmp_path / "runs", given))
    assert not (tmp_path / "runs").exists()
