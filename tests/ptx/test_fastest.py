"""The faster way is used, and a slower one gets another chance."""

from __future__ import annotations

from itertools import pairwise

from ptx.fastest import RARELY, TRY_AGAIN, Fastest


def use(fastest: Fastest, seconds: dict[int, float], times: int) -> list[int]:
    picked = []
    for _ in range(times):
        picked.append(fastest.pick())
        fastest.note(picked[-1], seconds[picked[-1]])
    return picked


def test_every_way_is_tried_then_the_fastest_is_used() -> None:
    picked = use(Fastest([2, 1]), {2: 1.0, 1: 3.0}, 14)
    assert picked == [2, 2, 1, 1] + [2] * 10


def test_a_first_use_does_not_count() -> None:
    fastest = Fastest([2, 1])
    fastest.note(fastest.pick(), 100.0)
    assert use(fastest, {2: 1.0, 1: 3.0}, 13) == [2, 1, 1] + [2] * 10


def test_more_threads_have_to_be_worth_it() -> None:
    assert use(Fastest([2, 1]), {2: 1.0, 1: 1.2}, 12)[4:] == [2] * 8
    assert use(Fastest([2, 1], 1.3), {2: 1.0, 1: 1.2}, 12)[4:] == [1] * 8
    assert use(Fastest([2, 1], 1.3), {2: 1.0, 1: 1.4}, 12)[4:] == [2] * 8


def test_when_the_machine_gets_busy_the_other_way_is_found_soon() -> None:
    fastest = Fastest([2, 1])
    use(fastest, {2: 1.0, 1: 1.5}, 20)
    picked = use(fastest, {2: 30.0, 1: 1.6}, 10)
    assert picked[-8:] == [1] * 8
    picked = use(fastest, {2: 1.0, 1: 1.5}, 8 * TRY_AGAIN)
    assert picked[-2:] == [2, 2]


def test_a_way_that_stays_slower_is_tried_ever_more_rarely() -> None:
    picked = use(Fastest([2, 1]), {2: 30.0, 1: 1.0}, 10 * RARELY)
    tries = [i for i, option in enumerate(picked) if option == 2][1:]
    gaps = [b - a for a, b in pairwise(tries)]
    assert gaps[0] == TRY_AGAIN + 2  # two first uses of the other way lie between
    assert gaps == sorted(gaps)
    assert gaps[-1] == RARELY


def test_all_other_ways_get_their_turn() -> None:
    picked = use(Fastest([4, 2, 1]), {4: 1.0, 2: 2.0, 1: 3.0}, 2 * RARELY)
    assert picked.count(2) > 2
    assert picked.count(1) > 2


def test_one_way_needs_no_choice() -> None:
    assert use(Fastest([1, 1]), {1: 1.0}, 2 * TRY_AGAIN) == [1] * 2 * TRY_AGAIN
