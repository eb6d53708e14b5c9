"""The doctor's page, its line of JSON and its advice."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from ptx.config import preset
from ptx.errors import UserError
from ptx.model import GPT
from tests.train.machines import MACHINE
from train import doctor as module
from train import estimate
from train.doctor import Doctor, Probes, advise, doctor, duration, trouble
from train.estimate import Estimate
from train.kernels import Kernels

PROBES = Probes(0.1, Kernels(), [], 1.0, "not compiled", {"fp32": 100.0}, 95.0)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves out what takes seconds."""
    monkeypatch.setattr(module, "SECONDS", 0.01)
    monkeypatch.setattr(estimate, "SECONDS", 0.01)
    monkeypatch.setattr(module, "matmul_peak", lambda *_: 1e11)
    monkeypatch.setattr(
        module, "product_rate", lambda precision, *_: 1e9 + 1e10 * ("fp" in precision)
    )
    monkeypatch.setattr(module, "compile_gain", lambda k, *_: (k, 1.01, "1.01 times [slow]"))


@pytest.mark.usefixtures("quick")
def test_it_prints_the_machine_the_estimate_and_one_line_of_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    doctor(Doctor(preset="tiny", tokens=1_000_000, runs=tmp_path / "none" / "yet", json=True))
    *text, last = capsys.readouterr().out.splitlines()
    page = "\n".join(text)
    for fact in (
        "C++ compiler",
        "torch.compile",
        "not worth it: 1.01 times [slow]",
        "TensorBoard",
        "GPUs",
        "tiny",
    ):
        assert fact in page
    found = json.loads(last)
    assert set(found) == {"machine", "probes", "presets", "trouble", "advice"}
    [tiny] = found["presets"]
    vocabulary = preset("tiny").vocab_size
    assert tiny["parameters"] == GPT(preset("tiny")).n_params()
    doctor(Doctor(preset="tiny", vocab_size=2 * vocabulary, runs=tmp_path, json=True))
    [wider] = json.loads(capsys.readouterr().out.splitlines()[-1])["presets"]
    shape = replace(preset("tiny"), vocab_size=2 * vocabulary)
    assert wider["parameters"] == GPT(shape).n_params()
    assert tiny["tokens"] == 1_000_000
    assert tiny["minutes"] == pytest.approx(1e6 / tiny["tokens_per_s"] / 60, abs=0.01)
    assert tiny["kernels"]["precision"] == found["probes"]["kernels"]["precision"]
    assert found["advice"] in page
    assert not (tmp_path / "none").exists()


def test_impossible_questions_are_refused() -> None:
    with pytest.raises(UserError, match="unknown preset 'giant'"):
        doctor(Doctor(preset="giant"))
    with pytest.raises(UserError, match="--tokens must be at least 1, not 0"):
        doctor(Doctor(tokens=0))
    with pytest.raises(UserError, match="--vocab-size must be at least 2, not 1"):
        doctor(Doctor(vocab_size=1))


def estimates(**minutes: float) -> list[Estimate]:
    return [
        Estimate(name, 1, round(m * 60), 1.0, m, 1.0, True, 1.0, Kernels())
        for name, m in minutes.items()
    ]


def test_advice_is_the_longest_training_that_one_can_wait_for() -> None:
    slow = estimates(nano=2, mini=55, small=9000, reference=50)
    assert "--preset mini (55.0 min)" in advise(MACHINE, slow)
    assert "--preset nano" in advise(MACHINE, estimates(nano=200, mini=5500))
    assert "--preset reference" in advise(MACHINE, estimates(reference=5500))


def test_a_compiler_is_advised_where_a_cpu_has_none() -> None:
    table = estimates(nano=2)
    assert "g++" in advise(replace(MACHINE, compiler=None), table)
    assert "--preset" in advise(replace(MACHINE, compiler=None, device="cuda"), table)


def test_a_disturbed_machine_is_trouble() -> None:
    assert trouble(PROBES, estimates(nano=2)) is None
    found = trouble(replace(PROBES, peak_again_gflops=50.0), estimates(nano=2))
    assert found
    assert "close other programs" in found


def test_durations_read_as_a_person_would_say_them() -> None:
    assert [duration(m) for m in (0.25, 89, 120, 60 * 24 * 3)] == [
        "0.2 min", "89.0 min", "2.0 hours", "3 days",
    ]  # fmt: skip


def test_what_does_not_fit_asks_for_room() -> None:
    [huge] = estimates(small=2)
    huge = replace(huge, fits=False, tokens_per_s=None, minutes=None)
    found = trouble(PROBES, [huge])
    assert found
    assert "close other programs" in found
