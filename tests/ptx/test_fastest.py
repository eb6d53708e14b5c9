"""The faster way is used, and a slower one gets another chance."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import pairwise

import pytest

from ptx.fastest import APART, HOPELESS, LAST, RARELY, TRIAL, TRY_AGAIN, WORTH_TRYING, Fastest

FIRST = TRIAL * (1 + APART) + TRIAL // 2
"""Uses of the first trial."""


def use(fastest: Fastest, seconds: dict[int, float], times: int) -> list[int]:
    return use_as(fastest, lambda _, option: seconds[option], times)


def use_as(fastest: Fastest, seconds: Callable[[int, int], float], times: int) -> list[int]:
    """seconds: what the i-th use takes, if it is of an option."""
    picked = []
    for i in range(times):
        picked.append(fastest.pick())
        fastest.note(picked[-1], seconds(i, picked[-1]))
    return picked


def share(picked: list[int], option: int) -> float:
    return picked.count(option) / len(picked)


def test_every_way_is_tried_between_uses_of_another_then_the_fastest_is_used() -> None:
    trial = [*[2] * APART, 1, *[2] * (APART + 1), 1] * (TRIAL // 2)
    assert use(Fastest([2, 1]), {2: 1.0, 1: 1.5}, FIRST + TRY_AGAIN) == trial + [2] * TRY_AGAIN
    assert use(Fastest([2, 1]), {2: 1.5, 1: 1.0}, FIRST + TRY_AGAIN) == trial + [1] * TRY_AGAIN
    for best in (4, 2, 1):
        seconds = {n: 1.0 if n == best else 2.0 for n in (4, 2, 1)}
        assert (
            use(Fastest([4, 2, 1]), seconds, 2 * FIRST + TRY_AGAIN)[-TRY_AGAIN:]
            == [best] * TRY_AGAIN
        )


def test_a_trial_ends_where_it_is_hopeless() -> None:
    picked = use(Fastest([2, 1]), {2: 1.0, 1: 9.0}, 40)
    begun = [*[2] * APART, 1, *[2] * (APART + 1), 1]
    assert picked == begun + [2] * (40 - len(begun))


def test_one_use_that_was_disturbed_does_not_end_a_trial() -> None:
    fastest, tried = Fastest([2, 1]), [40.0]

    def seconds(_: int, option: int) -> float:
        return tried.pop() if option == 1 and tried else {2: 1.5, 1: 1.0}[option]

    assert use_as(fastest, seconds, FIRST + TRY_AGAIN)[-TRY_AGAIN:] == [1] * TRY_AGAIN


def test_fewer_threads_have_to_be_worth_it_once_all_are_known() -> None:
    for slower, most in ((1.15, 2), (1.6, 1)):
        fastest = Fastest([2, 1])
        use(fastest, {2: 1.0, 1: 1.1}, FIRST)
        picked = use(fastest, {2: slower, 1: 1.0}, 4 * RARELY)
        assert share(picked[-RARELY:], most) > 0.8
    fastest = Fastest([2, 1])
    use(fastest, {2: 1.2, 1: 1.0}, FIRST)
    assert share(use(fastest, {2: 0.9, 1: 1.0}, RARELY)[-100:], 2) > 0.8


def test_when_the_machine_gets_busy_the_other_way_is_found_soon() -> None:
    fastest = Fastest([2, 1])
    use(fastest, {2: 1.0, 1: 1.5}, 200)
    picked = use(fastest, {2: 30.0, 1: 1.6}, 100)
    assert picked.count(2) <= LAST + FIRST
    assert share(picked[-80:], 1) > 0.95
    picked = use(fastest, {2: 1.0, 1: 1.5}, 3 * RARELY)
    assert share(picked[-RARELY:], 2) > 0.9


@pytest.mark.parametrize("disturbed", range(20))
def test_one_use_that_was_disturbed_changes_nothing(disturbed: int) -> None:
    def seconds(i: int, option: int) -> float:
        return {2: 1.0, 1: 1.5}[option] * (30 if i == disturbed else 1)

    picked = use_as(Fastest([2, 1]), seconds, 400)
    assert picked.count(1) <= 4 * TRIAL
    assert share(picked[FIRST:], 2) > 0.95


@pytest.mark.parametrize("seed", range(5))
def test_what_disturbs_the_machine_now_and_then_is_shared_by_both(seed: int) -> None:
    """As a page that draws: ten uses of thirty take up to twice as long, and two threads lose more
    by that. They are the better choice all the same."""
    noise = random.Random(seed)

    def seconds(i: int, option: int) -> float:
        drawing = i % 30 < 10
        factor = noise.uniform(1.3, 2) if drawing else 1.0
        return {2: 1.0 * factor, 1: 1.5 * (1.2 if drawing else 1.0)}[option]

    picked = use_as(Fastest([2, 1]), seconds, 2000)
    assert share(picked[200:], 2) > 0.85


@pytest.mark.parametrize("phase", [4, 6, 8, 12, 20])
@pytest.mark.parametrize("even", [True, False])
def test_where_the_machine_changes_between_two_speeds_the_better_way_is_used(
    phase: int, even: bool
) -> None:
    noise = random.Random(phase)
    factors: list[float] = []
    while len(factors) < 4000:
        n = phase if even else noise.randint(1, 2 * phase)
        factors += [1.0 if factors and factors[-1] > 1 else 2.0] * n
    picked = use_as(Fastest([2, 1]), lambda i, n: {2: 1.0, 1: 1.4}[n] * factors[i], 4000)
    assert share(picked, 2) > 0.8


@pytest.mark.parametrize("slower", [1.1, 1.5, 2.0, 5.0, 30.0])
def test_the_more_a_trial_costs_the_longer_it_is_until_the_next(slower: float) -> None:
    picked = use(Fastest([2, 1]), {2: slower, 1: 1.0}, 20 * RARELY)[FIRST:]
    begins = [i for i, (a, b) in enumerate(pairwise(picked)) if a == 1 and b == 2]
    waits = [b - a for a, b in pairwise(begins) if b - a > 2 * APART + 2]
    lost = (2 if slower > HOPELESS else TRIAL) * (slower - 1)
    assert all(wait >= min(RARELY, max(TRY_AGAIN, WORTH_TRYING * lost)) - 1 for wait in waits)
    if slower < 5:
        assert (slower - 1) * share(picked, 2) <= 1 / 40


def test_all_other_ways_get_their_turn() -> None:
    picked = use(Fastest([4, 2, 1]), {4: 1.0, 2: 1.5, 1: 2.0}, 6 * RARELY)
    assert picked.count(2) > 2 * TRIAL
    assert picked.count(1) > 2 * TRIAL
    assert share(picked, 4) > 0.9


def test_one_way_needs_no_choice() -> None:
    assert use(Fastest([1, 1]), {1: 1.0}, 2 * TRY_AGAIN) == [1] * 2 * TRY_AGAIN
