"""The README's example of the lens is code that runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from textwrap import dedent

ROOT = Path(__file__).resolve().parents[2]


def test_the_lens_example_runs() -> None:
    section = (ROOT / "README.md").read_text().split("## Look inside\n")[1].split("\n- **")[0]
    code = "\n".join(line for line in section.splitlines() if line[:4] in ("", "    "))
    done = subprocess.run(
        [sys.executable, "-c", dedent(code)], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "'induction'" in done.stdout
