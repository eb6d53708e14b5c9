"""A run that is killed, or finds the disk full, loses nothing that it had saved."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ptx import runlog
from ptx.checkpoint import checkpoints, load_model
from ptx.errors import UserError
from train.loop import Run, train
from train.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
KILLS = 20


def settings(data: Path, runs: Path, name: str) -> Settings:
    """Short steps and a checkpoint after every other one, so that a kill often meets a save; with
    rates that do not depend on how many steps there will be."""
    return Settings(
        preset="nano", data=data, runs=runs, name=name, steps=300, batch_size=1, val_every=7,
        val_windows=1, sample_every=1000, save_every=2, keep=2, device="cpu", precision="fp32",
        attention="fused", compile="off", cooldown=0.0,
    )  # fmt: skip


@pytest.mark.timeout(600)
def test_kill_9_at_random_moments_changes_nothing(data: Path, tmp_path: Path) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["train.loop"])
    chance = random.Random(0)
    run, saved = tmp_path / "killed", []
    for life in range(KILLS):
        given = Settings(resume=run) if run.exists() else settings(data, tmp_path, "killed")
        child = context.Process(target=train, args=(given,))
        child.start()
        if life % 4 == 3:
            wait_for_a_checkpoint(run, child)
        elif life % 4:  # every fourth dies somewhere in its start
            wait_for_a_step(run, child)
        time.sleep(chance.uniform(0.0, 0.35))
        child.kill()
        child.join()
        assert child.exitcode == -9, "it ended by itself: give it more steps"
        saved.append(readable(run))
    assert saved == sorted(saved)
    assert len(set(saved)) > 5, "hardly any life reached a new checkpoint"
    steps = saved[-1] + 20
    with_steps(run, steps)
    train(Settings(resume=run))
    undisturbed = replace(settings(data, tmp_path, "undisturbed"), steps=steps)
    assert_same_end(run, train(undisturbed))
    leftovers = [p.name for p in (run / "checkpoints").iterdir() if p.name.startswith(".")]
    assert not leftovers


def with_steps(run: Path, steps: int) -> None:
    """Lets it go on to another step than it planned for."""
    given = json.loads((run / "config.json").read_text()) | {"steps": steps}
    (run / "config.json").write_text(json.dumps(given))


def wait_for_a_step(run: Path, child: multiprocessing.Process) -> None:
    """Until the child has trained a step that is not in the log yet."""
    log = run / runlog.METRICS
    before = log.stat().st_size if log.exists() else 0
    until = time.monotonic() + 30
    while time.monotonic() < until and child.is_alive():
        # Resuming drops what came after the checkpoint: a shorter log counts anew.
        size = log.stat().st_size if log.exists() else 0
        if size > before:
            return
        before = min(before, size)
        time.sleep(0.01)


def wait_for_a_checkpoint(run: Path, child: multiprocessing.Process) -> None:
    """Until the child has saved a newer one than there is."""
    before, until = checkpoints(run)[-1:], time.monotonic() + 30
    while time.monotonic() < until and child.is_alive() and checkpoints(run)[-1:] <= before:
        time.sleep(0.01)


def readable(run: Path) -> int:
    """The newest step, once every checkpoint of `run` has proved whole."""
    found = checkpoints(run)
    assert len(found) <= 3, "at most those to keep, and the new one beside them"
    for checkpoint in found:
        load_model(checkpoint)
        load_file(checkpoint / "optimizer.safetensors")
        assert json.loads((checkpoint / "state.json").read_text())["step"]
    return int(found[-1].name.removeprefix("step_")) if found else 0


def assert_same_end(a: Path, b: Path) -> None:
    """Every tensor is the same bit for bit, and the log has every step once."""
    assert checkpoints(a)[-1].name == checkpoints(b)[-1].name
    for file in ("model.safetensors", "optimizer.safetensors"):
        ours, theirs = (load_file(checkpoints(run)[-1] / file) for run in (a, b))
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    losses = [
        [
            (r["step"], r.get("loss"), r.get("val_loss"))
            for r in runlog.tail(run / runlog.METRICS)[0]
        ]
        for run in (a, b)
    ]
    assert losses[0] == losses[1]


@pytest.mark.skipif(sys.platform == "win32", reason="limits the size of files as Unix does")
def test_a_disk_that_is_full_keeps_the_old_checkpoint_and_says_so(
    data: Path, tmp_path: Path
) -> None:
    run = train(replace(settings(data, tmp_path, "full"), steps=2))
    with_steps(run, 9)
    command = f"{sys.executable} {ROOT / 'train' / 'run.py'} --resume {run}"
    done = subprocess.run(
        ["bash", "-c", f"ulimit -f 1000; {command}"],  # no file may pass 1,000 KiB
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 2, done.stderr
    good = run / "checkpoints" / "step_000002"
    assert "the checkpoint of step 4 cannot be written" in done.stderr
    assert f"the last good checkpoint is {good}" in done.stderr
    assert "Traceback" not in done.stderr
    assert os.listdir(run / "checkpoints") == [good.name]
    assert readable(run) == 2


def begun(s: Settings, **more: object) -> subprocess.Popen[bytes]:
    """python train/run.py with the settings of a run, once it has trained a step."""
    given = {n: v for n, v in vars(s).items() if v is not None and not isinstance(v, bool)}
    words = [w for n, v in given.items() for w in (f"--{n.replace('_', '-')}", f"{v}")]
    process = subprocess.Popen([sys.executable, str(ROOT / "train" / "run.py"), *words], **more)
    log, until = s.runs / s.name / runlog.METRICS, time.monotonic() + 200
    while not log.exists() or not log.stat().st_size:
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.01)
    return process


def assert_all_is_saved(run: Path) -> None:
    """The last step that was logged has a checkpoint."""
    done = [record["step"] for record in runlog.tail(run / runlog.METRICS)[0] if "loss" in record]
    assert checkpoints(run)[-1].name == f"step_{done[-1]:06d}"


@pytest.mark.skipif(sys.platform == "win32", reason="signals of Unix")
def test_a_stopped_run_saves_though_its_reader_has_gone(data: Path, tmp_path: Path) -> None:
    """As Ctrl+C ends the other end of `| tee log` too."""
    given = replace(settings(data, tmp_path, "piped"), steps=10**6, save_every=10**6)
    process = begun(given, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert (process.returncode, errors) == (0, b"")
    assert_all_is_saved(tmp_path / "piped")


def test_a_run_that_is_being_trained_refuses_a_second_process(data: Path, tmp_path: Path) -> None:
    with (
        closing(Run.start(settings(data, tmp_path, "held"))) as run,
        pytest.raises(UserError, match="another process is training"),
    ):
        Run.resume(run.directory)
    Run.resume(run.directory).close()


def test_a_run_without_a_checkpoint_starts_over(data: Path, tmp_path: Path) -> None:
    Run.start(replace(settings(data, tmp_path, "early"), steps=4)).close()
    run = train(Settings(resume=tmp_path / "early"))
    assert_same_end(run, train(replace(settings(data, tmp_path, "whole"), steps=4)))
