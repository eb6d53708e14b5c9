"""Threads that share one compiled step: each takes the next piece of work until none is left.

A step has dozens of phases of a few microseconds, too short for threads that sleep in between or
that need Python's lock: they count in shared memory, and wait for each other in a loop. Pieces
are taken, not allotted: a thread that comes late, or not at all, holds nobody up. Nor does one that
the machine interrupts within a piece, but for the moments in which it takes one, writes or counts:
where a browser draws, that lasts for milliseconds, and who has waited for a while does the piece
too. The first of them to finish wins: what a piece finds stays a thread's own until `first` says
that it counts.
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
PIECES = (1 << 32) - 1
"""What in the number of what a thread holds is its piece plus 1, or 0; above that, how many it has
done in this phase that no other thread knows of."""
LOST = -1
"""Instead: another thread was first with its piece, and counts those too."""


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
    """(phases, 1 + threads, LINE) of the steps: how many pieces are done; for each thread, how many
    of its share are taken, what it holds, and, if it does another one's piece, the counter of what
    that one holds (0 if another was first), and the number there."""
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
        other. Returns once this call has: the others have no piece left then that counts. Raises
        what any of them raised; the step is over then."""
        me, *others = team
        problems: list[BaseException] = []
        try:
            for calls, other in zip(self._calls, others):
                calls.put((problems, function, *arguments, other))
            function(*arguments, me)
        except BaseException:  # Ctrl+C too
            _end(me)
            raise
        finally:
            for calls in self._calls:  # who has not begun yet need not
                with suppress(Empty):
                    calls.get_nowait()
        if problems:
            raise problems[0]


def _end(team: Team) -> None:
    """Leaves no piece of a step to take, to wait for, or to write."""
    team.counters[..., :2].fill(OVER)


def _help(calls: SimpleQueue[Any]) -> None:
    while call := calls.get():
        problems, function, *arguments, team = call
        try:
            function(*arguments, team)
        except BaseException as error:  # the caller's to hear; this thread is needed again
            problems.append(error)
            _end(team)
        del call, problems, function, arguments, team  # who waits keeps nothing in memory


@njit(error_model="numpy", nogil=True, _nrt=False)
def later(place: Place, phases: int) -> Place:
    """The same thread's, after so many phases."""
    each = (1 + place.threads) * LINE * 8
    return Place(place.address + phases * each, place.me, place.threads)


@njit(error_model="numpy", nogil=True, _nrt=False)
def _taken(place: Place, phase: int, whose: int):
    """Which counter says how many of a thread's share are taken, the next being what it holds; for
    -1, which says how many of all are done."""
    return (phase * (1 + place.threads) + 1 + whose) * LINE


@njit(error_model="numpy", nogil=True, _nrt=False)
def pieces(place: Place, phase: int, n: int, patience: int):
    """Yields those of a phase's pieces 0 ... n - 1 that this thread does, then waits for those
    that others took. What they wrote can be read after that.

    Its own share comes first, which is the same in each step: a core's cache still holds much of
    it. What is left of the others' shares comes next.

    patience: for how many pauses another thread's piece is waited for before this one does it too;
        0 if that must not be. Otherwise `first` is to be asked once for each, before anything that
        others read is written.
    """
    finished, held = _taken(place, phase, -1), _taken(place, phase, place.me) + 1
    mine = 0
    for k in range(place.threads):
        whose = (place.me + k) % place.threads
        start, end = n * whose // place.threads, n * (whose + 1) // place.threads
        taken = _taken(place, phase, whose)
        piece = start + _add(place.address, taken, 1)
        while piece < end:
            if patience:
                _set(place.address, held, (mine << 32) + piece + 1)
            yield piece
            mine = 0 if _get(place.address, held) == LOST else mine + 1
            piece = start + _add(place.address, taken, 1)
    done, pauses = _add(place.address, finished, mine) + mine, 0
    while done < n:
        _pause()
        pauses += 1
        if pauses == patience:
            pauses, piece = 0, _begun(place, phase)
            if piece >= 0:
                yield piece
                if _get(place.address, held + 1):  # this thread was first
                    _add(place.address, finished, (_get(place.address, held + 2) >> 32) + 1)
        done = _get(place.address, finished)


@njit(error_model="numpy", nogil=True, _nrt=False)
def _begun(place: Place, phase: int):
    """A piece that another thread is at, and that this one does too from now on; -1 if there is
    none."""
    held = _taken(place, phase, place.me) + 1
    for k in range(1, place.threads):
        other = _taken(place, phase, (place.me + k) % place.threads) + 1
        of = _get(place.address, other)
        if _holds(of):
            _set(place.address, held + 1, other)
            _set(place.address, held + 2, of)
            return (of & PIECES) - 1
    return -1


@njit(error_model="numpy", nogil=True, _nrt=False)
def _holds(of: int):
    """Whether who holds this is at a piece."""
    return of > 0 and of & PIECES > 0


@njit(error_model="numpy", nogil=True, _nrt=False)
def first(place: Place, phase: int):
    """Whether what this thread found in its piece counts, and is to be written: so it is for one of
    those that do the piece."""
    held = _taken(place, phase, place.me) + 1
    other = _get(place.address, held + 1)
    if other:
        won = _swap(place.address, other, _get(place.address, held + 2), LOST)
        if not won:
            _set(place.address, held + 1, 0)
        return won
    of = _get(place.address, held)
    return _holds(of) and _swap(place.address, held, of, of - (of & PIECES))


def _on_counter(
    use: Callable[[ir.IRBuilder, Any, list[Any]], Any], *numbers: Any
) -> tuple[Any, Callable[..., Any]]:
    """An intrinsic's answer: what `use` makes of a counter's place and of the other numbers; the
    first two are the counters' address and which of them it is."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        address, counter, *others = (
            context.cast(builder, value, kind, types.int64)
            for value, kind in zip(arguments, signature.args, strict=True)
        )
        counters = builder.inttoptr(address, address.type.as_pointer())
        place = builder.gep(counters, [counter])
        return use(builder, place, others) or context.get_dummy_value()

    return numbers, generate


@intrinsic
def _add(_context: Any, address: Any, counter: Any, amount: Any) -> Any:
    """Adds to one of the counters, at once for all threads; returns what it was before."""

    def use(builder: ir.IRBuilder, place: Any, amount: list[Any]) -> Any:
        return builder.atomic_rmw("add", place, *amount, "acq_rel")

    kinds, generate = _on_counter(use, address, counter, amount)
    return types.int64(*kinds), generate


@intrinsic
def _get(_context: Any, address: Any, counter: Any) -> Any:
    """One of the counters; what was written before it can be read then."""

    def use(builder: ir.IRBuilder, place: Any, _: list[Any]) -> Any:
        return builder.load_atomic(place, "acquire", 8)

    kinds, generate = _on_counter(use, address, counter)
    return types.int64(*kinds), generate


@intrinsic
def _set(_context: Any, address: Any, counter: Any, value: Any) -> Any:
    """Sets one of the counters, after all that was written before."""

    def use(builder: ir.IRBuilder, place: Any, value: list[Any]) -> None:
        builder.store_atomic(*value, place, "release", 8)

    kinds, generate = _on_counter(use, address, counter, value)
    return types.void(*kinds), generate


@intrinsic
def _swap(_context: Any, address: Any, counter: Any, old: Any, new: Any) -> Any:
    """Sets one of the counters to `new` if it is `old`, at once; whether it was."""

    def use(builder: ir.IRBuilder, place: Any, old_and_new: list[Any]) -> Any:
        result = builder.cmpxchg(place, *old_and_new, "acq_rel", "acquire")
        return builder.extract_value(result, 1)

    kinds, generate = _on_counter(use, address, counter, old, new)
    return types.boolean(*kinds), generate


@intrinsic
def _pause(_context: Any) -> Any:
    def generate(_context: Any, builder: ir.IRBuilder, _signature: Any, _arguments: Any) -> Any:
        if PAUSE:
            name, kind = "llvm.x86.sse2.pause", ir.FunctionType(ir.VoidType(), ())
            builder.call(builder.module.declare_intrinsic(name, fnty=kind), ())
        return _context.get_dummy_value()

    return types.void(), generate
