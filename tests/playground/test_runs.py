"""Which runs a page knows and in what state they are, told from their directories."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from threading import Event
from typing import Any

import orjson
import pytest
from filelock import FileLock

from ptx.checkpoint import log_folder
from ptx.playground import history
from ptx.playground.card import curve
from ptx.playground.jobs import Jobs
from ptx.playground.programs import Logs
from ptx.playground.runs import Runs, held, last_step, settings_of
from ptx.playground.served import Served
from ptx.runlog import append


@pytest.fixture
def known(served: Served, runs: Path) -> Runs:
    return Runs(served, runs, Jobs())


def make(runs: Path, name: str, step: int, steps: int | None = 10, age: float = 0) -> Path:
    run = runs / name
    run.mkdir(parents=True)
    if steps is not None:
        values = {"preset": "nano", "steps": steps, "lr": 0.01, "data": "data/a", "runs": "runs"}
        (run / "config.json").write_text(json.dumps(values))
    if step:
        append(run / "metrics.jsonl", {"step": step, "bpb": 2.0})
        then = (run / "metrics.jsonl").stat().st_mtime - age
        os.utime(run / "metrics.jsonl", (then, then))
    return run


def states(known: Runs) -> dict[str, str]:
    return {run["name"]: run["state"] for run in known.listing()}


def test_without_runs_the_models_own_training_is_shown(known: Runs) -> None:
    answer = known.follow({})
    assert [run["key"] for run in answer["runs"]] == ["model"]
    assert answer["run"] == "model"
    assert answer["shown"]["model"]["train"]["step"] == list(range(10))
    assert answer["runs"][0]["state"] == "done"


def test_a_run_that_goes_on_is_shown_first(known: Runs, runs: Path) -> None:
    make(runs, "newest", step=5)
    live = make(runs, "live", step=5, age=3600)
    make(runs, "older", step=5, age=7200)
    with FileLock(live / "lock"):
        answer = known.follow({})
    assert answer["run"] == "runs/live"
    assert [run["key"] for run in answer["runs"]] == [
        "runs/newest", "runs/live", "runs/older", "model",
    ]  # fmt: skip


def test_the_state_of_a_run_is_told_by_its_directory(known: Runs, runs: Path) -> None:
    make(runs, "paused", step=5)
    make(runs, "finished", step=10)
    make(runs, "new", step=0)
    make(runs, "failed", step=5)
    known.note("failed", {"state": "failed", "lines": ["error: no"]})
    make(runs, "stopped", step=5)
    known.note("stopped", {"state": "stopped"})
    make(runs, "foreign", step=5, steps=None, age=3600)
    held = make(runs, "held", step=5)
    (runs / "no run").mkdir()
    with FileLock(held / "lock"):
        found = states(known)
    del found["tiny (the model on this page)"]
    assert found == {
        "paused": "paused", "finished": "finished", "new": "paused", "failed": "failed",
        "stopped": "stopped", "foreign": "done", "held": "elsewhere",
    }  # fmt: skip


def test_why_a_run_ended_is_known_after_a_restart(known: Runs, served: Served, runs: Path) -> None:
    make(runs, "a", step=5)
    known.note("a", {"state": "failed", "lines": ["error: no room"]})
    again = Runs(served, runs, Jobs())
    assert again.listing()[0]["state"] == "failed"
    assert again.listing()[0]["lines"] == ["error: no room"]
    known.note("a", None)
    assert states(known)["a"] == "paused"


def test_why_a_run_ended_is_not_said_of_one_that_went_on(known: Runs, runs: Path) -> None:
    run = make(runs, "a", step=5)
    known.note("a", {"state": "failed", "lines": ["error: no room"]})
    append(run / "metrics.jsonl", {"step": 6, "bpb": 2.0})  # in a terminal
    known._listed = (0.0, [])
    assert states(known)["a"] == "paused"


def test_a_full_disk_takes_no_note_but_the_page_remembers(
    known: Runs, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(runs, "a", step=5)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    known.note("a", {"state": "failed", "lines": ["error: no room"]})
    assert states(known)["a"] == "failed"


def test_looking_leaves_a_run_free(known: Runs, runs: Path) -> None:
    run = make(runs, "a", step=5)
    FileLock(run / "lock").acquire().lock.release()
    assert states(known)["a"] == "paused"
    with FileLock(run / "lock", timeout=0):
        pass


@pytest.mark.parametrize(
    "request_",
    [
        {"run": "../../etc"},
        {"run": "runs/../a"},
        {"run": ["runs/a"]},
        {"run": None, "shown": ["runs/a"]},
        {"run": "runs/a", "shown": {"../../etc": None, "runs/a": 5}},
        {"shown": {"runs/a": {"epoch": "x", "train": []}}},
    ],
)
def test_a_hostile_request_reads_no_other_file(known: Runs, runs: Path, request_: Any) -> None:
    make(runs, "a", step=5)
    answer = known.follow(request_)
    assert set(answer["shown"]) <= {"runs/a", "model"}
    assert answer["shown"][answer["run"]]["train"]["step"]


def test_several_runs_come_with_their_settings_once(known: Runs, runs: Path) -> None:
    make(runs, "a", step=5)
    make(runs, "b", step=6)
    first = known.follow({"run": "runs/a", "shown": {"runs/b": None}})
    assert set(first["shown"]) == {"runs/a", "runs/b"}
    expected = {"preset": "nano", "steps": 10, "lr": 0.01, "data": "a"}
    assert first["shown"]["runs/b"]["settings"] == expected
    read = {key: part["read"] for key, part in first["shown"].items()}
    again = known.follow({"run": "runs/a", "shown": read})
    assert "settings" not in again["shown"]["runs/a"]
    assert again["shown"]["runs/b"]["train"]["step"] == []


def test_a_long_log_is_told_to_its_end_and_read_once(
    known: Runs, served: Served, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "AT_ONCE", 100)
    run = make(runs, "a", step=1)
    for step in range(2, 60):
        append(run / "metrics.jsonl", {"step": step, "bpb": 2.0})
    told = Logs(known).metrics("runs/a")
    assert told["train"]["step"] == list(range(1, 60))
    assert told["settings"]["preset"] == "nano"
    assert curve(served, known)["train"]["step"] == list(range(10))
    monkeypatch.setattr(
        history.Table, "extend", lambda _, rows: pytest.fail("again") if rows else False
    )
    assert curve(served, known)["train"]["step"] == list(range(10))


def test_a_checkpoints_log_is_its_runs(runs: Path, tmp_path: Path) -> None:
    run = make(runs, "a", step=5)
    assert log_folder(run / "checkpoints" / "step_000005") == run.resolve()
    assert log_folder(tmp_path / "checkpoints" / "mini") is None
    assert log_folder(run) == run.resolve()


def test_strange_files_are_no_settings_and_no_steps(runs: Path) -> None:
    run = make(runs, "a", step=5)
    (run / "config.json").write_text('{"preset": [], "steps": {}, "lr": "x"}')
    assert settings_of(run) == {"lr": "x"}
    (run / "config.json").write_text("[1]")
    assert settings_of(run) == {}
    (run / "metrics.jsonl").write_text('{"step": 7}\n{"val_bpb": 1}\nhalf a li')
    assert last_step(run) == 7
    (run / "metrics.jsonl").write_text("")
    assert last_step(run) == 0


def test_what_cannot_be_read_or_named_is_left_out(known: Runs, runs: Path) -> None:
    make(runs, "a", step=5)
    os.symlink("a" * 300, runs / "odd")  # whose name is too long for the disk
    (make(runs, "b", step=0) / "metrics.jsonl").mkdir()
    os.mkdir(os.fsencode(runs) + b"/caf\xe9")
    os.link(runs / "a" / "config.json", os.fsencode(runs) + b"/caf\xe9/config.json")
    deep = make(runs, "deep", step=0)
    (deep / "metrics.jsonl").write_text("[" * 100_000 + "\n")
    answer = known.follow({"shown": {"runs/a": None, "runs/b": None, "runs/deep": None}})
    assert {run["key"] for run in answer["runs"]} == {"runs/a", "runs/b", "runs/deep", "model"}
    assert answer["shown"]["runs/a"]["train"]["step"] == [5]
    orjson.dumps(answer)


def test_two_looks_at_once_do_not_take_each_other_for_a_trainer(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make(runs, "a", step=5)
    (run / "lock").touch()
    releasing, goes_on, release = Event(), Event(), FileLock.release

    def slow(lock: FileLock, *given: Any, **more: Any) -> None:
        releasing.set()
        goes_on.wait(10)
        release(lock, *given, **more)

    monkeypatch.setattr(FileLock, "release", slow)
    with ThreadPoolExecutor(2) as pool:
        looks = [pool.submit(held, run)]
        assert releasing.wait(10)
        looks.append(pool.submit(held, run))
        wait(looks[1:], timeout=0.3)
        goes_on.set()
        assert [look.result() for look in looks] == [False, False]
