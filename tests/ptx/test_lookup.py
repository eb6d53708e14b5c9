"""Guesses come from the text, and stop where it does not repeat itself."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ptx.lookup import GUESSES, RETRY, WORTH, Lookup


def test_what_followed_the_last_tokens_before_is_guessed() -> None:
    lookup = Lookup()
    assert lookup.guess([1, 2, 3, 4, 5, 6, 7, 1, 2, 3], 9) == [4, 5, 6]
    assert lookup.guess([1, 2, 3, 4, 5, 6, 7, 1, 2, 3, 9, 2, 3], 9) == [9, 2, 3]  # the latest
    assert lookup.guess([1, 2, 3, 4, 5, 6, 7, 1, 2, 3, 9, 2, 3, 8, 8], 9) == []


def test_no_more_is_guessed_than_asked_for_or_known() -> None:
    assert Lookup().guess([1, 2, 3, 4, 5, 1, 2, 3], 1) == [4]
    assert Lookup().guess([1, 2, 1, 2], 9) == [1, 2]


@given(st.lists(st.integers(0, 3), min_size=1, max_size=60), st.integers(1, 20))
def test_growing_bit_by_bit_guesses_as_at_once(ids: list[int], stride: int) -> None:
    growing = Lookup()
    for end in range(1, len(ids), stride):
        growing.guess(ids[:end], GUESSES)
    guessed = Lookup().guess(ids, GUESSES)
    assert growing.guess(ids, GUESSES) == guessed
    if guessed:
        places = [i for i in range(1, len(ids)) if ids[i : i + len(guessed)] == guessed]
        assert any(ids[max(0, p - 2) : p] == ids[-2:] for p in places)


def test_wrong_guesses_end_the_guessing_for_a_while() -> None:
    lookup, ids = Lookup(), [1, 2, 3, 1, 2, 3, 1, 2]
    while lookup.guess(ids, 3):
        lookup.note(3, 0)
    silent = 1
    while not lookup.guess(ids, 3):
        silent += 1
    assert silent == RETRY - 1
    lookup.note(3, 3)
    assert lookup.past[0] > WORTH
    assert lookup.guess(ids, 3)
