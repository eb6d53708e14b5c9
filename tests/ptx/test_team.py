"""Threads that share a step: each piece is taken once, and who is late holds nobody up."""

from __future__ import annotations

import gc
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
from numba import njit

from ptx.team import Helpers, Team, pieces, team

PHASES = [1, 7, 0, 64, 2, 33]
"""How many pieces each has."""


@njit(nogil=True)
def work(sizes: np.ndarray, done: np.ndarray, seen: np.ndarray, place: Team):
    """Counts each piece of each phase in done (phases, most); what is done of a phase once it is
    over, in seen (threads, phases)."""
    for phase in range(len(sizes)):
        for piece in pieces(place, phase, sizes[phase]):
            done[phase, piece] += 1
        seen[place.me, phase] = done[phase].sum()


def shared_by(threads: int) -> tuple[np.ndarray, np.ndarray, list[Team]]:
    done = np.zeros((len(PHASES), max(PHASES)), np.int64)
    return done, np.zeros((threads, len(PHASES)), np.int64), team(len(PHASES), threads)


def each_once() -> np.ndarray:
    return np.array([[piece < n for piece in range(max(PHASES))] for n in PHASES])


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_every_piece_is_taken_once_and_waited_for(threads: int) -> None:
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(200):
            done, seen, places = shared_by(threads)
            list(pool.map(partial(work, np.array(PHASES), done, seen), places))
            assert (done == each_once()).all()
            assert (seen == PHASES).all()


def test_who_never_comes_is_not_waited_for() -> None:
    done, _, places = shared_by(3)
    work(np.array(PHASES), done, np.zeros((3, len(PHASES)), np.int64), places[1])
    assert (done == each_once()).all()


def test_who_comes_when_all_is_done_finds_nothing() -> None:
    done, seen, places = shared_by(2)
    work(np.array(PHASES), done, seen, places[0])
    work(np.array(PHASES), done, seen, places[1])
    assert (done == each_once()).all()


def test_helpers_take_part() -> None:
    helpers, by = Helpers(2), set()
    together = threading.Barrier(3)

    def part(place: Team) -> None:
        by.add(threading.current_thread())
        together.wait(5)

    helpers.run(part, team(1, 3))
    assert len(by) == 3


def test_helpers_that_are_busy_are_left_out() -> None:
    helpers, calls = Helpers(1), []
    begun, goes_on = threading.Event(), threading.Event()

    def part(place: Team) -> None:
        calls.append(place.me)
        if place.me:
            begun.set()
            goes_on.wait(10)
        assert begun.wait(5)

    for _ in range(3):
        helpers.run(part, team(1, 2))
    goes_on.set()
    time.sleep(0.05)
    assert sorted(calls) == [0, 0, 0, 1]


def test_helpers_end_with_who_holds_them() -> None:
    before = set(threading.enumerate())
    helpers = Helpers(2)
    mine = set(threading.enumerate()) - before
    assert len(mine) == 2
    del helpers
    gc.collect()
    for thread in mine:
        thread.join(5)
        assert not thread.is_alive()
