"""Metrics: appended by one writer, followed by many readers."""

from __future__ import annotations

from pathlib import Path

import pytest

from ptx.runlog import append, tail, truncate


def test_readers_get_each_record_once(tmp_path: Path) -> None:
    log = tmp_path / "metrics.jsonl"
    assert tail(log) == ([], 0)
    append(log, {"step": 1})
    first, offset = tail(log)
    append(log, {"step": 2, "loss": 0.5})
    assert first == [{"step": 1}]
    assert tail(log, offset)[0] == [{"step": 2, "loss": 0.5}]


def test_a_line_still_being_written_waits_and_a_torn_one_is_passed_over(tmp_path: Path) -> None:
    log = tmp_path / "metrics.jsonl"
    log.write_bytes(b'{"step":1}\n{"st')
    records, offset = tail(log)
    assert records == [{"step": 1}]
    with open(log, "ab") as file:
        file.write(b'\n[3]\n{"step":2}\n')
    assert tail(log, offset)[0] == [{"step": 2}]


def test_truncating_drops_later_steps_and_readers_start_over(tmp_path: Path) -> None:
    log = tmp_path / "metrics.jsonl"
    for step in range(1, 6):
        append(log, {"step": step})
    _, offset = tail(log)
    truncate(log, 3)
    records, _ = tail(log, offset)
    assert [r["step"] for r in records] == [1, 2, 3]
    truncate(tmp_path / "missing.jsonl", 3)


def test_a_figure_that_is_no_number_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        append(tmp_path / "metrics.jsonl", {"loss": float("nan")})
    assert not (tmp_path / "metrics.jsonl").exists()
