"""Threads that share one compiled step: each takes the next piece of work until none is left.

A step has dozens of phases of a few microseconds, too short for threads that sleep in between or
that need Python's lock: they count in shared memory, and wait for each other in a loop. Pieces
are taken, not allotted: a thread that comes late, or not at all, holds nobody up.

numba keeps what it compiled by the date of the file that calls this: touch ptx/native.py after
changes here.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

import llvmlite.binding
import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

LINE = 8
"""Numbers in what one core takes from another at a time (64 bytes): counters in one line would
slow each other down."""
PAUSE = "x86" in llvmlite.binding.get_default_triple()
"""Whether there is an instruction for loops that wait; it leaves more of the core to others."""


class Team(NamedTuple):
    """A thread's place among those that take one step together."""

    counters: np.ndarray
    """(phases, 1 + threads, LINE) of the step: how many pieces are done; of each thread's share,
    how many are taken."""
    me: int
    threads: int


def team(phases: int, threads: int) -> list[Team]:
    """For one step of so many phases, each thread's."""
    counters = np.zeros((phases, 1 + threads, LINE), np.int64)
    return [Team(counters, me, threads) for me in range(threads)]


class Helpers:
    """Threads that wait to take part in what the caller's does, until nobody holds this."""

    def __init__(self, n: int) -> None:
        self._calls = [SimpleQueue[Any]() for _ in range(n)]
        for calls in self._calls:
            threading.Thread(target=_help, args=(calls,), name="decoder", daemon=True).start()
            weakref.finalize(self, calls.put, None)

    def run(self, function: Callable[..., Any], team: list[Team], *arguments: Any) -> None:
        """Calls function(*arguments, place) here for the first place in `team`, and in a thread
        for each other. Returns once this call has: the others have no piece left then."""
        me, *others = team
        for calls, place in zip(self._calls, others):
            calls.put((function, *arguments, place))
        function(*arguments, me)
        for calls in self._calls:  # who has not begun yet need not
            with suppress(Empty):
                calls.get_nowait()


def _help(calls: SimpleQueue[Any]) -> None:
    while call := calls.get():
        function, *arguments = call
        function(*arguments)
        del call, function, arguments  # nothing stays in memory for this thread's sake


@njit(error_model="numpy", nogil=True)
def pieces(team: Team, phase: int, n: int):
    """Yields those of a phase's pieces 0 ... n - 1 that this thread takes, then waits for those
    that others took. What they wrote can be read after that.

    Its own share comes first, which is the same in each step: a core's cache still holds much of
    it. What is left of the others' shares comes next.
    """
    counters, mine = team.counters, 0
    for k in range(team.threads):
        whose = (team.me + k) % team.threads
        first, last = n * whose // team.threads, n * (whose + 1) // team.threads
        piece = first + _add(counters, phase, 1 + whose, 1)
        while piece < last:
            yield piece
            mine += 1
            piece = first + _add(counters, phase, 1 + whose, 1)
    done = _add(counters, phase, 0, mine) + mine
    while done < n:
        _pause()
        done = _add(counters, phase, 0, 0)


@intrinsic
def _add(_context: Any, counters: Any, phase: Any, which: Any, amount: Any) -> Any:
    """Adds to one of a phase's counters, at once for all threads; returns what it was before."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        phase, which, amount = (
            context.cast(builder, value, kind, types.int64)
            for value, kind in zip(arguments[1:], signature.args[1:], strict=True)
        )
        a_phase = builder.mul(builder.extract_value(array.shape, 1), phase.type(LINE))
        index = builder.add(builder.mul(phase, a_phase), builder.mul(which, phase.type(LINE)))
        place = builder.gep(array.data, [index])
        return builder.atomic_rmw("add", place, amount, "acq_rel")

    return types.int64(counters, phase, which, amount), generate


@intrinsic
def _pause(_context: Any) -> Any:
    def generate(_context: Any, builder: ir.IRBuilder, _signature: Any, _arguments: Any) -> Any:
        if PAUSE:
            name, kind = "llvm.x86.sse2.pause", ir.FunctionType(ir.VoidType(), ())
            builder.call(builder.module.declare_intrinsic(name, fnty=kind), ())
        return _context.get_dummy_value()

    return types.void(), generate
