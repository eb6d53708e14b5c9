"""Signals that end a run between two steps, or tell that it was paused."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from train.parallel import World, launched


class Stop:
    requested = False
    paused = False


@contextmanager
def stop_signals(world: World) -> Iterator[Stop]:
    """SIGINT, SIGTERM and the terminal's end (SIGHUP, unless nohup has it ignored) ask the loop to
    end after the step at hand. A second of the first two ends a process that was started alone at
    once; torchrun passes on what whoever stops a whole group (a cluster's scheduler) has told its
    processes already, and a shell tells of the terminal's end a second time. Where there is
    SIGCONT, it tells that the process was paused."""
    stop, alone = Stop(), not launched()
    before: dict[int, Any] = {}
    again = "; once more to quit at once" if alone else ""
    ends = {signal.SIGINT, signal.SIGTERM}
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        ends.add(signal.SIGHUP)

    def request(number: int, _frame: object) -> None:
        told, stop.requested = stop.requested, True  # whatever becomes of the print
        if world.first and not told:
            print(f"\nfinishing this step and saving{again}", flush=True)
        if alone and number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, before[number])

    def continued(_number: int, _frame: object) -> None:
        stop.paused = True

    if hasattr(signal, "SIGCONT"):
        before[signal.SIGCONT] = signal.signal(signal.SIGCONT, continued)
    for number in ends:
        before[number] = signal.signal(number, request)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
