"""Signals: which of them end a run, how often it takes one, and what nohup asks for."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
import torch

from train.parallel import World
from train.signals import stop_signals

WORLD = World(torch.device("cpu"))


@pytest.fixture(autouse=True)
def as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(("handler", "ends"), [(signal.SIG_DFL, True), (signal.SIG_IGN, False)])
def test_the_end_of_the_terminal_ends_a_run_unless_nohup_has_it_ignored(
    handler: signal.Handlers, ends: bool
) -> None:
    signal.signal(signal.SIGHUP, handler)
    with stop_signals(WORLD) as stop:
        for _ in range(2):  # the shell's and the kernel's
            signal.raise_signal(signal.SIGHUP)
        assert stop.requested == ends
    assert signal.getsignal(signal.SIGHUP) == handler


def test_a_second_signal_ends_a_process_of_its_own_at_once() -> None:
    usual = signal.getsignal(signal.SIGTERM)
    with stop_signals(WORLD) as stop:
        signal.raise_signal(signal.SIGTERM)
        assert stop.requested
        assert signal.getsignal(signal.SIGTERM) == usual


def test_a_second_signal_does_not_end_what_torchrun_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "1")
    with stop_signals(WORLD) as stop:
        for _ in range(2):  # would end this process
            signal.raise_signal(signal.SIGTERM)
        assert stop.requested
