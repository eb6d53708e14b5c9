"""The picture of validation curves is drawn from what runs have logged."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def draw(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, ROOT / "examples" / "curves.py", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_each_run_is_a_named_curve(tmp_path: Path) -> None:
    for name in ("reference", "ours"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.jsonl").write_text(
            '{"step":1,"val_bpb":3.0,"elapsed":60}\n{"step":2,"val_bpb":2.25,"elapsed":120}\n'
        )
    done = draw(tmp_path / "reference", tmp_path / "ours", "--out", tmp_path / "curves.svg")
    assert done.returncode == 0, done.stderr
    picture = (tmp_path / "curves.svg").read_text()
    assert "reference  2.25" in picture
    assert "ours  2.25" in picture


def test_a_run_without_validation_is_named(tmp_path: Path) -> None:
    done = draw(tmp_path, "--out", tmp_path / "curves.svg")
    assert done.returncode == 1
    assert f"error: {tmp_path} has no validation" in done.stderr
