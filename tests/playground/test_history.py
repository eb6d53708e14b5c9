"""What is sent of a run's log: only what is new, thinned out where it is long."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from ptx.playground import history
from ptx.playground.history import History, thin
from ptx.runlog import truncate


def write(run: Path, name: str, *records: Any) -> None:
    run.mkdir(parents=True, exist_ok=True)
    with (run / name).open("a") as file:
        file.writelines(json.dumps(record) + "\n" for record in records)


def replace(run: Path, *records: Any) -> None:
    """As a run that goes on from a checkpoint does."""
    (run / "new").write_text("".join(json.dumps(record) + "\n" for record in records))
    os.replace(run / "new", run / "metrics.jsonl")


def record(step: int, **more: float) -> dict[str, float]:
    return {"step": step, "tokens": 8 * step, "elapsed": step / 2, "bpb": 2.0, "lr": 0.1, **more}


def test_only_what_is_new_is_sent(tmp_path: Path) -> None:
    write(tmp_path, "metrics.jsonl", record(1), {"step": 1, "tokens": 8, "val_bpb": 2.5})
    write(tmp_path, "samples.jsonl", {"step": 1, "prompt": "def ", "text": "f"})
    followed = History(tmp_path)
    first = followed.since({})
    assert first["train"]["step"] == [1]
    assert first["train"]["bpb"] == [2.0]
    assert first["train"]["grad_norm"] == [None]
    assert first["val"] == {"step": [1], "tokens": [8], "elapsed": [None], "val_bpb": [2.5]}
    assert first["texts"] == [{"step": 1, "prompt": "def ", "text": "f"}]
    again = followed.since(first["read"])
    assert (again["train"]["step"], again["val"]["step"], again["texts"]) == ([], [], [])
    write(tmp_path, "metrics.jsonl", record(2, bpb=1.9))
    write(tmp_path, "samples.jsonl", {"step": 2, "prompt": "class ", "text": "C"})
    more = followed.since(again["read"])
    assert more["train"]["step"] == [2]
    assert more["train"]["tokens"] == [16]
    assert [text["step"] for text in more["texts"]] == [2]
    assert more["latest"]["bpb"] == 1.9
    assert followed.since({})["train"]["step"] == [1, 2], "another page gets all of it"


def test_a_log_that_went_back_to_a_checkpoint_is_sent_anew(tmp_path: Path) -> None:
    write(tmp_path, "metrics.jsonl", *(record(step) for step in range(1, 6)))
    followed = History(tmp_path)
    first = followed.since({})
    replace(tmp_path, *(record(step, bpb=1.0) for step in range(1, 8)))
    again = followed.since(first["read"])
    assert again["epoch"] != first["epoch"]
    assert again["train"]["step"] == list(range(1, 8))
    assert set(again["train"]["bpb"]) == {1.0}


def test_a_log_that_repeats_steps_keeps_the_later_ones(tmp_path: Path) -> None:
    write(tmp_path, "metrics.jsonl", *(record(step) for step in (1, 2, 3)))
    followed = History(tmp_path)
    first = followed.since({})
    write(tmp_path, "metrics.jsonl", *(record(step, bpb=1.0) for step in (2, 3, 4)))
    again = followed.since(first["read"])
    assert again["epoch"] != first["epoch"]
    assert again["train"]["step"] == [1, 2, 3, 4]
    assert again["train"]["bpb"] == [2.0, 1.0, 1.0, 1.0]


def test_records_that_are_no_numbers_are_passed_over(tmp_path: Path) -> None:
    write(
        tmp_path, "metrics.jsonl",
        {"step": "1", "bpb": 2.0}, {"step": 2, "bpb": None}, {"step": 3, "bpb": float("nan")},
        {"bpb": 1.0}, {"step": 4, "bpb": True}, {"step": 5, "bpb": 1.5},
        {"step": 6, "bpb": 10**400}, [7], "8",
    )  # fmt: skip
    write(tmp_path, "samples.jsonl", {"step": 1, "prompt": 3, "text": "x"}, {"text": "x"})
    answer = History(tmp_path).since({})
    assert (answer["train"]["step"], answer["train"]["bpb"]) == ([5], [1.5])
    assert answer["texts"] == []


def test_half_a_character_in_a_sample_can_be_sent(tmp_path: Path) -> None:
    write(tmp_path, "samples.jsonl", {"step": 1, "prompt": "\ud800", "text": "x"})
    write(tmp_path, "metrics.jsonl", record(1))
    json.dumps(History(tmp_path).since({})["texts"], ensure_ascii=False).encode()


@pytest.mark.parametrize(
    "request_",
    [None, "x", [1], {"epoch": "x"}, {"train": "x", "val": {}, "texts": -1}, {"epoch": 10**400}],
)
def test_a_hostile_request_gets_everything(tmp_path: Path, request_: Any) -> None:
    write(tmp_path, "metrics.jsonl", record(1))
    assert History(tmp_path).since(request_)["train"]["step"] == [1]


@pytest.mark.parametrize("field", ["train", "val", "texts"])
@pytest.mark.parametrize("value", [None, "x", -5, 10**400, True, [3], float("nan")])
def test_a_hostile_offset_is_none(tmp_path: Path, field: str, value: Any) -> None:
    write(tmp_path, "metrics.jsonl", record(1))
    followed = History(tmp_path)
    read = followed.since({})["read"]
    without = {name: offset for name, offset in read.items() if name != field}
    found, expected = followed.since(read | {field: value}), followed.since(without)
    json.dumps(found, allow_nan=False)
    assert [found[name] for name in ("train", "val", "texts")] == [
        expected[name] for name in ("train", "val", "texts")
    ]


def test_a_long_history_is_thinned_and_keeps_every_extreme(tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    steps = 60_000
    bpb, grad = 1 + chance.random(steps), 1 + chance.random(steps)
    bpb[12_345], bpb[45_678], grad[33_333] = 9.0, 0.1, 500.0
    with (tmp_path / "metrics.jsonl").open("w") as file:
        for i in range(steps):
            values = {"bpb": float(bpb[i]), "grad_norm": float(grad[i])}
            file.write(json.dumps(record(i + 1) | values) + "\n")
    followed = History(tmp_path)
    while followed.since({})["more"]:
        pass
    train = followed.since({})["train"]
    assert history.KEPT / 4 < len(train["step"]) <= 2 * history.KEPT
    assert (train["step"][0], train["step"][-1]) == (1, steps)
    for step, name, value in (
        (12_346, "bpb", 9.0), (45_679, "bpb", 0.1), (33_334, "grad_norm", 500.0),
    ):  # fmt: skip
        assert train[name][train["step"].index(step)] == value
    gaps = np.diff(train["step"])
    assert gaps.max() < 10 * steps / history.KEPT, "no part of it is left out"


def test_thinning_keeps_the_order_and_both_ends() -> None:
    rows = np.stack([np.arange(1000.0), np.sin(np.arange(1000.0)), np.full(1000, np.nan)], axis=1)
    kept = thin(rows, [1, 2], 100)
    assert (np.diff(kept[:, 0]) > 0).all()
    assert (kept[0, 0], kept[-1, 0]) == (0.0, 999.0)
    assert len(kept) <= 100
    assert kept[:, 1].max() == rows[:, 1].max()


def test_a_run_without_a_log_has_no_points(tmp_path: Path) -> None:
    answer = History(tmp_path).since({})
    assert answer["train"]["step"] == []
    assert answer["latest"] == {}


def test_texts_come_once_where_a_run_goes_back_between_two_looks(tmp_path: Path) -> None:
    texts = [{"step": step, "prompt": "def ", "text": f"f{step}"} for step in (1, 2, 3)]
    write(tmp_path, "metrics.jsonl", *map(record, (1, 2, 3)))
    write(tmp_path, "samples.jsonl", *texts)
    followed = History(tmp_path)
    read = followed.since({})["read"]
    truncate(tmp_path / "metrics.jsonl", 2)
    read = followed.since(read)["read"]
    truncate(tmp_path / "samples.jsonl", 2)
    assert followed.since(read)["texts"] == texts[:2]
    assert followed.since({})["texts"] == texts[:2]


def test_any_number_can_be_sent(tmp_path: Path) -> None:
    write(tmp_path, "metrics.jsonl", record(1, grad_norm=3.7e19), record(2, grad_norm=2**70))
    answer = History(tmp_path).since({"epoch": 0, "texts": 0.5})
    assert orjson.loads(orjson.dumps(answer["train"]))["grad_norm"][0] == 3.7e19
