"""Directories that appear whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from ptx.atomic import atomic_directory, recover


def fail_while_writing(target: Path) -> None:
    with atomic_directory(target) as directory:
        (directory / "weights").write_text("new, but")
        raise OSError("disk full")


def test_a_failed_write_leaves_the_old_directory(tmp_path: Path) -> None:
    target = tmp_path / "model"
    target.mkdir()
    (target / "weights").write_text("old")
    with pytest.raises(OSError, match="disk full"):
        fail_while_writing(target)
    assert (target / "weights").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_success_replaces_all_of_the_old_directory(tmp_path: Path) -> None:
    target = tmp_path / "model"
    target.mkdir()
    (target / "stale").write_text("old")
    with atomic_directory(target) as directory:
        (directory / "weights").write_text("new")
    assert [p.name for p in target.iterdir()] == ["weights"]
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_what_a_writer_killed_between_its_renames_moved_away_is_put_back(tmp_path: Path) -> None:
    moved = tmp_path / ".model.old-4000000"
    moved.mkdir()
    recover(tmp_path / "model")
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_a_name_is_no_pattern(tmp_path: Path) -> None:
    for name in (".mini.old-4000000", ".more.old-4000000", ".a[1].old-4000000"):
        (tmp_path / name).mkdir()
    recover(tmp_path / "m*")
    recover(tmp_path / "a[1]")
    assert {p.name for p in tmp_path.iterdir()} == {
        ".mini.old-4000000", ".more.old-4000000", "a[1]",
    }  # fmt: skip
