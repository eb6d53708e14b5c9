"""The notebooks' code runs from top to bottom."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def run(name: str, **environment: str) -> str:
    """Runs the code of a notebook, plots drawn and shown to nobody; returns what it printed."""
    notebook = json.loads((ROOT / "examples" / name).read_text())
    cells = ["".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "code"]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(cells)], cwd=ROOT / "examples", text=True,
        capture_output=True, timeout=110, env=os.environ | {"MPLBACKEND": "agg"} | environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_tour_runs() -> None:
    assert "11,425,664 parameters" in run("tour.ipynb")


def test_the_walkthrough_runs(tmp_path: Path) -> None:
    printed = run("walkthrough.ipynb", WALKTHROUGH_STEPS="3", TMPDIR=str(tmp_path))
    assert "finished at step 3" in printed
    assert "bits per byte" in printed
