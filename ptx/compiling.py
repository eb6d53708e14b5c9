"""python -m ptx.compiling KIND ... : compiles a decoding step and a draw, and keeps both. It ends
when its standard input does.

numba holds Python's lock for most of the time it compiles, some twenty seconds: in the process of a
page, that would answer and write at a fraction of its pace. So another process does it, and numba
finds there what that one kept. KIND is the type of each matrix of the weights, as `ptx.native` has
them: nothing else of a model changes what is compiled.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from subprocess import DEVNULL, PIPE
from typing import Any

import numpy as np

from ptx import draws, native
from ptx.compiled import kept
from ptx.config import ModelConfig
from ptx.model import GPT
from ptx.onward import NOWHERE

ROOT = Path(__file__).resolve().parents[1]
SMALL = ModelConfig(
    16, context=8, n_layer=1, n_head=1, n_kv_head=1, head_size=8, d_model=8, d_mlp=8
)


_one_at_a_time = threading.Lock()
"""Who waits for it may find that what the one before compiled is enough."""


def ready(weights: native.Weights) -> bool:
    """Whether nothing needs compiling any more."""
    return native.ready(weights) and draws.ready()


def try_out(weights: native.Weights) -> None:
    """One step on a cache of its own, and a draw: compiles, or finds what was compiled before."""
    zero, n_layer = np.zeros(1, np.int64), len(weights.q.weight)
    empty = np.zeros((n_layer, weights.n_kv_head, 1, 1, weights.head_size), np.float32)
    rows, cache = native.Rows(zero, zero, zero, zero, zero), native.Cache(empty, empty.copy())
    logits = np.empty((1, len(weights.tok_emb)), np.float32)
    nothing = np.empty((0, n_layer, weights.n_head, 1), np.float32)
    room, alone = native.scratch(weights, 1, 1, 1), native.team_of(1, weights, NOWHERE)[0]
    native.step(weights, rows, cache, nothing, logits, *room, NOWHERE, alone)
    draws.draw_rows(logits, 1.0, 0, 1.0, 0.0, [0.0])
    draws.logprob(logits[0], 0)


def kinds(weights: native.Weights) -> list[str]:
    """The type of each matrix."""
    return [part.weight.dtype.name for part in weights if isinstance(part, native.Matrix)]


def of_kinds(wanted: Sequence[str]) -> native.Weights:
    """Weights of a small model whose matrices have these types."""
    weights = native.pack(GPT(SMALL))
    names = [name for name, part in weights._asdict().items() if isinstance(part, native.Matrix)]
    changed = {}
    for name, kind in zip(names, wanted, strict=True):
        matrix = getattr(weights, name)
        changed[name] = matrix._replace(weight=np.zeros(matrix.weight.shape, kind))
    return weights._replace(**changed)


def compile_apart(weights: native.Weights) -> None:
    """Waits for a process that compiles for such weights, and that ends with this one. There is
    none where it could keep nothing, or where none can be started."""
    command = [sys.executable, "-m", "ptx.compiling", *kinds(weights)]
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    given: dict[str, Any] = {
        "env": os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        "start_new_session": True,  # Ctrl+C would end it first, and this one would compile
        "stdin": PIPE,  # which is open as long as this process lives
        "stdout": DEVNULL,
        "stderr": DEVNULL,
    }
    with _one_at_a_time, suppress(OSError):
        is_python = sys.executable and not getattr(sys, "frozen", False)
        if is_python and kept(native.step) and not ready(weights):
            with subprocess.Popen(command, **given) as process:
                process.wait()


def _follow() -> None:
    """Ends with the process that started this one."""
    with suppress(OSError):
        while os.read(0, 1024):
            pass
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=_follow, daemon=True).start()
    try_out(of_kinds(sys.argv[1:]))
