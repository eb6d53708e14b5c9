"""A text that goes on by itself for several steps is the text that Python asks for one by one."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from itertools import chain, pairwise

import numpy as np
import pytest
import torch
from numba import njit

from ptx import lookup
from ptx.batch import Batch
from ptx.config import PRESETS
from ptx.decoder import STEPS, Decoder, Going
from ptx.fastest import Fastest
from ptx.lookup import GUESSES
from ptx.model import GPT
from ptx.sampling import Sampling
from ptx.stream import Limits, Step, Stream
from ptx.team import Helpers
from ptx.tokenizer import Tokenizer

REPEATS = "self.width = width\nself.height = height\nself.depth = depth\nself.width"


def with_threads(model: GPT, n: int) -> Decoder:
    """One that takes n threads, and as many steps as it may, however long they take."""
    decoder = Decoder(model, native=True)
    assert decoder._native
    decoder._native._helpers = Helpers(n - 1)
    decoder._native._threads = defaultdict(lambda: Fastest([n]))
    decoder._native.steps_onward = lambda: STEPS  # type: ignore[method-assign]
    return decoder


def written(batch: Batch, stream: Stream) -> list[list[Step]]:
    """The steps of a text, as they came together."""
    batch.join(stream)
    came = []
    while batch.streams:
        came += [steps for _, steps in batch.step()]
    return came


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("speculate", [True, False], ids=["guesses", "no guesses"])
@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(0.0),
        Sampling(0.6, top_p=0.95),
        Sampling(1.0, top_k=30, min_p=0.02),
        Sampling(1.0, banned=(300, 9, 300)),
        Sampling(0.0, banned=(7, 8)),
        Sampling(1.0, top_k=10**30),
    ],
    ids=str,
)
def test_it_is_the_text_of_single_steps(
    model: GPT,
    py16k: Tokenizer,
    sampling: Sampling,
    speculate: bool,
    threads: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Three contexts long: bit for bit the same, with the same random numbers."""
    context, decoder = model.config.context, with_threads(model, threads)
    ids = [py16k.eot, *py16k.encode(REPEATS)]

    def text(limits: Limits) -> tuple[Stream, list[list[Step]]]:
        stream = Stream(py16k, context, ids, sampling, limits, 5, True, speculate)
        return stream, written(Batch(decoder), stream)

    for limits in (Limits(3 * context), Limits(1), Limits(2), Limits(200, stop=("s", "e"))):
        monkeypatch.undo()
        stream, several = text(limits)
        monkeypatch.setattr(Batch, "_alone", lambda _: None)
        other, single = text(limits)
        assert (stream.ids, stream.finish) == (other.ids, other.finish)
        assert limits.stop or stream.share() == other.share()
        steps, expected = list(chain(*several)), list(chain(*single))
        if len(steps) > STEPS + 1:
            assert len(several) < len(steps) / 2
        for a, b in zip(steps, expected, strict=True):
            assert (a.token, a.text, a.choice.sampling) == (b.token, b.text, sampling)
            assert a.logprob == b.logprob
            assert np.array_equal(a.choice.given, b.choice.given)
            assert np.array_equal(a.weights, b.weights)


def test_a_limit_in_tokens_is_kept_and_no_more_is_read(model: GPT, py16k: Tokenizer) -> None:
    decoder, ids = with_threads(model, 1), [py16k.eot, *range(300, 310)]
    for n in (1, 2, 3, STEPS + GUESSES, 40):
        batch = Batch(decoder)
        stream = Stream(py16k, model.config.context, ids, Sampling(0.0), Limits(n))
        assert len(list(chain(*written(batch, stream)))) == n
        [held] = decoder.free.values()
        assert held == stream.ids[: len(held)]
        assert len(held) == len(stream.ids) - 1


def going(ids: list[int], n: int, eot: int = -1) -> Going:
    return Going(ids, 0, np.zeros(2), Sampling(0.0), eot, [0.5] * n)


def test_logits_that_are_no_numbers_end_it_after_what_came_before() -> None:
    torch.manual_seed(0)
    config = replace(PRESETS["nano"], vocab_size=203, context=24, n_layer=1, tied_head=False)
    model = GPT(replace(config, init="gpt2")).eval()
    whole = Decoder(model, native=True).go_on(0, 0, going([5], 3)).tokens
    broken = next(token for token in whole[:2] if token != 5)
    with torch.no_grad():
        model.tok_emb.weight[broken] = torch.nan
    drawn = with_threads(model, 1).go_on(0, 0, going([5], 3))
    assert drawn.tokens == whole[: whole.index(broken) + 1]
    assert len(drawn.logits) == len(drawn.tokens)
    assert np.isfinite(drawn.logits).all()
    assert with_threads(model, 1).go_on(0, 0, going([broken], 3)).tokens == []


def test_after_end_of_text_nothing_comes(model: GPT) -> None:
    whole = with_threads(model, 1).go_on(0, 0, going([5], STEPS)).tokens
    assert len(whole) == STEPS
    short = with_threads(model, 1).go_on(0, 0, going([5], STEPS, eot=whole[1])).tokens
    assert short == whole[: whole.index(whole[1]) + 1]


def test_a_thread_that_comes_late_disturbs_nothing(model: GPT) -> None:
    """It finds every piece of every step taken."""
    decoder = with_threads(model, 2)
    expected = decoder.go_on(0, 0, going([5], 4))

    class Late(Helpers):
        def run(self, function, team, *arguments):
            function(*arguments, team[0])
            before = [part.copy() for part in (*decoder._native._cache, arguments[4])]
            function(*arguments, team[1])
            after = (*decoder._native._cache, arguments[4])
            assert all(map(np.array_equal, before, after))

    decoder._native._helpers = Late(0)
    drawn = decoder.go_on(0, 0, going([5], 4))
    assert drawn.tokens == expected.tokens
    assert np.array_equal(drawn.logits, expected.logits)


def test_guesses_are_found_compiled_as_in_python() -> None:
    compiled, random = njit(lookup.found), np.random.default_rng(0)
    for n in (1, 2, 3, 4, 5, 20, 700):
        for vocabulary in (1, 2, 4, 30):
            text = random.integers(0, vocabulary, n)
            assert compiled(text, n) == lookup.found(text.tolist(), n)


def test_so_many_steps_are_taken_as_come_soon(model: GPT, monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = Decoder(model, native=True)
    assert decoder._native
    for seconds, steps in ((1e-4, STEPS), (0.003, 2), (0.005, 1), (1.0, 1)):
        decoder._native._step_seconds = seconds
        assert decoder.steps_onward == steps
    assert Decoder(model, native=False).steps_onward == 0


def test_a_text_in_company_goes_on_step_by_step(model: GPT, py16k: Tokenizer) -> None:
    """And by itself again once it is alone."""
    decoder = Decoder(model, 2, native=True)
    decoder._native.steps_onward = lambda: STEPS
    batch = Batch(decoder)
    for n in (3, 40):
        ids = [py16k.eot, *range(300, 310)]
        batch.join(
            Stream(py16k, model.config.context, ids, Sampling(0.0), Limits(n), n, False, False)
        )
    counts = []
    while batch.streams:
        counts.append([len(steps) for _, steps in batch.step()])
    assert counts[:3] == [[1, 1]] * 3
    assert all(len(a) >= len(b) for a, b in pairwise(counts))
    assert max(counts[3:])[0] > 1
