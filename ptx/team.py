"""Threads that share one compiled step: each takes the next piece of work until none is left.

A step has dozens of phases of a few microseconds, too short for threads that sleep in between or
that need Python's lock: they count in shared memory, and wait for each other in a loop. Pieces
are taken, not allotted: a thread that comes late, or not at all, holds nobody up. Only one that the
machine interrupts within a piece is waited for.

numba keeps what it compiled by the date of the file that calls this: touch ptx/native.py after
changes here.
"""

from __future__ import annotations

import math
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


OVER = 1 << 40
"""In every counter, it leaves no piece to take and none to wait for."""


class Place(NamedTuple):
    """A thread's place among those that take one step together. Numbers only: numba's generators
    would hold an array for ever."""

    address: int
    """Of the team's counters."""
    me: int
    threads: int


class Team(NamedTuple):
    """What a thread of those that take one step together is given."""

    counters: np.ndarray
    """(phases, 1 + threads, LINE) of the steps: how many pieces are done; of each thread's share,
    how many are taken."""
    place: Place


def team(phases: int, threads: int) -> list[Team]:
    """For one step of so many phases, each thread's."""
    shape = phases, 1 + threads, LINE  # to make numpy's zeros gives up Python's lock
    counters = np.frombuffer(bytearray(8 * math.prod(shape)), np.int64).reshape(shape)
    return [Team(counters, Place(counters.ctypes.data, me, threads)) for me in range(threads)]


class Helpers:
    """Threads that wait to take part in what the caller's does, until nobody holds this."""

    def __init__(self, n: int) -> None:
        self._calls = [SimpleQueue[Any]() for _ in range(n)]
        for calls in self._calls:
            threading.Thread(target=_help, args=(calls,), name="decoder", daemon=True).start()
            weakref.finalize(self, calls.put, None)

    def run(self, function: Callable[..., Any], team: list[Team], *arguments: Any) -> None:
        """Calls function(*arguments, one of team) here for the first, and in a thread for each
        other. Returns once this call has: the others have no piece left then. Raises what any of
        them raised; the step is over then."""
        me, *others = team
        problems: list[BaseException] = []
        try:
            for calls, other in zip(self._calls, others):
                calls.put((problems, function, *arguments, other))
            function(*arguments, me)
        except BaseException:  # Ctrl+C too
            me.counters.fill(OVER)
            raise
        finally:
            for calls in self._calls:  # who has not begun yet need not
                with suppress(Empty):
                    calls.get_nowait()
        if problems:
            raise problems[0]


def _help(calls: SimpleQueue[Any]) -> None:
    while call := calls.get():
        problems, function, *arguments, team = call
        try:
            function(*arguments, team)
        except BaseException as error:  # the caller's to hear; this thread is needed again
            problems.append(error)
            team.counters.fill(OVER)
        del call, problems, function, arguments, team  # who waits keeps nothing in memory


@njit(error_model="numpy", nogil=True, _nrt=False)
def later(place: Place, phases: int) -> Place:
    """The same thread's, after so many phases."""
    each = (1 + place.threads) * LINE * 8
    return Place(place.address + phases * each, place.me, place.threads)


@njit(error_model="numpy", nogil=True, _nrt=False)
def pieces(place: Place, phase: int, n: int):
    """Yields those of a phase's pieces 0 ... n - 1 that this thread takes, then waits for those
    that others took. What they wrote can be read after that.

    Its own share comes first, which is the same in each step: a core's cache still holds much of
    it. What is left of the others' shares comes next.
    """
    first_counter = phase * (1 + place.threads)
    mine = 0
    for k in range(place.threads):
        whose = (place.me + k) % place.threads
        first, last = n * whose // place.threads, n * (whose + 1) // place.threads
        piece = first + _add(place.address, first_counter + 1 + whose, 1)
        while piece < last:
            yield piece
            mine += 1
            piece = first + _add(place.address, first_counter + 1 + whose, 1)
    done = _add(place.address, first_counter, mine) + mine
    while done < n:
        _pause()
        done = _add(place.address, first_counter, 0)


@intrinsic
def _add(_context: Any, address: Any, counter: Any, amount: Any) -> Any:
    """Adds to one of the counters, at once for all threads; returns what it was before."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        address, counter, amount = (
            context.cast(builder, value, kind, types.int64)
            for value, kind in zip(arguments, signature.args, strict=True)
        )
        counters = builder.inttoptr(address, address.type.as_pointer())
        place = builder.gep(counters, [builder.mul(counter, counter.type(LINE))])
        return builder.atomic_rmw("add", place, amount, "acq_rel")

    return types.int64(address, counter, amount), generate


@intrinsic
def _pause(_context: Any) -> Any:
    def generate(_context: Any, builder: ir.IRBuilder, _signature: Any, _arguments: Any) -> Any:
        if PAUSE:
            name, kind = "llvm.x86.sse2.pause", ir.FunctionType(ir.VoidType(), ())
            builder.call(builder.module.declare_intrinsic(name, fnty=kind), ())
        return _context.get_dummy_value()

    return types.void(), generate
