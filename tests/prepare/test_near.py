"""Near duplicates against the exact Jaccard similarity."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prepare import near


def runs(tokens: np.ndarray) -> set[tuple[int, ...]]:
    width = min(near.RUN, len(tokens))
    return {tuple(tokens[i : i + width].tolist()) for i in range(len(tokens) - width + 1)}


def jaccard(a: np.ndarray, b: np.ndarray) -> float:
    return len(runs(a) & runs(b)) / len(runs(a) | runs(b))


def changed(tokens: np.ndarray, count: int, draw: random.Random) -> np.ndarray:
    """The same with some tokens replaced."""
    tokens = tokens.copy()
    for position in draw.sample(range(len(tokens)), count):
        tokens[position] = draw.randrange(16_384)
    return tokens


def documents(seed: int, sizes: list[int]) -> list[np.ndarray]:
    numbers = np.random.default_rng(seed)
    return [numbers.integers(16_384, size=size).astype(np.uint32) for size in sizes]


def twins_of(members: list[np.ndarray]) -> list[int]:
    signed = near.signatures(members)
    bands = near.bands(signed)
    return near.twins(len(members), bands.__getitem__, signed.__getitem__).tolist()


def test_the_estimate_is_the_exact_similarity() -> None:
    draw = random.Random(0)
    for original in documents(1, [1_000] * 5):
        for count in (0, 10, 40, 200):
            other = changed(original, count, draw)
            estimate = near.similarity(*near.signatures([original, other]))
            assert estimate == pytest.approx(jaccard(original, other), abs=0.15)


def test_similar_documents_are_found_and_others_stay() -> None:
    draw = random.Random(0)
    for original in documents(2, [1_000] * 30):
        close, far = changed(original, 10, draw), changed(original, 120, draw)
        assert jaccard(original, close) > 0.85
        assert jaccard(original, far) < 0.5
        assert twins_of([original, close, far]) == [0, 0, 2]


def test_one_of_a_cluster_is_kept_the_first() -> None:
    draw = random.Random(0)
    a, b = documents(3, [500, 500])
    members = [b, a, changed(a, 4, draw), changed(b, 4, draw), changed(a, 5, draw)]
    assert twins_of(members) == [0, 1, 1, 0, 1]


def test_documents_shorter_than_a_run_are_compared_whole() -> None:
    short = [np.array(ids, dtype=np.uint32) for ids in ([1], [1], [2], [1, 2], [2, 1], [1, 2])]
    assert twins_of(short) == [0, 0, 2, 3, 4, 3]


def test_nothing_at_all_is_no_twin_of_anything() -> None:
    assert twins_of([]) == []


@given(st.integers(0, 5), st.lists(st.integers(1, 30), min_size=1, max_size=8))
def test_signatures_do_not_depend_on_who_is_beside(seed: int, sizes: list[int]) -> None:
    members = documents(seed, sizes)
    together = near.signatures(members)
    alone = np.concatenate([near.signatures([member]) for member in members])
    np.testing.assert_array_equal(together, alone)


def test_signatures_are_the_same_everywhere() -> None:
    """Recorded: signatures of one run must compare with those of another version's."""
    [signature] = near.signatures([np.arange(100, dtype=np.uint32)])
    assert signature[:4].tolist() == [315808879, 464089457, 3223943391, 420664625]


def test_a_large_group_of_copies_costs_no_more_than_its_size() -> None:
    [original] = documents(4, [50])
    hashes = np.zeros(2_000, dtype=np.uint64)
    pairs = sum(len(first) for first, _ in near.candidates(hashes))
    assert pairs < 2 * len(hashes)
    assert twins_of([original] * 200) == [0] * 200
