"""Several processes train as one would: the same losses, in copies (DDP) and in parts (FSDP2)."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file

from ptx import runlog
from ptx.checkpoint import checkpoints
from train.loop import train
from train.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.timeout(600)  # each starts several processes, which import torch
STEPS, HALF = 6, 3
# Windows that two processes cannot share evenly; parts of a batch that have to be accumulated.
SAME = {
    "preset": "nano",
    "steps": STEPS,
    "batch_size": 4,
    "micro_batch": 1,
    "val_every": HALF,
    "val_windows": 5,
    "sample_every": 4,  # at a step without validation, too
    "save_every": HALF,
    "device": "cpu",
    "precision": "fp32",
    "attention": "fused",
    "compile": "off",
}


@pytest.fixture(scope="module")
def one(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one process."""
    runs = tmp_path_factory.mktemp("runs")
    return train(Settings(data=data, runs=runs, name="one", **SAME))


def launch(*words: str) -> subprocess.Popen[str]:
    """python train/run.py in two processes."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    return subprocess.Popen(
        [*torchrun, str(ROOT / "train" / "run.py"), *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def torchrun(*words: str) -> None:
    """The same, to its end."""
    process = launch(*words)
    _, errors = process.communicate()
    assert process.returncode == 0, errors


def together(data: Path, runs: Path, *more: str) -> Path:
    """The same run in two processes."""
    torchrun(*flags(data, runs, **SAME), *more)
    return runs / "two"


def flags(data: Path, runs: Path, **settings: str | int) -> list[str]:
    given = {"data": data, "runs": runs, "name": "two"} | settings
    return [w for name, value in given.items() for w in (f"--{name.replace('_', '-')}", f"{value}")]


def assert_equal_runs(a: Path, b: Path) -> None:
    """Losses, gradients, validation and samples are the same, and so are the last weights."""
    for ours, theirs in zip(records(a), records(b), strict=True):
        assert ours.keys() == theirs.keys()
        for name in ("step", "tokens", "loss", "val_loss", "bpb", "val_bpb", "refused", "lr"):
            assert ours.get(name) == pytest.approx(theirs.get(name), abs=1e-5), (name, ours)
    assert runlog.tail(a / runlog.SAMPLES)[0] == runlog.tail(b / runlog.SAMPLES)[0]
    for file in ("model.safetensors", "optimizer.safetensors"):
        ours, theirs = (load_file(checkpoints(run)[-1] / file) for run in (a, b))
        assert ours.keys() == theirs.keys()
        for name, tensor in ours.items():
            torch.testing.assert_close(tensor, theirs[name], atol=1e-4, rtol=1e-3)


def records(run: Path) -> list[dict]:
    return runlog.tail(run / runlog.METRICS)[0]


def back_to_half(run: Path, target: Path) -> Path:
    """A copy of a run as it was after half of its steps."""
    shutil.copytree(run, target)
    shutil.rmtree(target / "checkpoints" / f"step_{STEPS:06d}")
    return target


def test_copies_train_as_one_process_does(one: Path, data: Path, tmp_path: Path) -> None:
    assert_equal_runs(one, together(data, tmp_path))


@pytest.mark.parametrize("spread", [(), ("--shard",)])
def test_copies_and_parts_are_corrected_as_one_process_is(
    data: Path, tmp_path: Path, spread: tuple[str, ...]
) -> None:
    extra = SAME | {"cooldown": 1.0}
    alone = train(Settings(data=data, runs=tmp_path, name="one", grammar=4, loops=4, **extra))
    two = together(data, tmp_path, "--grammar", "4", "--loops", "4", "--cooldown", "1", *spread)
    assert_equal_runs(alone, two)
    told = [record["looping"] for record in records(two) if "looping" in record]
    expected = [record["looping"] for record in records(alone) if "looping" in record]
    assert told == pytest.approx(expected, abs=2e-4)
    assert len(told) == STEPS
    assert any(record.get("refused") for record in records(two))


def test_parts_train_as_one_process_does_and_go_on_in_one(
    one: Path, data: Path, tmp_path: Path
) -> None:
    parts = together(data, tmp_path, "--shard")
    assert_equal_runs(one, parts)
    alone = back_to_half(parts, tmp_path / "alone")
    assert_equal_runs(one, train(Settings(resume=alone)))


def test_a_run_of_one_process_goes_on_in_parts(one: Path, tmp_path: Path) -> None:
    run = back_to_half(one, tmp_path / "spread")
    torchrun("--resume", str(run), "--shard")
    assert_equal_runs(one, run)


def test_a_run_without_a_checkpoint_starts_over(one: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(one, tmp_path / "early"))
    for checkpoint in (run / "checkpoints").iterdir():
        shutil.rmtree(checkpoint)
    torchrun("--resume", str(run))
    assert_equal_runs(one, run)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_signal_to_all_processes_finishes_the_step_and_saves(
    data: Path, tmp_path: Path, number: signal.Signals
) -> None:
    """As a cluster stops a job; torchrun then passes the signal on to processes that have it."""
    process = launch(*flags(data, tmp_path, **SAME | {"steps": 10**6, "save_every": 10**6}))
    run = tmp_path / "two"
    while not (run / runlog.METRICS).exists() or len(records(run)) < 2:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)
    agent = psutil.Process(process.pid)
    for member in [*agent.children(recursive=True), agent]:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.send_signal(number)
    output, _ = process.communicate()
    done = [record["step"] for record in records(run) if "loss" in record][-1]
    assert f"stopped at step {done:,}" in output
    assert [checkpoint.name for checkpoint in checkpoints(run)] == [f"step_{done:06d}"]


def test_shard_without_torchrun_says_how_to_start(data: Path, tmp_path: Path) -> None:
    from ptx.errors import UserError

    with pytest.raises(UserError, match="torchrun --nproc-per-node=N"):
        train(Settings(data=data, runs=tmp_path, shard=True))
