"""What grammar and loops have in common: when they teach, whose windows are whose, exact resume."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ptx.corpus import Corpus
from ptx.errors import UserError
from tests.train.conftest import TINY, assert_equal_ends, interrupted
from train.corrections import corrections_of
from train.loop import Run, train
from train.parallel import World
from train.settings import Settings


def settings(data: Path, runs: Path, **more: object) -> Settings:
    return Settings(
        preset="tiny", data=data, runs=runs, steps=6, cooldown=0.5, val_windows=4,
        device="cpu", precision="fp32", attention="math", compile="off", **more,
    )  # fmt: skip


@pytest.mark.usefixtures("any_token")
@pytest.mark.parametrize("option", ["grammar", "loops"])
def test_a_corrected_run_resumes_bit_for_bit(data: Path, tmp_path: Path, option: str) -> None:
    given = {option: 4}
    whole = train(settings(data, tmp_path, name="whole", **given))
    paused = interrupted(settings(data, tmp_path, name="paused", save_every=4, **given), 4)
    train(Settings(resume=paused))
    assert_equal_ends(whole, paused)


@pytest.mark.usefixtures("any_token")
@pytest.mark.parametrize("option", ["grammar", "loops"])
def test_the_share_of_the_peak_counts_what_they_read(
    data: Path, tmp_path: Path, option: str
) -> None:
    run = Run.start(settings(data, tmp_path, batch_size=8, **{option: 4}))
    run.peak_flops = 1.0
    shares = [step["mfu"] / step["tokens_per_s"] for step in (run.step() for _ in range(6))]
    assert shares == pytest.approx([shares[0]] * 3 + [1.5 * shares[0]] * 3, rel=1e-3)


@pytest.mark.parametrize("option", ["grammar", "loops"])
def test_windows_are_shared_evenly(data: Path, tmp_path: Path, option: str) -> None:
    second, corpus = World(torch.device("cpu"), rank=1, size=2), Corpus(data)
    found = corrections_of(settings(data, tmp_path, **{option: 4}), second, corpus, TINY)
    drawn = {"grammar": found.grammar, "loops": found.loops}
    assert drawn.pop(option).numbers == range(2, 4)
    assert set(drawn.values()) == {None}
    with pytest.raises(UserError, match=f"--{option}"):
        corrections_of(settings(data, tmp_path, **{option: 3}), second, corpus, TINY)


@pytest.mark.parametrize("option", ["grammar", "loops"])
def test_without_a_cooldown_they_are_refused(data: Path, tmp_path: Path, option: str) -> None:
    with pytest.raises(UserError, match=f"--{option} is for the cooldown"):
        train(replace(settings(data, tmp_path, **{option: 4}), cooldown=0.0))
    with pytest.raises(UserError, match=f"--{option} must be 0 or more"):
        train(settings(data, tmp_path, **{option: -1}))
