"""Which runs the page knows, and that it is sent only what it lacks."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from ptx.playground.served import Served
from ptx.playground.training import Runs, latest, points


def write(directory: Path, name: str, *records: Any) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / name).open("a") as file:
        file.writelines(json.dumps(record) + "\n" for record in records)


def age(directory: Path, seconds: float) -> None:
    path = directory / "metrics.jsonl"
    then = path.stat().st_mtime - seconds
    os.utime(path, (then, then))


def test_without_runs_the_models_own_training_is_shown(served: Served, runs: Path) -> None:
    answer = Runs(served, runs).follow({"run": "", "metrics": 0, "samples": 0})
    assert [run["key"] for run in answer["runs"]] == ["model"]
    assert answer["run"] == "model"
    assert answer["train"][0] == list(range(10))


def test_a_run_that_goes_on_is_shown_first(served: Served, runs: Path) -> None:
    write(runs / "old", "metrics.jsonl", {"step": 1, "bpb": 2.0})
    age(runs / "old", 3600)
    write(runs / "new", "metrics.jsonl", {"step": 1, "bpb": 2.0})
    answer = Runs(served, runs).follow({})
    assert answer["run"] == "runs/new"
    live = {run["key"]: run["live"] for run in answer["runs"]}
    assert live == {"model": False, "runs/new": True, "runs/old": False}


def test_only_what_is_new_is_sent(served: Served, runs: Path) -> None:
    source = Runs(served, runs)
    write(runs / "a", "metrics.jsonl", {"step": 1, "bpb": 2.0}, {"step": 1, "val_bpb": 2.5})
    write(runs / "a", "samples.jsonl", {"step": 1, "prompt": "def ", "text": "f"})
    first = source.follow({"run": "runs/a"})
    assert first["train"] == [[1], [2.0]]
    assert first["val"] == [[1], [2.5]]
    assert first["texts"] == [{"step": 1, "prompt": "def ", "text": "f"}]
    read = {"run": "runs/a", "metrics": first["metrics"], "samples": first["samples"]}
    again = source.follow(read)
    assert (again["train"], again["val"], again["latest"], again["texts"]) == (
        [[], []], [[], []], {}, [],
    )  # fmt: skip
    write(runs / "a", "metrics.jsonl", {"step": 2, "bpb": 1.9, "lr": 0.001})
    more = source.follow(read)
    assert more["train"] == [[2], [1.9]]
    assert more["latest"] == {"step": 2, "bpb": 1.9, "lr": 0.001}


@pytest.mark.parametrize(
    "request_",
    [
        None,
        "runs/a",
        {"run": "../../etc"},
        {"run": "runs/../a"},
        {"run": ["runs/a"]},
        {"run": "runs/a", "metrics": -5, "samples": "x"},
        {"run": "runs/a", "metrics": 10**30, "samples": True},
    ],
)
def test_a_hostile_request_reads_no_other_file(served: Served, runs: Path, request_: Any) -> None:
    write(runs / "a", "metrics.jsonl", {"step": 1, "bpb": 2.0})
    answer = Runs(served, runs).follow(request_)
    assert answer["run"] in ("runs/a", "model")
    assert answer["train"][0]


def test_records_that_are_no_numbers_are_passed_over(served: Served, runs: Path) -> None:
    write(
        runs / "a", "metrics.jsonl",
        {"step": "1", "bpb": 2.0}, {"step": 2, "bpb": None}, {"step": 3, "bpb": float("nan")},
        {"bpb": 1.0}, {"step": 4, "bpb": True}, {"step": 5, "bpb": 1.5},
    )  # fmt: skip
    write(runs / "a", "samples.jsonl", {"step": 1, "prompt": 3, "text": "x"}, {"text": "x"})
    answer = Runs(served, runs).follow({"run": "runs/a"})
    assert answer["train"] == [[5], [1.5]]
    assert answer["texts"] == []


def test_a_long_history_is_thinned_and_keeps_its_last_point() -> None:
    records = [{"step": step, "bpb": 1.0} for step in range(10_001)]
    steps, _ = points(records, "bpb", 1000)
    assert len(steps) <= 1000
    assert steps[-1] == 10_000


def test_the_latest_figures_come_from_whichever_record_had_them_last() -> None:
    records = [{"step": 1, "val_bpb": 2.0}, {"step": 2, "bpb": 1.0}, {"step": 3, "bpb": 0.9}]
    assert latest(records) == {"step": 3, "bpb": 0.9, "val_bpb": 2.0}
