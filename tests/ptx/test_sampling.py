"""The next-token distribution against transformers' logits processors, over the vocabulary."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    PrefixConstrainedLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    SuppressTokensLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from ptx import draws
from ptx.errors import UserError
from ptx.sampling import KNOBS, Choice, Sampling, at, distribution, drawn, shares

PY16K, O200K = 16_384, 200_019
IDS = [5, 9, 9, 100, 7_000]


def theirs(logits: torch.Tensor, s: Sampling) -> torch.Tensor:
    """Probabilities by transformers' processors in the order of its `generate`."""
    processors = LogitsProcessorList()
    if s.repetition_penalty != 1.0:
        processors.append(RepetitionPenaltyLogitsProcessor(s.repetition_penalty))
    if s.forced:
        processors.append(PrefixConstrainedLogitsProcessor(lambda *_: list(s.forced), 1))
    if s.banned:
        processors.append(SuppressTokensLogitsProcessor(list(s.banned)))
    processors.append(TemperatureLogitsWarper(s.temperature))
    if s.top_k:
        processors.append(TopKLogitsWarper(s.top_k))
    if s.top_p < 1.0:
        processors.append(TopPLogitsWarper(s.top_p))
    if s.min_p:
        processors.append(MinPLogitsWarper(s.min_p))
    return processors(torch.tensor([IDS]), logits[None].clone())[0].softmax(-1)


def assert_equal(ours: torch.Tensor, expected: torch.Tensor) -> None:
    """Equal over the vocabulary. Where rounding decides on which side of an edge a token falls,
    it may fall on either: then all others are compared."""
    same = (ours > 0) == (expected > 0)
    assert (~same).sum() <= 1
    ours, expected = (p * same / (p * same).sum() for p in (ours, expected))
    torch.testing.assert_close(ours, expected, atol=1e-6, rtol=1e-5)


def some_logits(n_vocab: int, scale: float, seed: int = 0) -> torch.Tensor:
    return torch.randn(n_vocab, generator=torch.Generator().manual_seed(seed)) * scale


@pytest.mark.parametrize("n_vocab", [PY16K, O200K])
@pytest.mark.parametrize("scale", [0.3, 3.0])  # flat: the likely ones do not reach top-p
@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(0.3),
        Sampling(1.7, top_k=1),
        Sampling(1.0, top_k=40),
        Sampling(1.0, top_p=0.1),
        Sampling(0.8, top_p=0.95),
        Sampling(1.3, top_k=200, top_p=0.9),
        Sampling(1.0, min_p=0.05),
        Sampling(0.9, top_k=500, top_p=0.99, min_p=0.02),
        Sampling(1.0, repetition_penalty=1.3),
        Sampling(1.0, repetition_penalty=0.7, top_k=20),
        Sampling(1.0, banned=(3, 9), top_p=0.9),
        Sampling(1.0, forced=(3, 9, 11), min_p=0.2),
        Sampling(0.7, 50, 0.8, 0.01, 1.2, banned=(9, 8), forced=tuple(range(4_000))),
    ],
    ids=repr,
)
def test_the_distribution_equals_transformers(
    n_vocab: int, scale: float, sampling: Sampling
) -> None:
    logits = some_logits(n_vocab, scale)
    assert_equal(distribution(logits, sampling, IDS), theirs(logits, sampling))


ANY_KNOBS = st.builds(
    Sampling,
    temperature=st.floats(0.05, 5),
    top_k=st.integers(0, 40),
    top_p=st.floats(0.01, 1),
    min_p=st.floats(0, 1),
    repetition_penalty=st.floats(0.2, 5),
    banned=st.lists(st.integers(0, 9), max_size=3).map(tuple),
    forced=st.lists(st.integers(10, 63), max_size=3).map(tuple),
)


@given(ANY_KNOBS, st.integers(0, 2**32 - 1))
def test_any_knobs_equal_transformers(sampling: Sampling, seed: int) -> None:
    logits = torch.cat([some_logits(64, 2.0, seed), torch.full((7_000,), -50.0)])
    assert_equal(distribution(logits, sampling, IDS), theirs(logits, sampling))


@pytest.mark.parametrize("compiled", [False, True])
@given(ANY_KNOBS, st.integers(0, 2**32 - 1), st.floats(0, 1, exclude_max=True))
def test_what_is_drawn_is_where_the_distribution_passes_the_share(
    compiled: bool, sampling: Sampling, seed: int, share: float
) -> None:
    logits = torch.cat([some_logits(64, 2.0, seed), torch.full((7_000,), -50.0)])
    [(token, logprob)] = drawn(logits[None], sampling, [share], IDS, compiled=compiled)
    probs = distribution(logits, sampling, IDS).double()
    assert math.exp(logprob) == pytest.approx(float(probs[token]), rel=1e-3)
    until = float(probs[: token + 1].sum())
    assert until - float(probs[token]) - 1e-5 <= share * float(probs.sum()) <= until + 1e-5


def test_rows_of_a_batch_are_worked_out_alone() -> None:
    logits = torch.stack([some_logits(1000, 0.1), some_logits(1000, 5.0, seed=1)])
    sampling = Sampling(0.8, top_k=700, top_p=0.9, min_p=0.01)
    each = torch.stack([distribution(row, sampling) for row in logits])
    torch.testing.assert_close(distribution(logits, sampling), each)


@pytest.mark.parametrize("top_p", [1e-9, 0.5, 1 - 1e-9])
def test_top_p_keeps_what_is_exactly_as_likely(top_p: float) -> None:
    probs = distribution(torch.zeros(2, 1000), Sampling(1.0, top_p=top_p))
    assert torch.equal(probs, torch.full((2, 1000), 1e-3))


def test_temperature_zero_takes_the_most_likely_token() -> None:
    probs = distribution(torch.tensor([0.1, 2.0, 1.9]), Sampling(temperature=0.0))
    assert probs.tolist() == [0.0, 1.0, 0.0]
    probs = distribution(torch.tensor([0.1, 2.0, 1.9]), Sampling(0.0, banned=(1,)))
    assert probs.tolist() == [0.0, 0.0, 1.0]


def test_a_tiny_temperature_is_almost_zero() -> None:
    for temperature in (1e-20, 1e-39, 1e-60, 1e-300):
        probs = distribution(torch.tensor([0.1, 2.0, 1.9]), Sampling(temperature))
        assert probs.tolist() == [0.0, 1.0, 0.0]


def test_ten_thousand_draws_follow_the_distribution() -> None:
    probs = distribution(some_logits(50, 1.5), Sampling(1.2, top_k=20))
    tokens = [at(probs, share) for share in islice(shares(1), 10_000)]
    counts = torch.bincount(torch.tensor(tokens), minlength=50)
    possible = probs > 0
    assert counts[~possible].sum() == 0
    expected = probs[possible].double()
    expected *= 10_000 / expected.sum()
    chi_square = ((counts[possible] - expected) ** 2 / expected).sum()
    freedom = torch.tensor(len(expected) - 1, dtype=torch.float64)
    assert torch.special.gammaincc(freedom / 2, chi_square / 2) > 1e-3  # its p-value


def test_the_seed_alone_decides_the_draws() -> None:
    probs, other = some_logits(50, 1.0).softmax(-1), some_logits(60, 1.0).softmax(-1)
    a, b, others = shares(7), shares(7), shares(0)
    alone = [at(probs, next(a)) for _ in range(100)]
    among = []
    for _ in range(100):
        at(other, next(others))
        among.append(at(probs, next(b)))
    assert alone == among
    one_by_one = torch.Generator().manual_seed(7)
    numbers = [float(torch.rand((), generator=one_by_one, dtype=torch.float64)) for _ in range(200)]
    assert numbers == list(islice(shares(7), 200))


def test_no_share_draws_a_token_without_probability() -> None:
    probs = torch.tensor([0.0, 0.5, 0.0, 0.5, 0.0])
    assert [at(probs, share) for share in (0.0, 0.49, 0.5, math.nextafter(1, 0))] == [1, 1, 3, 3]
    assert at(torch.tensor([0.0, 1e-30, 0.0]), 0.999) == 1


@settings(max_examples=20)
@given(ANY_KNOBS, st.sampled_from([0.5, 4.0]), st.integers(0, 2**32 - 1))
@pytest.mark.parametrize("n_vocab", [16_384, 200_019])
def test_compiled_draws_are_those_of_the_distribution_over_whole_vocabularies(
    n_vocab: int, sampling: Sampling, spread: float, seed: int
) -> None:
    """py16k's and o200k_base's, where the knobs keep many tokens or few."""
    logits, shares = some_logits(n_vocab, spread, seed), torch.linspace(0, 0.99, 8).tolist()
    probs = distribution(logits, sampling, IDS).double()
    until = probs.cumsum(0) / probs.sum()
    found = drawn(logits.expand(8, -1), sampling, shares, IDS, compiled=True)
    for (token, logprob), share in zip(found, shares, strict=True):
        assert math.exp(logprob) == pytest.approx(float(probs[token]), rel=1e-3)
        assert until[token] - probs[token] - 1e-4 <= share <= until[token] + 1e-4


def test_a_compiled_draw_loses_no_small_probabilities() -> None:
    """Summed in fp32, 200,019 of them are 2e-5 off: more than such a top-p cuts."""
    logits, top_p = some_logits(200_019, 4.0), 1 - 1e-6
    exact = logits.double().softmax(-1)
    ascending, order = exact.sort()
    goes = order[ascending.cumsum(0) <= 1 - top_p]
    kept = np.empty(len(logits), np.int32)
    weights, some = np.empty((2, len(logits)), np.float32)
    total = draws._weigh(logits.numpy(), np.float32(1), weights)
    n, least = draws._cut(weights, total, 0, top_p, np.float32(0), some, kept)
    stays = torch.ones(len(logits), dtype=torch.bool)
    stays[goes] = False
    found = torch.zeros_like(stays)
    found[torch.from_numpy(kept[:n][weights[kept[:n]] >= least]).long()] = True
    assert float(exact[stays != found].sum()) < 1e-8
    choice = Choice(logits, Sampling(), compiled=True)
    for token in (0, 777, 200_018, int(logits.argmax())):
        assert choice.logprob(token) == pytest.approx(math.log(float(exact[token])), abs=1e-5)
    with pytest.raises(IndexError, match="token 200019 is not in"):
        choice.logprob(200_019)


def test_a_top_k_beyond_any_vocabulary_keeps_all() -> None:
    logits, sampling = some_logits(1000, 1.0)[None], Sampling(1.0, top_k=10**20)
    assert drawn(logits, sampling, [0.5], compiled=True) == drawn(
        logits, Sampling(1.0), [0.5], compiled=True
    )


@pytest.mark.parametrize("compiled", [False, True])
def test_what_has_no_probability_is_never_drawn(compiled: bool) -> None:
    logits = torch.tensor([[-torch.inf, 0.0, -torch.inf, 0.0, -torch.inf]] * 4)
    shares = [0.0, 0.49, 0.5, math.nextafter(1, 0)]
    found = drawn(logits, Sampling(1.0), shares, compiled=compiled)
    assert [token for token, _ in found] == [1, 1, 3, 3]
    assert [logprob for _, logprob in found] == pytest.approx([-math.log(2)] * 4)
    tied = drawn(torch.zeros(4, 5), Sampling(1.0, top_k=1, min_p=1.0), shares, compiled=compiled)
    assert [token for token, _ in tied] == [0, 2, 2, 4]


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("damage", [[torch.nan], [torch.inf], [-torch.inf] * 3])
def test_logits_that_are_no_numbers_are_refused(damage: list[float], compiled: bool) -> None:
    logits = torch.zeros(2, 3)
    logits[1, : len(damage)] = torch.tensor(damage)
    for sampling in (Sampling(0.0), Sampling(0.5), Sampling(0.5, 2, top_p=0.9, min_p=0.1)):
        with pytest.raises(UserError, match="no numbers"):
            drawn(logits, sampling, [0.5, 0.5], compiled=compiled)


def test_a_choice_tells_which_knob_removed_what() -> None:
    logits = torch.tensor([5.0, 4.0, 3.0, 2.0, 1.0, 0.0, -9.0])
    sampling = Sampling(1.0, top_k=4, top_p=0.93, min_p=0.2, banned=(6,), forced=(0, 1, 2, 3, 4, 6))
    choice = Choice(logits, sampling)
    assert [choice.cut_by(t) for t in range(7)] == [
        None, None, "min_p", "top_p", "top_k", "forced", "banned",
    ]  # fmt: skip
    assert set(choice.cut.tolist()) <= set(range(len(KNOBS) + 1))
    assert torch.equal(choice.final > 0, choice.cut == 0)
    assert choice.tail_mass == pytest.approx(float(choice.raw[2:].sum()), abs=1e-6)
    refusing = Choice(logits, sampling, dead=(0,))
    assert [refusing.cut_by(t) for t in range(3)] == ["python", None, None]
    assert torch.equal(refusing.final, distribution(logits, sampling, dead=(0,)))
    greedy = Choice(logits, Sampling(0.0))
    assert [greedy.cut_by(t) for t in range(3)] == [None, "temperature", "temperature"]


def test_a_choice_shows_the_distribution_before_and_after() -> None:
    logits = torch.tensor([0.0, 3.0, 1.0, 2.0])
    choice = Choice(logits, Sampling(1.0, top_k=2))
    torch.testing.assert_close(choice.raw, logits.softmax(-1))
    assert [a.token for a in choice.top(3)] == [1, 3, 2]
    assert [a.cut_by for a in choice.top(3)] == [None, None, "top_k"]
    assert [choice.rank(t) for t in range(4)] == [4, 1, 3, 2]
    for one in (choice, replace(choice, compiled=True)):
        assert one.logprob(3) == pytest.approx(math.log(float(choice.raw[3])), abs=1e-6)
    uniform = Choice(torch.zeros(8), Sampling(1.0, banned=(0, 1, 2, 3)))
    assert (uniform.entropy, uniform.final_entropy) == pytest.approx((3.0, 2.0))


@pytest.mark.parametrize(
    ("knob", "values"),
    [("temperature", (-1.0, float("nan"), 101.0)), ("top_k", (-1, 2.0)), ("top_p", (0.0, 1.1)),
     ("min_p", (-0.1, 1.1, float("nan"))),
     ("repetition_penalty", (0.0, 1e-300, -1.0, float("nan"))),
     ("python", (1, "x", None))],
)  # fmt: skip
def test_knobs_out_of_range_are_refused_by_name(knob: str, values: tuple[float, ...]) -> None:
    for value in values:
        with pytest.raises(UserError, match=knob.replace("_", ".")):
            replace(Sampling(), **{knob: value})


def test_impossible_sets_of_tokens_are_refused() -> None:
    with pytest.raises(UserError, match="every forced token is banned"):
        Sampling(forced=(1, 2), banned=(2, 1, 3))
    with pytest.raises(UserError, match="banned token 16384 is not in 0 to 16383"):
        Sampling(banned=(16_384,)).check(16_384)
    with pytest.raises(UserError, match="forced token -1"):
        Sampling(forced=(-1,)).check(16_384)
    with pytest.raises(UserError, match="every token is banned"):
        Sampling(banned=(0, 1)).check(2)
