"""A cooldown branched off a run ends as one run with its schedule would have."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ptx import runlog
from ptx.checkpoint import checkpoints
from ptx.errors import UserError
from train import settings as run_settings
from train.cooldown import Cooldown, cooldown
from train.loop import train
from train.optim import rate
from train.settings import Settings, complete


def constant(data: Path, runs: Path, name: str = "long", steps: int = 6) -> Settings:
    return Settings(
        preset="tiny", data=data, runs=runs, name=name, steps=steps, warmup=2, cooldown=0.0,
        val_every=3, sample_every=3, save_every=3, device="cpu", precision="fp32",
        attention="fused", compile="off",
    )  # fmt: skip


def tensors(run: Path) -> dict[str, torch.Tensor]:
    newest = checkpoints(run)[-1]
    return load_file(newest / "model.safetensors") | load_file(newest / "optimizer.safetensors")


def losses(run: Path) -> list[tuple[object, ...]]:
    records, _ = runlog.tail(run / runlog.METRICS)
    return [(r["step"], r.get("loss"), r.get("lr"), r.get("val_loss")) for r in records]


@pytest.mark.usefixtures("any_token")
@pytest.mark.parametrize("corrected", [{}, {"grammar": 2, "loops": 2}])
def test_a_branch_equals_an_uninterrupted_run_bit_for_bit(
    data: Path, tmp_path: Path, corrected: dict[str, int]
) -> None:
    long = train(constant(data, tmp_path))
    branch = cooldown(Cooldown(long, steps=4, **corrected, name="cooled"))
    train(Settings(resume=branch))
    told = json.loads((branch / "config.json").read_text())
    assert (told["steps"], told["cooldown"]) == (10, 0.4)
    assert (told["grammar"], told["loops"]) == ((2, 2) if corrected else (0, 0))
    whole = replace(constant(data, tmp_path, "once"), steps=10, cooldown=0.4, **corrected)
    once = train(whole)
    ours, theirs = tensors(branch), tensors(once)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert losses(branch) == losses(once)
    for figure in ("refused", "looping"):
        found = [record.get(figure) for record in runlog.tail(once / runlog.METRICS)[0]]
        assert any(found) == bool(corrected)


def test_the_run_it_leaves_is_untouched_and_can_go_on(data: Path, tmp_path: Path) -> None:
    long = train(replace(constant(data, tmp_path), steps=6))
    before = {p: p.read_bytes() for p in long.rglob("*") if p.is_file()}
    cooldown(Cooldown(long, steps=2))
    assert {p: p.read_bytes() for p in long.rglob("*") if p.is_file()} == before
    assert (tmp_path / "long-cooldown" / "checkpoints" / "step_000006").is_dir()


@pytest.mark.parametrize("done", [7, 24, 799, 12_345])
@pytest.mark.parametrize("steps", [1, 3, 601])
def test_the_rates_fall_from_the_checkpoint_on(done: int, steps: int) -> None:
    before = complete(Settings(preset="nano", steps=10**6, warmup=5, cooldown=0.0))
    after = replace(before, steps=done + steps, cooldown=steps / (done + steps))
    assert {rate(step, after) for step in range(6, done)} <= {1.0}
    falling = [rate(step, after) for step in range(done, done + steps)]
    assert falling == pytest.approx([1 - i / steps for i in range(steps)])


def test_a_run_that_cools_already_is_refused(data: Path, tmp_path: Path) -> None:
    run = train(replace(constant(data, tmp_path), cooldown=0.5))
    with pytest.raises(UserError, match="its cooldown has begun"):
        cooldown(Cooldown(run, steps=4))


def test_a_branch_reads_strictly_as_its_run_would_and_never_less_than_not(
    data: Path, tmp_path: Path
) -> None:
    run = train(constant(data, tmp_path))
    config = run / "config.json"
    config.write_text(config.read_text().replace('"grammar": 0', '"grammar": 3'))
    branch = cooldown(Cooldown(run, steps=4, name="as-before"))
    assert json.loads((branch / "config.json").read_text())["grammar"] == 3
    with pytest.raises(UserError, match="--grammar must be 0 or more, not -1"):
        cooldown(Cooldown(run, steps=4, grammar=-1, name="negative"))
    assert not (tmp_path / "negative").exists()


def test_what_cannot_be_branched_is_refused_by_name(data: Path, tmp_path: Path) -> None:
    run = train(constant(data, tmp_path, steps=3))
    with pytest.raises(UserError, match=r"no run directory: give one that train/run\.py made$"):
        cooldown(Cooldown(tmp_path / "absent", steps=4))
    with pytest.raises(UserError, match=r"no run directory.* --init-from .*/step_000003$"):
        cooldown(Cooldown(run / "checkpoints" / "step_000003", steps=4))
    shutil.copytree(run, tmp_path / "past")
    (tmp_path / "past" / "config.json").unlink()
    with pytest.raises(UserError, match="past is a run's history, which cannot go on"):
        cooldown(Cooldown(tmp_path / "past", steps=4))
    with pytest.raises(UserError, match="--steps must be at least 1"):
        cooldown(Cooldown(run, steps=0))
    with pytest.raises(UserError, match="long exists: choose another --name"):
        cooldown(Cooldown(run, steps=4, name="long"))
    assert run_settings.load(run).steps == 3
