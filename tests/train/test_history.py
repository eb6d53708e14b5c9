"""A run's past as small model directories."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch

from ptx import runlog
from ptx.checkpoint import checkpoints, load_model
from ptx.errors import UserError
from train.history import History, history, log_spaced
from train.loop import train
from train.settings import Settings


def test_steps_are_evenly_spaced_on_a_logarithm() -> None:
    assert log_spaced([2**i for i in range(12)], 12) == [2**i for i in range(12)]
    chosen = log_spaced(list(range(10, 1001, 10)), 7)
    assert (chosen[0], chosen[-1]) == (10, 1000)
    assert chosen == sorted(set(chosen))
    ratios = [b / a for a, b in itertools.pairwise(chosen)]
    assert max(ratios) / min(ratios) < 1.5
    assert log_spaced([5, 6, 7, 8, 900], 5) == [5, 6, 7, 8, 900]
    with pytest.raises(UserError, match="--count must be from 2 to the 3 checkpoints"):
        log_spaced([1, 2, 3], 4)


def test_a_history_is_a_run_whose_checkpoints_load(data: Path, tmp_path: Path) -> None:
    run = train(
        Settings(
            preset="tiny", data=data, runs=tmp_path, name="r", steps=8, save_every=1, keep=100,
            val_every=4, device="cpu", precision="fp32", attention="fused", compile="off",
        )
    )  # fmt: skip
    for _ in range(2):  # an earlier one is replaced
        history(History(run, tmp_path / "past", count=4))
    past = checkpoints(tmp_path / "past")
    assert [p.name for p in past] == ["step_000001", "step_000002", "step_000004", "step_000008"]
    assert (tmp_path / "past" / "metrics.jsonl").read_bytes() == (
        run / "metrics.jsonl"
    ).read_bytes()
    with (run / "metrics.jsonl").open("a") as log:  # a run that goes on
        log.write('{"step":9,"loss":1.0}\n')
    history(History(run, tmp_path / "past", count=4))
    assert runlog.tail(tmp_path / "past" / "metrics.jsonl")[0][-1]["step"] == 8
    small, whole = (load_model(r)[0].tok_emb.weight for r in (past[-1], checkpoints(run)[-1]))
    assert torch.allclose(small, whole, atol=float(whole.abs().max()) / 250)
    with pytest.raises(UserError, match="exists and is no history"):
        history(History(run, run))
