"""The doctor's figures: memory counted as it is taken, time split as it is spent."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from ptx.errors import UserError
from train import doctor as module
from train.doctor import (
    Allocations,
    Cost,
    Doctor,
    Estimate,
    Footprint,
    Machine,
    Probes,
    Trainer,
    advise,
    count,
    doctor,
    duration,
    estimate,
    look,
    memory,
    step_cost,
)
from train.kernels import Kernels
from train.settings import Settings, complete

CPU = torch.device("cpu")
MACHINE = Machine(
    device="cpu", name="abacus", cores=2, threads=2, memory_gib=8.0, free_gib=4.0, base_gib=0.25,
    torch="2", compiler="/usr/bin/g++", disk_free_gib=9.0, tensorboard=True, gpus=0,
)  # fmt: skip
PROBES = Probes(0.1, Kernels(), [], 1.0, "not compiled", {"fp32": 100.0}, 95.0)


@pytest.fixture
def tiny_settings() -> Settings:
    return complete(Settings(preset="tiny"))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves out what takes seconds."""
    monkeypatch.setattr(module, "SECONDS", 0.01)
    monkeypatch.setattr(module, "matmul_peak", lambda *_: 1e11)
    monkeypatch.setattr(
        module, "product_rate", lambda precision, *_: 1e9 + 1e10 * ("fp" in precision)
    )
    monkeypatch.setattr(module, "compile_gain", lambda *_: (1.01, "1.01 times [slow]"))


def test_every_storage_counts_once_while_it_lives() -> None:
    with Allocations() as held:
        a = torch.zeros(1000)
        assert (held.now, held.peak) == (4000, 4000)
        view = a[:10].view(2, 5)
        a += 1
        assert held.now == 4000
        b = a.double() + 1  # the copy in float64 lives until the sum is there
        assert (held.now, held.peak) == (12_000, 20_000)
        del a, b
        assert held.now == 4000  # held by its view
        del view
        assert (held.now, held.peak) == (0, 20_000)


def test_what_a_backward_needs_counts_until_it_is_done() -> None:
    with Allocations() as held:
        x = torch.zeros(1000, requires_grad=True)
        loss = (x * x).exp().sum()
        assert held.now == 4000 + 4000 + 4  # exp keeps its result; the product is gone
        loss.backward()
        assert held.now == 4000 + 4000 + 4  # the gradient came, the result went


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_memory_counted_without_contents_is_what_a_real_step_takes(
    tiny_settings: Settings, optimizer: str
) -> None:
    settings = replace(tiny_settings, optimizer=optimizer)
    with Allocations() as held:
        trainer = Trainer(settings, Kernels(), settings.micro_batch, CPU)
        for _ in range(2):
            trainer.learn(trainer.ids)
            trainer.update()
    footprint = count(settings, Kernels(), CPU)
    assert footprint.step_bytes == held.peak
    assert footprint.parameters == trainer.model.n_params()
    states = [o.state_dict()["state"].values() for o in trainer.optimizers]
    saved = [t for state in states for values in state for t in values.values()]
    saved += trainer.model.parameters()
    assert footprint.checkpoint_bytes == sum(t.nbytes for t in saved)


def test_a_steps_time_is_split_as_it_is_spent(
    tiny_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(tiny_settings, batch_size=100, micro_batch=10)
    monkeypatch.setattr(module, "count", lambda *_: Footprint(1, 1, 1))
    monkeypatch.setattr(module, "step_cost", lambda *_: Cost(a_pass=2, a_row=0.25, an_update=5))
    found = estimate(settings, Kernels(), 1, 16_000, MACHINE, CPU)
    assert found.tokens_per_s == round(100 * 16 / (10 * 2 + 100 * 0.25 + 5), 1)
    assert found.minutes == pytest.approx(16_000 / 1600 * 50 / 60, abs=0.01)
    found = estimate(settings, Kernels(), 1, None, MACHINE, CPU)
    assert found.tokens == settings.steps * 100 * 16


def test_costs_are_told_apart_by_what_is_read(
    tiny_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0

    def spend(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr(Trainer, "learn", lambda _, ids: spend(3.0 + (ids.numel() - 1) / 15))
    monkeypatch.setattr(Trainer, "update", lambda _: spend(7.0))
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: now))
    found = step_cost(tiny_settings, Kernels(), 1, CPU)
    assert (found.a_pass, found.a_row, found.an_update) == pytest.approx((3.0, 1.0, 7.0))


def test_a_step_that_does_not_fit_is_not_tried(
    tiny_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(module, "step_cost")
    found = estimate(tiny_settings, Kernels(), 1, None, replace(MACHINE, free_gib=0.25), CPU)
    assert (found.fits, found.tokens_per_s, found.minutes) == (False, None, None)
    assert found.memory_gib >= 0.25
    assert "close other programs" in advise(MACHINE, PROBES, [found])


def test_half_of_the_peak_decides_how_much_is_timed(tiny_settings: Settings) -> None:
    flops = module.flops_per_token(module.preset("tiny")) * 16
    many = replace(tiny_settings, micro_batch=10)
    for sequences, rows in ((0.1, 1), (3.5, 3), (1000, 10)):
        assert module.rows_in(2.0, sequences * flops, many) == rows


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
    assert set(found) == {"machine", "probes", "presets", "advice"}
    [tiny] = found["presets"]
    assert tiny["tokens"] == 1_000_000
    assert tiny["minutes"] == pytest.approx(1e6 / tiny["tokens_per_s"] / 60, abs=0.01)
    assert tiny["kernels"]["precision"] == found["probes"]["kernels"]["precision"]
    assert found["advice"] in page
    assert not (tmp_path / "none").exists()


def test_what_is_there_is_told_without_measuring(tmp_path: Path) -> None:
    machine = look(CPU, tmp_path)
    assert machine.threads == torch.get_num_threads()
    assert 0 < machine.base_gib < machine.memory_gib
    free, total = memory(CPU)
    assert 0 < free <= total


def test_impossible_questions_are_refused() -> None:
    with pytest.raises(UserError, match="unknown preset 'giant'"):
        doctor(Doctor(preset="giant"))
    with pytest.raises(UserError, match="--tokens must be at least 1, not 0"):
        doctor(Doctor(tokens=0))


def estimates(**minutes: float) -> list[Estimate]:
    return [
        Estimate(name, 1, round(m * 60), 1.0, m, 1.0, True, 1.0, Kernels())
        for name, m in minutes.items()
    ]


def test_advice_is_the_longest_training_that_one_can_wait_for() -> None:
    slow = estimates(nano=2, mini=55, small=9000, reference=50)
    assert "--preset mini (55.0 min)" in advise(MACHINE, PROBES, slow)
    assert "--preset nano" in advise(MACHINE, PROBES, estimates(nano=200, mini=5500))
    assert "--preset reference" in advise(MACHINE, PROBES, estimates(reference=5500))


def test_advice_comes_first_to_what_spoils_the_rest() -> None:
    table = estimates(nano=2)
    assert "g++" in advise(replace(MACHINE, compiler=None), PROBES, table)
    assert "--preset" in advise(replace(MACHINE, compiler=None, device="cuda"), PROBES, table)
    assert "close other programs" in advise(MACHINE, replace(PROBES, peak_again_gflops=50.0), table)


def test_durations_read_as_a_person_would_say_them() -> None:
    assert [duration(m) for m in (0.25, 89, 120, 60 * 24 * 3)] == [
        "0.2 min", "89.0 min", "2.0 hours", "3 days",
    ]  # fmt: skip
