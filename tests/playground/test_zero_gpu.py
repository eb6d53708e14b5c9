"""ZeroGPU: `spaces` is imported only where it is, and its process writes what the engine writes.

The stand-in runs a decorated function as `spaces` does: in another process, its answers pickled.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from ptx.playground.served import Served

ROOT = Path(__file__).resolve().parents[2]
SPACES = """
import multiprocessing

context = multiprocessing.get_context("fork")


def GPU(duration):
    def decorate(function):
        def work(answers, arguments):
            try:
                for answer in function(*arguments):
                    answers.put(answer)
            finally:
                answers.put("end")

        def call(*arguments):
            answers = context.Queue()
            process = context.Process(target=work, args=(answers, arguments))
            process.start()
            print("borrowed for", duration)
            while (answer := answers.get(timeout=60)) != "end":
                yield answer
            process.join()

        return call

    return decorate
"""
WRITE = """
import os
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from ptx.playground import zero_gpu
from ptx.playground.served import Served
from ptx.errors import UserError
import ptx

assert zero_gpu.PRESENT
zero_gpu.CARD = "cpu"
served = Served.load(sys.argv[1])
assert type(served.engine).__name__ == "Engine"  # a small model needs no card
zero_gpu.LARGE = 0
served = Served.load(sys.argv[1])
engine = served.engine
try:
    engine.generate("x", limits=ptx.Limits(0))
    raise SystemExit("not refused")
except UserError:
    pass
written = engine.generate("def f(x", ptx.Sampling(), ptx.Limits(9), 3, attention=True)
assert engine.place(written) == 0
steps = list(written)
alone = ptx.generate(served.model, served.tokenizer, "def f(x", ptx.Sampling(), ptx.Limits(9), 3)
expected = list(alone)
assert [s.token for s in steps] == [s.token for s in expected]
assert steps[0].attention is not None
assert (written.ids, written.n_prompt, written.finish) == (
    alone.ids, alone.n_prompt, alone.finish)
print("same", flush=True)
os._exit(0)  # the small model's engine still compiles
"""


def test_a_borrowed_card_writes_the_same_text(served: Served, tmp_path: Path) -> None:
    (tmp_path / "spaces.py").write_text(SPACES)
    done = subprocess.run(
        [sys.executable, "-c", WRITE, str(served.directory)],
        env={**os.environ, "SPACES_ZERO_GPU": "true", "PYTHONPATH": f"{tmp_path}:{ROOT}"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[-2] == "same"
    assert "borrowed for 60" in done.stdout


def test_elsewhere_spaces_is_not_imported(served: Served, tmp_path: Path) -> None:
    (tmp_path / "spaces.py").write_text("raise SystemExit('imported')")
    code = (
        "import os, sys; from ptx.playground.served import Served; "
        "print(type(Served.load(sys.argv[1]).engine).__name__, flush=True); os._exit(0)"
    )
    environment = {k: v for k, v in os.environ.items() if k != "SPACES_ZERO_GPU"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(served.directory)],
        env={**environment, "PYTHONPATH": f"{tmp_path}:{ROOT}"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "Engine"
