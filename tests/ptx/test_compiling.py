"""The decoder is compiled beside a page by a process that ends with it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import Thread

import psutil
import pytest
from numba import typeof
from numba.core.caching import NullCache

from ptx import compiling, native
from ptx.checkpoint import load_model
from ptx.config import PRESETS, ModelConfig
from ptx.int8 import as_int8
from ptx.model import GPT

ROOT = Path(__file__).resolve().parents[2]
COMPILE = """
from ptx import draws, native
from ptx.compiling import SMALL
from ptx.decoder import Decoder
from ptx.model import GPT
decoder = Decoder(GPT(SMALL))
assert not decoder.compiled, "something was kept already"
print("begun", flush=True)
decoder.compile(apart=True)
stats = [f.stats for f in (native.step, draws.draw, draws._logprob)]
print(decoder.compiled, *(f"{len(s.cache_hits)}/{len(s.cache_misses)}" for s in stats))
"""


def bf16(config: ModelConfig) -> GPT:
    """A model that loses nothing in bf16."""
    return GPT(config).bfloat16().float()


MODELS: dict[str, Callable[[ModelConfig], GPT]] = {
    "fp32": GPT, "bf16": bf16, "int8": lambda config: as_int8(GPT(config)),
}  # fmt: skip


@pytest.mark.parametrize("made", MODELS)
@pytest.mark.parametrize("preset", PRESETS)
def test_what_is_compiled_fits_every_model_of_the_same_kinds(made: str, preset: str) -> None:
    config = replace(PRESETS[preset], vocab_size=40, n_layer=2)
    weights = native.pack(MODELS[made](config))
    small = compiling.of_kinds(compiling.kinds(weights))
    assert typeof(small) == typeof(weights)


def test_the_shipped_model_is_of_one_kind() -> None:
    weights = native.pack(load_model(ROOT / "checkpoints" / "mini")[0])
    assert set(compiling.kinds(weights)) == {"uint16"}


def compiling_elsewhere(folder: Path) -> subprocess.Popen[str]:
    """A program that has its decoder compiled, where nothing was before."""
    environment = os.environ | {"NUMBA_CACHE_DIR": str(folder)}
    command = [sys.executable, "-W", "error", "-c", COMPILE]
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)


def test_another_process_compiles_and_this_one_only_finds(tmp_path: Path) -> None:
    with compiling_elsewhere(tmp_path) as program:
        assert program.stdout
        assert program.stdout.read().split() == ["begun", "True", "1/0", "1/0", "1/0"]


def test_the_compiling_process_ends_with_the_one_that_waits(tmp_path: Path) -> None:
    with compiling_elsewhere(tmp_path) as program:
        while not list(tmp_path.rglob("*.nbi")):  # it has begun
            assert program.poll() is None
            time.sleep(0.05)
        [child] = psutil.Process(program.pid).children()
        program.kill()
    deadline = time.monotonic() + 60
    # in a container nobody may ask what became of it
    while child.is_running() and child.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert not list(tmp_path.rglob("native.step-*.nbc"))  # and it was not done


@pytest.fixture
def weights(monkeypatch: pytest.MonkeyPatch) -> native.Weights:
    """For which nothing is compiled yet."""
    monkeypatch.setattr(compiling, "ready", lambda _: False)
    return native.pack(bf16(compiling.SMALL))


def test_it_is_kept_where_this_process_looks_whatever_its_paths(
    weights: native.Weights, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A relative one is meant from the directory at hand."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NUMBA_CACHE_DIR", "kept")
    monkeypatch.setenv("PYTHONSAFEPATH", "1")
    whole = Thread(target=compiling.compile_apart, args=(weights,), daemon=True)
    popen, processes = subprocess.Popen, []
    monkeypatch.setattr(
        subprocess, "Popen", lambda *a, **k: processes.append(popen(*a, **k)) or processes[0]
    )
    whole.start()
    while not list((tmp_path / "kept").rglob("*.nbi")):
        assert whole.is_alive()
        time.sleep(0.05)
    processes[0].kill()
    whole.join()


def test_without_another_process_this_one_goes_on(
    weights: native.Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(ROOT / "no-such-python"))
    compiling.compile_apart(weights)


def test_with_nowhere_to_keep_it_no_other_process_compiles(
    weights: native.Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native.step, "_cache", NullCache())
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("it would be in vain"))
    compiling.compile_apart(weights)


def test_engines_that_wait_together_have_it_compiled_once(
    weights: native.Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[list[str]] = []
    done: list[bool] = []

    class Process:
        def __init__(self, command: list[str], **_: object) -> None:
            started.append(command[1:3])

        def __enter__(self) -> Process:
            return self

        def __exit__(self, *_: object) -> None: ...

        def wait(self) -> None:
            time.sleep(0.3)
            done.append(True)

    monkeypatch.setattr(subprocess, "Popen", Process)
    monkeypatch.setattr(compiling, "ready", lambda _: bool(done))
    threads = [Thread(target=compiling.compile_apart, args=(weights,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert started == [["-m", "ptx.compiling"]]
