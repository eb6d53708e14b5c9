"""Threads that share a step: each piece is taken once, and who is late holds nobody up."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
from numba import njit

from ptx.team import LINE, LOST, Helpers, Team, first, pieces, team

PHASES = [1, 7, 0, 64, 2, 33]
"""How many pieces each has."""


@njit(nogil=True)
def work(sizes: np.ndarray, done: np.ndarray, seen: np.ndarray, team: Team):
    """Counts each piece of each phase in done (phases, most); what is done of a phase once it is
    over, in seen (threads, phases)."""
    for phase in range(len(sizes)):
        for piece in pieces(team.place, phase, sizes[phase], 0):
            done[phase, piece] += 1
        seen[team.place.me, phase] = done[phase].sum()


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


@njit(nogil=True)
def work_again(
    sizes: np.ndarray,
    done: np.ndarray,
    seen: np.ndarray,
    patience: int,
    lost: np.ndarray,
    team: Team,
):
    """`work` of which a piece may be done again, and is counted where it is the first; lost
    (threads,) are those that were not."""
    for phase in range(len(sizes)):
        for piece in pieces(team.place, phase, sizes[phase], patience):
            if first(team.place, phase):
                done[phase, piece] += 1
            else:
                lost[team.place.me] += 1
        seen[team.place.me, phase] = done[phase].sum()


@njit
def counts(phase: int, team: Team):
    return first(team.place, phase)


def test_who_is_first_with_a_piece_wins() -> None:
    """Though others do it too."""
    _, _, places = shared_by(3)
    counters, phase = places[0].counters, 3
    for winner, others in ((0, (1, 2)), (1, (0, 2)), (2, (1, 0))):
        counters[phase] = 0
        counters[phase, 1, 1] = held = (5 << 32) + 7 + 1  # the first thread is at piece 7
        for thief in (1, 2):
            at = (phase * 4 + 1) * LINE + 1  # which counter says so
            counters[phase, 1 + thief, 2:4] = at, held
        assert counts(phase, places[winner])
        assert not any(counts(phase, places[other]) for other in others)
        assert counters[phase, 1, 1] == (LOST if winner else 5 << 32)


def test_after_an_error_nothing_counts() -> None:
    _, _, places = shared_by(2)
    places[0].counters[2, 1, 1] = 1
    places[0].counters[2, 2, 2:4] = (2 * 3 + 1) * LINE + 1, 1  # the second does that piece too

    def fails(_: Team) -> None:
        raise MemoryError("no room")

    with pytest.raises(MemoryError):
        Helpers(1).run(fails, places)
    assert not any(counts(2, place) for place in places)


@pytest.mark.parametrize("before", [0, 2])
def test_a_piece_of_who_is_interrupted_is_done_by_who_waits(before: int) -> None:
    """And counted, with those that nobody knows of yet."""
    done, seen, places = shared_by(2)
    other = places[0].counters[:, 2]  # of the second thread, in each phase
    for phase, n in enumerate(PHASES):
        taken = min(before + 1, n - n // 2)
        other[phase, 0] = taken
        if taken:
            piece = n // 2 + taken - 1  # its share is the second half
            other[phase, 1] = (taken - 1 << 32) + piece + 1
            done[phase, n // 2 : piece] = 1
    held = other[:, 1] > 0
    work_again(np.array(PHASES), done, seen, 10, np.zeros(2, np.int64), places[0])
    assert (done == each_once()).all()
    assert (seen[0] == PHASES).all()
    assert (other[held, 1] == LOST).all()
    assert not any(counts(phase, places[1]) for phase in np.flatnonzero(held))


def test_a_piece_that_may_not_be_done_again_is_waited_for() -> None:
    done, seen, places = shared_by(2)
    places[0].counters[1, 2, :2] = 1, 4  # the second thread is about to write the fourth piece
    waits = threading.Thread(target=work, args=(np.array(PHASES), done, seen, places[0]))
    waits.start()
    time.sleep(0.1)
    assert waits.is_alive()
    assert done[1].tolist() == [*each_once()[1, :3], 0, *each_once()[1, 4:]]
    places[0].counters[1, 0, 0] += 1
    waits.join(5)
    assert not waits.is_alive()


@pytest.mark.parametrize("threads", [2, 3, 7])
def test_every_piece_counts_once_however_often_it_is_done(threads: int) -> None:
    sizes, lost = np.array(PHASES * 200), np.zeros(threads, np.int64)
    end, rounds = time.monotonic() + 10, 0
    with ThreadPoolExecutor(threads) as pool:
        while rounds < 30 or (not lost.any() and time.monotonic() < end):  # until some were
            done = np.zeros((len(sizes), max(PHASES)), np.int64)
            seen, places = np.zeros((threads, len(sizes)), np.int64), team(len(sizes), threads)
            list(pool.map(partial(work_again, sizes, done, seen, 1, lost), places))
            assert (done == np.tile(each_once(), (200, 1))).all()
            assert (seen == sizes).all()
            rounds += 1


def test_who_comes_when_all_is_done_finds_nothing() -> None:
    done, seen, places = shared_by(2)
    work(np.array(PHASES), done, seen, places[0])
    work(np.array(PHASES), done, seen, places[1])
    assert (done == each_once()).all()


def test_helpers_take_part() -> None:
    helpers, by = Helpers(2), set()
    together = threading.Barrier(3)

    def part(_: Team) -> None:
        by.add(threading.current_thread())
        together.wait(5)

    helpers.run(part, team(1, 3))
    assert len(by) == 3


def test_helpers_that_are_busy_are_left_out() -> None:
    helpers, calls = Helpers(1), []
    begun, goes_on = threading.Event(), threading.Event()

    def part(team: Team) -> None:
        calls.append(team.place.me)
        if team.place.me:
            begun.set()
            goes_on.wait(10)
        assert begun.wait(5)

    for _ in range(3):
        helpers.run(part, team(1, 2))
    goes_on.set()
    time.sleep(0.05)
    assert sorted(calls) == [0, 0, 0, 1]


@njit(nogil=True)
def first_piece_is_missing(n: int, team: Team):
    """One of n pieces never comes to its end."""
    for _ in pieces(team.place, 0, n, 0):
        pass


@pytest.mark.parametrize("who", [0, 1])
def test_an_error_ends_the_step_for_all_and_reaches_the_caller(who: int) -> None:
    helpers, together = Helpers(1), threading.Barrier(2)

    def part(team: Team) -> None:
        together.wait(5)
        if team.place.me == who:
            raise MemoryError("no room")
        team.counters[0, 1:, 0] = 1  # as if the other had taken its piece
        first_piece_is_missing(2, team)

    with pytest.raises(MemoryError, match="no room"):
        helpers.run(part, team(1, 2))
    helpers.run(lambda _: together.wait(5), team(1, 2))  # both are there again


def test_who_is_interrupted_leaves_nothing_to_do() -> None:
    done, _, places = shared_by(2)
    seen = np.zeros((2, len(PHASES)), np.int64)
    begun, goes_on, over = threading.Event(), threading.Event(), threading.Event()

    def part(team: Team) -> None:
        if team.place.me == 0:
            assert begun.wait(10)
            raise KeyboardInterrupt
        begun.set()
        goes_on.wait(10)
        work(np.array(PHASES), done, seen, team)
        over.set()

    with pytest.raises(KeyboardInterrupt):
        Helpers(1).run(part, places)
    goes_on.set()
    assert over.wait(10)
    assert not done.any()


def test_nothing_of_a_step_stays_in_memory() -> None:
    done, seen, places = shared_by(1)
    kept = [weakref.ref(array) for array in (places[0].counters, done, seen)]
    work(np.array(PHASES), done, seen, places[0])
    del done, seen, places
    gc.collect()
    assert [ref() for ref in kept] == [None] * 3


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
