"""The faster way is used, and a slower one gets another chance."""

from __future__ import annotations

from itertools import pairwise

import pytest

from ptx.fastest import RARELY, TRY_AGAIN, Fastest


def use(fastest: Fastest, seconds: dict[int, float], times: int) -> list[int]:
    picked = []
    for _ in range(times):
        picked.append(fastest.pick())
        fastest.note(picked[-1], seconds[picked[-1]])
    return picked


def test_every_way_is_tried_then_the_fastest_is_used() -> None:
    picked = use(Fastest([2, 1]), {2: 1.0, 1: 3.0}, 40)
    assert picked == [2, 2, 1, 1] + [2] * 7 + [1] + [2] * 7 + [1] + [2] * 20


def test_a_first_use_does_not_count() -> None:
    fastest = Fastest([2, 1])
    fastest.note(fastest.pick(), 100.0)
    assert use(fastest, {2: 1.0, 1: 3.0}, 6) == [2, 1, 1, 2, 2, 2]


def test_more_threads_have_to_be_worth_it() -> None:
    assert use(Fastest([2, 1]), {2: 1.0, 1: 1.2}, 7)[4:] == [2] * 3
    assert use(Fastest([2, 1], 1.3), {2: 1.0, 1: 1.2}, 7)[4:] == [1] * 3
    assert use(Fastest([2, 1], 1.3), {2: 1.0, 1: 1.4}, 7)[4:] == [2] * 3


def test_when_the_machine_gets_busy_the_other_way_is_found_soon() -> None:
    fastest = Fastest([2, 1])
    use(fastest, {2: 1.0, 1: 1.5}, 20)
    picked = use(fastest, {2: 30.0, 1: 1.6}, 10)
    assert picked[-5:] == [1] * 5
    picked = use(fastest, {2: 1.0, 1: 1.5}, 5 * RARELY)
    assert picked[-2:] == [2, 2]


@pytest.mark.parametrize("disturbed", range(14))
def test_one_use_that_was_disturbed_changes_nothing(disturbed: int) -> None:
    fastest, picked = Fastest([2, 1]), []
    for i in range(400):
        picked.append(fastest.pick())
        fastest.note(picked[-1], {2: 1.0, 1: 1.5}[picked[-1]] * (30 if i == disturbed else 1))
    assert picked[:20].count(1) <= 14
    assert picked.count(1) <= TRY_AGAIN + 4


@pytest.mark.parametrize("slower", [1.1, 1.5, 2.0, 5.0, 30.0])
def test_the_slower_another_way_is_the_more_rarely_it_is_tried(slower: float) -> None:
    picked = use(Fastest([2, 1]), {2: slower, 1: 1.0}, 10 * RARELY)
    tries = [i for i, option in enumerate(picked) if option == 2][4:]
    assert {b - a for a, b in pairwise(tries)} == {round(min(RARELY, TRY_AGAIN * slower**2))}
    if slower < 5:
        assert (slower - 1) * len(tries) / len(picked) <= 1 / 60


def test_all_other_ways_get_their_turn() -> None:
    picked = use(Fastest([4, 2, 1]), {4: 1.0, 2: 2.0, 1: 3.0}, 2 * RARELY)
    assert picked.count(2) > 2
    assert picked.count(1) > 2


def test_one_way_needs_no_choice() -> None:
    assert use(Fastest([1, 1]), {1: 1.0}, 2 * TRY_AGAIN) == [1] * 2 * TRY_AGAIN
