"""The faster way is used, and a slower one gets another chance."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest

from ptx.fastest import HOPELESS, LAST, RARELY, TRIAL, TRY_AGAIN, WORTH_TRYING, Fastest


def use(fastest: Fastest, seconds: dict[int, float], times: int) -> list[int]:
    picked = []
    for _ in range(times):
        picked.append(fastest.pick())
        fastest.note(picked[-1], seconds[picked[-1]])
    return picked


def trials(picked: list[int], option: int) -> list[int]:
    """Where runs of an option begin."""
    return [i for i, (a, b) in enumerate(pairwise([0, *picked])) if b == option != a]


def test_every_way_is_tried_then_the_fastest_is_used() -> None:
    picked = use(Fastest([2, 1]), {2: 1.0, 1: 1.5}, 2 * TRIAL + TRY_AGAIN)
    assert picked == [2] * TRIAL + [1] * TRIAL + [2] * TRY_AGAIN


def test_a_first_use_does_not_count() -> None:
    fastest = Fastest([2, 1])
    fastest.note(fastest.pick(), 100.0)
    rest = use(fastest, {2: 1.0, 1: 1.5}, 2 * TRIAL - 1 + TRY_AGAIN)
    assert rest == [2] * (TRIAL - 1) + [1] * TRIAL + [2] * TRY_AGAIN


def test_a_trial_ends_where_it_is_hopeless() -> None:
    assert use(Fastest([2, 1]), {2: 1.0, 1: 9.0}, 40) == [2] * TRIAL + [1, 1] + [2] * 34


def test_more_threads_have_to_be_worth_it() -> None:
    for worth, slower, best in ((1.0, 1.2, 2), (1.3, 1.2, 1), (1.3, 1.4, 2)):
        picked = use(Fastest([2, 1], worth), {2: 1.0, 1: slower}, 2 * TRIAL + 20)
        assert picked[-20:] == [best] * 20


def test_when_the_machine_gets_busy_the_other_way_is_found_soon() -> None:
    fastest = Fastest([2, 1])
    use(fastest, {2: 1.0, 1: 1.5}, 200)
    picked = use(fastest, {2: 30.0, 1: 1.6}, 100)
    assert picked.count(2) <= LAST
    assert picked[-80:] == [1] * 80
    picked = use(fastest, {2: 1.0, 1: 1.5}, 3 * RARELY)
    assert picked[-2:] == [2, 2]


@pytest.mark.parametrize("disturbed", range(20))
def test_one_use_that_was_disturbed_changes_nothing(disturbed: int) -> None:
    fastest, picked = Fastest([2, 1]), []
    for i in range(400):
        picked.append(fastest.pick())
        fastest.note(picked[-1], {2: 1.0, 1: 1.5}[picked[-1]] * (30 if i == disturbed else 1))
    assert picked[:40].count(1) <= 2 * TRIAL
    assert len(trials(picked, 1)) <= 4


def test_what_disturbs_a_third_of_the_uses_changes_nothing() -> None:
    fastest = Fastest([2, 1])
    use(fastest, {2: 1.0, 1: 1.5}, 2 * TRIAL + LAST)
    picked = []
    for i in range(TRY_AGAIN):
        picked.append(fastest.pick())
        fastest.note(picked[-1], {2: 1.0, 1: 1.5}[picked[-1]] * (10 if i % 15 < 5 else 1))
    assert picked.count(1) <= TRIAL


@pytest.mark.parametrize("slower", [1.1, 1.5, 2.0, 5.0, 30.0])
def test_the_more_a_trial_costs_the_longer_it_is_until_the_next(slower: float) -> None:
    picked = use(Fastest([2, 1]), {2: slower, 1: 1.0}, 10 * RARELY)
    uses = TRIAL if slower < HOPELESS else 2
    wait = min(RARELY, max(TRY_AGAIN, WORTH_TRYING * uses * (slower - 1)))
    between = {b - a for a, b in pairwise(trials(picked, 2)[1:])}
    assert between <= {uses + math.ceil(wait), uses + math.ceil(wait) + 1}
    known = picked[2 * TRIAL :]
    if slower < 10:
        assert (slower - 1) * known.count(2) / len(known) <= 1 / 49


def test_all_other_ways_get_their_turn() -> None:
    picked = use(Fastest([4, 2, 1]), {4: 1.0, 2: 2.0, 1: 3.0}, 3 * RARELY)
    assert len(trials(picked, 2)) > 2
    assert len(trials(picked, 1)) > 2


def test_one_way_needs_no_choice() -> None:
    assert use(Fastest([1, 1]), {1: 1.0}, 2 * TRY_AGAIN) == [1] * 2 * TRY_AGAIN
