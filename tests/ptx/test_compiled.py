"""What numba keeps: used where it fits this machine, done without where it has no place."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np

from ptx import draws
from ptx.compiled import SOURCES

ROOT = Path(__file__).resolve().parents[2]
OTHER_PROCESSOR = {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""}
NO_PLACE = """
from ptx.compiled import at_hand, compiled
from numba import float64
f = compiled(lambda x: x + x)  # of no file that numba could keep it beside
print(at_hand(f), f(1.0), at_hand(f), at_hand(f, float64), at_hand(f, float64[:]))
"""


def printed(program: str, **environment: str) -> list[str]:
    command = [sys.executable, "-W", "error", "-c", program]
    found = subprocess.run(
        command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, check=True
    )
    return found.stdout.split()


def test_what_was_kept_for_another_processor_is_not_at_hand() -> None:
    draws.draw_rows(np.zeros((1, 8), np.float32), 1.0, 0, 1.0, 0.0, [0.5])
    draws.logprob(np.zeros(8, np.float32), 0)
    program = "from ptx import draws; print(draws.ready())"
    assert printed(program) == ["True"]
    assert printed(program, **OTHER_PROCESSOR) == ["False"]


def test_with_nowhere_to_write_a_function_is_at_hand_once_it_was_called() -> None:
    assert printed(NO_PLACE) == ["False", "2.0", "True", "True", "False"]


def test_what_was_kept_of_other_sources_is_not_at_hand() -> None:
    draws.draw_rows(np.zeros((1, 8), np.float32), 1.0, 0, 1.0, 0.0, [0.5])
    draws.logprob(np.zeros(8, np.float32), 0)
    changed = "from ptx import compiled; compiled.sources = lambda: 'changed'; "
    program = "from ptx import draws; print(draws.ready())"
    assert printed(program) == ["True"]
    assert printed(changed + program) == ["False"]


def test_the_sources_are_all_modules_with_compiled_functions() -> None:
    makes = re.compile(r"^ *@(partial\()?(compiled|_inner|njit|intrinsic)\b", re.M)
    found = {path.stem for path in (ROOT / "ptx").glob("**/*.py") if makes.search(path.read_text())}
    assert found | {"lookup", "sampling"} == set(SOURCES)  # which `ptx.onward` takes from
