"""Estimates: memory counted as it is taken, time split as it is spent."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from ptx.config import preset
from tests.train.machines import CPU, MACHINE
from train import estimate as module
from train.estimate import Allocations, Cost, Footprint, Trainer, count, estimate, step_cost
from train.kernels import Kernels
from train.settings import Settings, complete


@pytest.fixture
def tiny_settings() -> Settings:
    return complete(Settings(preset="tiny"))


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
        trainer = Trainer(settings, preset("tiny"), Kernels(), settings.micro_batch, CPU)
        for _ in range(2):
            trainer.learn(trainer.ids)
            trainer.update()
    footprint = count(settings, preset("tiny"), Kernels(), CPU)
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
    found = estimate(settings, preset("tiny"), Kernels(), 1, 16_000, MACHINE, CPU)
    assert found.tokens_per_s == round(100 * 16 / (10 * 2 + 100 * 0.25 + 5), 1)
    assert found.minutes == pytest.approx(16_000 / 1600 * 50 / 60, abs=0.01)
    found = estimate(settings, preset("tiny"), Kernels(), 1, None, MACHINE, CPU)
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
    found = step_cost(tiny_settings, preset("tiny"), Kernels(), 1, CPU)
    assert (found.a_pass, found.a_row, found.an_update) == pytest.approx((3.0, 1.0, 7.0))


def test_a_step_that_does_not_fit_is_not_tried(
    tiny_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(module, "step_cost")
    machine = replace(MACHINE, free_gib=0.25)
    found = estimate(tiny_settings, preset("tiny"), Kernels(), 1, None, machine, CPU)
    assert (found.fits, found.tokens_per_s, found.minutes) == (False, None, None)
    assert found.memory_gib >= 0.25


def test_half_of_the_peak_decides_how_much_is_timed(tiny_settings: Settings) -> None:
    flops = module.flops_per_token(preset("tiny")) * 16
    many = replace(tiny_settings, micro_batch=10)
    for sequences, rows in ((0.1, 1), (3.5, 3), (1000, 10)):
        assert module.rows_in(2.0, sequences * flops, many, preset("tiny")) == rows
