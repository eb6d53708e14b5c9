"""Signals that end a run between two steps, or tell that it was paused."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from train.parallel import World


class Stop:
    requested = False
    paused = False


@contextmanager
def stop_signals(world: World) -> Iterator[Stop]:
    """SIGINT and SIGTERM ask the loop to end after the step at hand. A second one ends a process
    that trains alone at once; torchrun passes on what whoever stops a whole group (a cluster's
    scheduler) has told its processes already. Where there is SIGCONT, it tells that the process
    was paused."""
    stop = Stop()
    before: dict[int, Any] = {}
    again = "; once more to quit at once" if world.size == 1 else ""

    def request(number: int, _frame: object) -> None:
        told, stop.requested = stop.requested, True  # whatever becomes of the print
        if world.first and not told:
            print(f"\nfinishing this step and saving{again}", flush=True)
        if world.size == 1:
            signal.signal(number, before[number])

    def continued(_number: int, _frame: object) -> None:
        stop.paused = True

    if hasattr(signal, "SIGCONT"):
        before[signal.SIGCONT] = signal.signal(signal.SIGCONT, continued)
    for number in (signal.SIGINT, signal.SIGTERM):
        before[number] = signal.signal(number, request)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
