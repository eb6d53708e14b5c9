"""Generation: exact, reproducible, bounded; many texts at once change nothing in any of them."""

from __future__ import annotations

import copy
import gc
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    rule,
)
from torch.utils._python_dispatch import TorchDispatchMode

from ptx import sampling as ptx_sampling
from ptx.batch import Batch, _picked
from ptx.config import PRESETS
from ptx.decoder import AT_ONCE, Decoder, Row
from ptx.engine import AHEAD, Busy, Engine, Generation, generate
from ptx.errors import UserError
from ptx.model import GPT
from ptx.sampling import Sampling, drawn
from ptx.stream import Limits, Stream, visible_from
from ptx.tokenizer import Tokenizer, get_tokenizer

GREEDY = Sampling(temperature=0.0)
REPEATS = "self.width = width\nself.height = height\nself.depth = depth\nself.width"


def run(model: GPT, tokenizer: Tokenizer, prompt: str, *args: object, **options: bool) -> str:
    return "".join(step.text for step in generate(model, tokenizer, prompt, *args, **options))


@pytest.fixture(scope="module", params=[True, False], ids=["compiled", "torch"])
def decoder(request: pytest.FixtureRequest, model: GPT) -> Decoder:
    return Decoder(model, 4, native=request.param)


@torch.no_grad()
def test_cached_logits_equal_uncached_ones_at_every_position_of_three_contexts(
    model: GPT, py16k: Tokenizer, decoder: Decoder
) -> None:
    context = model.config.context
    limits = Limits(3 * context)
    generation = generate(model, py16k, "def f(x):\n    return x", GREEDY, limits, decoder=decoder)
    checked = 0
    for step in generation:
        before = generation.ids[:-1]
        window = before[visible_from(len(before), context) :]
        if checked:  # the first one weighs the ways of tokenizing the prompt's end
            expected = model(torch.tensor([window]))[0, -1]
            torch.testing.assert_close(step.choice.logits, expected, atol=1e-4, rtol=1e-4)
        checked += 1
    assert checked == 3 * context


def test_a_draw_that_fails_ends_its_own_text_alone(py16k: Tokenizer) -> None:
    """Of texts whose tokens are drawn together."""
    sampling = Sampling(1.0, forced=(5, 6))
    good, bad, alone = (Stream(py16k, 64, [py16k.eot], sampling, seed=3) for _ in range(3))
    logits = torch.zeros(2, py16k.n_vocab)
    logits[1, [5, 6]] = -torch.inf
    for compiled in (False, True):
        picked = _picked([(good, []), (bad, [])], logits, compiled)
        assert list(picked) == [good]
        assert picked[good] == drawn(logits[:1], sampling, [alone.share()], compiled=compiled)[0]
        with pytest.raises(UserError, match="no numbers"):
            bad.take([], logits[1:], compiled=compiled)


def test_a_text_cancelled_before_its_first_step_keeps_its_prompt(
    model: GPT, py16k: Tokenizer
) -> None:
    """Also where the engine is further than its reader."""
    prompt = "import os\n\ndef fibona"
    with Engine(model, py16k) as engine:
        for pause in (0.0, 0.001, 0.01, 0.1):
            generation = engine.generate(prompt, limits=Limits(50))
            time.sleep(pause)
            generation.cancel()
            assert list(generation) == []
            assert py16k.decode(generation.ids).decode() == prompt
            assert generation.n_prompt == len(generation.ids)
            assert generation.finish == "cancelled"  # also where it has been written by then


def test_a_text_that_is_written_before_its_reader_looks_is_read_once(
    model: GPT, py16k: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = Generation.__init__

    def late(self: Generation, *args: Any) -> None:
        time.sleep(0.1)
        begun(self, *args)

    monkeypatch.setattr(Generation, "__init__", late)
    with Engine(model, py16k) as engine:
        generation = engine.generate("def fibona", limits=Limits(5))
        new = b"".join(step.bytes for step in generation)
    assert py16k.decode(generation.ids) == b"def fibona" + new


def test_a_cancelled_text_gives_its_slot_back(model: GPT, py16k: Tokenizer) -> None:
    decoder = Decoder(model)
    first = generate(model, py16k, "def f(", decoder=decoder)
    next(first)
    first.cancel()
    assert list(first) == []
    assert list(generate(model, py16k, "def f(", None, Limits(3), decoder=decoder))


def test_the_same_seed_gives_the_same_text_and_another_seed_another(
    model: GPT, py16k: Tokenizer
) -> None:
    def text(seed: int) -> str:
        return run(model, py16k, "import os", None, None, seed)

    assert text(3) == text(3)
    assert text(3) != text(4)


@pytest.mark.parametrize("prompt", ["", "def f(n):", "x = fo", "    ret", "s = 'é", "# ====", "\n"])
def test_the_text_continues_the_prompt_exactly_wherever_it_ends(
    model: GPT, py16k: Tokenizer, prompt: str
) -> None:
    generation = generate(model, py16k, prompt, limits=Limits(30), seed=1)
    new = b"".join(step.bytes for step in generation)
    assert py16k.decode(generation.ids) == prompt.encode() + new


@pytest.mark.parametrize("new", [1, 30, 99])
def test_a_text_given_as_ids_goes_on_as_it_did(model: GPT, py16k: Tokenizer, new: int) -> None:
    first = generate(model, py16k, "def f(", GREEDY, Limits(100))
    logits = [step.choice.logits for step in first]
    again = generate(model, py16k, first.ids[:-new], GREEDY, Limits(new))
    for step, expected in zip(again, logits[-new:], strict=True):
        torch.testing.assert_close(step.choice.logits, expected, atol=1e-4, rtol=1e-4)
        assert step.settled == ()
    assert again.ids == first.ids
    assert again.n_prompt == len(first.ids) - new


def test_ids_are_not_tokenized_anew(model: GPT, py16k: Tokenizer) -> None:
    letters = [py16k.eot, *(py16k.encode(c)[0] for c in "return")]
    generation = generate(model, py16k, letters, limits=Limits(3))
    steps = list(generation)
    assert generation.ids == [*letters, *(step.token for step in steps)]
    # The very distribution of the model, not one over what a longer token could be.
    expected = model(torch.tensor([letters]))[0, -1]
    torch.testing.assert_close(steps[0].choice.logits, expected, atol=1e-4, rtol=1e-4)


def test_streamed_text_is_the_decoded_bytes_though_characters_span_tokens(
    model: GPT, py16k: Tokenizer
) -> None:
    steps = list(generate(model, py16k, "x", Sampling(temperature=3.0), Limits(200), seed=5))
    assert "".join(s.text for s in steps) == b"".join(s.bytes for s in steps).decode(
        "utf-8", "replace"
    )


@pytest.mark.parametrize("prompt", ["🐍 = 1", "Il était une fois", "\ud800", "x" * 20_000])
def test_unusual_prompts_are_continued(model: GPT, py16k: Tokenizer, prompt: str) -> None:
    assert list(generate(model, py16k, prompt, limits=Limits(2)))


def test_attention_rows_come_with_the_steps_that_ask_for_them(
    model: GPT, py16k: Tokenizer, decoder: Decoder
) -> None:
    generation = generate(
        model, py16k, "def f(x):", limits=Limits(70), decoder=decoder, attention=True
    )
    for step in generation:
        L, H, S = step.attention.shape
        assert (model.config.n_layer, model.config.n_head) == (L, H)
        before = len(generation.ids) - 1
        assert before - visible_from(before, model.config.context) == S
        torch.testing.assert_close(step.attention.sum(-1), torch.ones(L, H))


class Counting(TorchDispatchMode):
    """How many operations torch is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[str] = []

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        self.operations.append(str(function))
        return function(*args, **(kwargs or {}))


def test_a_compiled_step_asks_torch_for_nothing(model: GPT, py16k: Tokenizer) -> None:
    """Each tensor that is made or dropped gives up Python's lock, which other threads then take."""
    prompt = [py16k.eot, *py16k.encode("import os\n\n")]
    decoder, sampling = Decoder(model, native=True), Sampling(0.6, top_p=0.95)
    steps = generate(model, py16k, prompt, sampling, Limits(60), decoder=decoder, attention=True)
    next(steps)  # random numbers are made for many draws at a time
    with Counting() as counting:
        rest = list(steps)
        assert (len(rest), counting.operations) == (59, [])
        assert rest[-1].choice.logits.shape == (py16k.n_vocab,)
        float(rest[-1].choice.entropy)
    assert counting.operations


@pytest.mark.parametrize(
    ("open_end", "sampling"),
    [
        (False, Sampling(0.0, banned=(9,))),
        (False, Sampling(1.0, forced=(5, 6))),
        (False, Sampling(1.0, repetition_penalty=1.2)),
        (False, Sampling(1.0, python=True)),
        (True, Sampling(1.0)),
    ],
    ids=["banned", "forced", "penalty", "python", "open end"],
)
def test_what_torch_is_asked_for_wakes_none_of_its_threads(
    model: GPT,
    py16k: Tokenizer,
    open_end: bool,
    sampling: Sampling,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They would spin for a while, in the way of the next step's."""
    found: list[int] = []

    def allowed(*given: Any) -> Any:
        found.append(torch.get_num_threads())
        return real(*given)

    real = ptx_sampling._allowed
    monkeypatch.setattr(ptx_sampling, "_allowed", allowed)
    prompt = "x = fibona" if open_end else [py16k.eot, *py16k.encode("x = (1")]
    batch = Batch(Decoder(model, 2, native=True))
    for seed in range(2):
        batch.join(Stream(py16k, model.config.context, prompt, sampling, Limits(4), seed))
    usual = torch.get_num_threads()
    try:
        while batch.streams:
            torch.set_num_threads(3)
            batch.step()
    finally:
        torch.set_num_threads(usual)
    assert set(found) == {1}


@pytest.mark.parametrize("native", [True, False], ids=["compiled", "torch"])
def test_a_step_that_is_kept_keeps_nothing_of_other_texts(
    model: GPT, py16k: Tokenizer, native: bool
) -> None:
    def kept(array: np.ndarray) -> int:
        while isinstance(array.base, np.ndarray):
            array = array.base
        base = array.base  # of torch's
        return base.untyped_storage().nbytes() if isinstance(base, torch.Tensor) else array.nbytes

    batch = Batch(Decoder(model, 3, native=native))
    for prompt in ([py16k.eot], [py16k.eot, 5, 6, 7], [py16k.eot, 9]):
        batch.join(Stream(py16k, model.config.context, prompt, attention=True, speculate=False))
    for _, [step] in batch.step():
        assert kept(step.choice.given) == step.choice.given.nbytes
        assert kept(step.weights) == step.weights.nbytes


def test_guessing_ahead_changes_no_token(model: GPT, py16k: Tokenizer) -> None:
    decoder = Decoder(model, native=True)
    lengths: list[int] = []
    step = decoder.step

    def counted(rows: list[Row], attention: bool, unasked: int) -> Any:
        lengths.append(len(rows) - unasked)
        return step(rows, attention, unasked)

    decoder.step = counted  # type: ignore[method-assign,assignment]
    for seed in range(5):
        few = Sampling(1.0, forced=(300, 301, 302))  # so that the text repeats itself
        options = (REPEATS, few, Limits(80), seed, decoder)
        plain = [s.token for s in generate(model, py16k, *options, speculate=False)]
        lengths.clear()
        guessed = [s.token for s in generate(model, py16k, *options, speculate=True)]
        assert guessed == plain
        assert max(lengths[4:]) > 1, "nothing was guessed"  # the first ones weigh the prompt's end


def test_a_cancelled_text_ends_at_once(model: GPT, py16k: Tokenizer) -> None:
    generation = generate(model, py16k, "x = 1", limits=Limits(50))
    for i, _ in enumerate(generation):
        if i == 2:
            generation.cancel()
    assert i == 2
    assert generation.finish == "cancelled"
    assert list(generation) == []


# --- many at once


PROMPTS = ["def f(", "", "class A:\n    def __init__(self", REPEATS, "import os\n" * 30]


def alone(model: GPT, tokenizer: Tokenizer, number: int) -> list[int]:
    """The tokens of text `number`, written with nobody else there."""
    generation = generate(model, tokenizer, *request(number), decoder=Decoder(model, native=True))
    for _ in generation:
        pass
    return generation.ids


def request(number: int) -> tuple[str, Sampling, Limits, int]:
    """Different texts: prompt, knobs, length and seed."""
    python = number % 4 == 1
    sampling = Sampling((0.0, 0.7, 1.1)[number % 3], top_k=(0, 20)[number % 2], python=python)
    return PROMPTS[number % 5], sampling, Limits(3 + 11 * (number % 7)), number


def test_a_text_among_others_is_the_text_alone(model: GPT, py16k: Tokenizer) -> None:
    engine = Engine(model, py16k, slots=4, native=True)
    running = [engine.generate(*request(number)) for number in range(12)]
    for generation in running:
        for _ in generation:
            pass
    engine.close()
    for number, generation in enumerate(running):
        assert generation.ids == alone(model, py16k, number)


class Storm(RuleBasedStateMachine):
    """Streams join, leave, are cancelled and step in any order."""

    model: GPT
    texts: dict[int, list[int]]
    streams = Bundle("streams")

    def __init__(self) -> None:
        super().__init__()
        self.tokenizer = get_tokenizer("py16k")
        self.batch = Batch(Decoder(self.model, 3, native=True))
        self.inside: dict[Stream, int] = {}

    @rule(target=streams, number=st.integers(0, 20))
    def join(self, number: int) -> Stream | None:
        prompt, sampling, limits, seed = request(number)
        stream = Stream(self.tokenizer, self.model.config.context, prompt, sampling, limits, seed)
        if self.batch.free:
            self.batch.join(stream)
            self.inside[stream] = number
        else:
            with pytest.raises(ValueError, match="no slot is free"):
                self.batch.join(stream)
        return stream

    @rule(stream=consumes(streams))
    def leave(self, stream: Stream) -> None:
        self.batch.leave(stream)
        self.inside.pop(stream, None)

    @rule(stream=consumes(streams))
    def cancel(self, stream: Stream) -> None:
        stream.cancel()
        self.inside.pop(stream, None)
        self.step(1)

    @rule(times=st.integers(1, 12))
    def step(self, times: int) -> None:
        for _ in range(times):
            for stream, _ in self.batch.step():
                if stream.finish:
                    number = self.inside.pop(stream)
                    if number not in self.texts:
                        self.texts[number] = alone(self.model, self.tokenizer, number)
                    assert stream.ids == self.texts[number]

    @invariant()
    def no_slot_is_lost(self) -> None:
        assert self.batch.streams == list(self.inside)
        assert self.batch.free + len(self.inside) == 3
        slots = [seat.slot for seat in self.batch._seats.values()] + list(self.batch.decoder.free)
        assert sorted(slots) == [0, 1, 2]


def test_storms_of_joining_and_leaving_lose_no_slot_and_change_no_text(model: GPT) -> None:
    Storm.model, Storm.texts = model, {}

    class Case(Storm.TestCase):
        settings = settings(max_examples=15, stateful_step_count=20, deadline=None)

    Case("runTest").runTest()


class Readers(RuleBasedStateMachine):
    """The engine's own thread, with readers that come, read, stop reading and go in any order."""

    model: GPT
    texts: dict[int, list[int]]
    readers = Bundle("readers")

    def __init__(self) -> None:
        super().__init__()
        self.tokenizer = get_tokenizer("py16k")
        self.engine = Engine(self.model, self.tokenizer, slots=2, waiting=3, native=True)
        # By a name, for hypothesis keeps what is in its bundle, and a reader that is gone is gone.
        self.open: dict[int, tuple[int, Generation]] = {}
        self.come_so_far = 0

    @rule(target=readers, number=st.integers(0, 5))
    def come(self, number: int) -> int:
        prompt, sampling, limits, seed = request(number)
        self.come_so_far += 1
        with suppress(Busy):
            generation = self.engine.generate(prompt, sampling, limits, seed)
            self.open[self.come_so_far] = number, generation
        return self.come_so_far

    @rule(reader=readers)
    def read_a_little(self, reader: int) -> None:
        if reader in self.open:
            next(self.open[reader][1], None)

    @rule(reader=consumes(readers))
    def read_to_the_end(self, reader: int) -> None:
        if reader not in self.open:
            return
        number, generation = self.open.pop(reader)
        for _ in generation:
            pass
        if number not in self.texts:
            self.texts[number] = alone(self.model, self.tokenizer, number)
        whole, ids = self.texts[number], generation.ids
        assert ids == (whole[: len(ids)] if generation.finish == "not read" else whole)

    @rule(reader=consumes(readers))
    def cancel(self, reader: int) -> None:
        if reader in self.open:
            _, generation = self.open.pop(reader)
            generation.cancel()
            assert next(generation, None) is None

    @rule(reader=consumes(readers))
    def go(self, reader: int) -> None:
        self.open.pop(reader, None)

    def teardown(self) -> None:
        self.open.clear()
        gc.collect()
        wait_until(lambda: self.engine._batch.free == 2)
        wait_until(lambda: not self.engine._queues and not self.engine._parked)
        self.engine.close()


def test_readers_that_come_and_go_lose_no_slot_and_read_the_text_they_read_alone(
    model: GPT, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ptx.engine.AHEAD", 8)  # so that texts pause and give their slots
    Readers.model, Readers.texts = model, {}

    class Case(Readers.TestCase):
        settings = settings(max_examples=12, stateful_step_count=15, deadline=None)

    Case("runTest").runTest()


@pytest.fixture
def engine(model: GPT, py16k: Tokenizer) -> Iterator[Engine]:
    engine = Engine(model, py16k, slots=2, waiting=2, native=False)
    yield engine
    engine.close()


def wait_until(condition: object, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.005)


def forever(engine: Engine, **options: object) -> Generation:
    return engine.generate("x = ", limits=Limits(10**6), **options)  # type: ignore[arg-type]


def test_a_slow_reader_holds_nobody(engine: Engine) -> None:
    slow = forever(engine)
    next(slow)
    quick = engine.generate("y = ", limits=Limits(30))
    assert sum(1 for step in quick if step.bytes) == 30
    slow.cancel()


def test_the_engine_goes_on_with_ids(engine: Engine) -> None:
    first = engine.generate("import os\n", GREEDY, Limits(20))
    for _ in first:
        pass
    again = engine.generate(tuple(first.ids[:-8]), GREEDY, Limits(8))
    for _ in again:
        pass
    assert again.ids == first.ids


def test_who_does_not_fit_in_waits_and_too_many_are_refused(engine: Engine) -> None:
    running = [forever(engine) for _ in range(2)]
    for generation in running:
        next(generation)
    waiting = [forever(engine) for _ in range(2)]
    assert [engine.place(g) for g in running + waiting] == [0, 0, 1, 2]
    with pytest.raises(Busy, match="2 texts are being written and 2 wait already: try again"):
        forever(engine)
    running[0].cancel()
    assert next(waiting[0]).bytes
    assert engine.place(waiting[1]) == 1
    for generation in running + waiting:
        generation.cancel()


def test_cancelling_frees_the_slot_at_once_also_of_one_that_waits(engine: Engine) -> None:
    running = [forever(engine) for _ in range(2)]
    waits = forever(engine)
    waits.cancel()
    assert list(waits) == []
    assert waits.finish == "cancelled"
    for generation in running:
        generation.cancel()
    wait_until(lambda: engine._batch.free == 2)
    assert not engine._queues


def test_texts_cancelled_while_they_wait_leave_the_queue(engine: Engine) -> None:
    running = [forever(engine) for _ in range(2)]
    readers = [threading.Thread(target=list, args=[generation]) for generation in running]
    for reader in readers:  # so that no slot becomes free
        reader.start()
    for _ in range(20):
        forever(engine).cancel()
    wait_until(lambda: not engine._waiting)
    assert [generation.finish for generation in running] == [None, None]
    for generation in running:
        generation.cancel()
    for reader in readers:
        reader.join(timeout=10)


def test_a_text_cancelled_while_it_waits_takes_no_slot_from_one_that_is_paused(
    engine: Engine,
) -> None:
    paused = [forever(engine) for _ in range(2)]
    wait_until(lambda: all(g._stream.paused for g in paused))
    with engine._changed:  # it cannot be let in before it is cancelled
        forever(engine).cancel()
    wait_until(lambda: not engine._waiting and len(engine._queues) == 2)
    assert not engine._parked
    for generation in paused:
        generation.cancel()


def test_an_error_at_the_first_token_leaves_the_prompt_whole(
    engine: Engine, model: GPT, py16k: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompt = "import os\n\ndef fibona"
    broken = copy.deepcopy(model)
    with torch.no_grad():
        broken.head.weight.fill_(torch.nan)
    monkeypatch.setattr(engine._batch.decoder, "model", broken)
    alone = generate(broken, py16k, prompt, decoder=Decoder(broken, native=False))
    for generation in (engine.generate(prompt), alone):
        with pytest.raises(UserError, match="no numbers"):
            next(generation)
        assert py16k.decode(generation.ids[1:]).decode() == prompt
        assert generation.n_prompt == len(generation.ids)
        assert generation.finish == "error"


def test_a_reader_that_is_gone_is_cancelled(engine: Engine) -> None:
    generation = forever(engine)
    next(generation)
    del generation
    gc.collect()
    wait_until(lambda: engine._batch.free == 2)


def test_a_text_is_cancelled_while_its_reader_waits_for_it(engine: Engine) -> None:
    generation = forever(engine)
    read: list[int] = []
    reader = threading.Thread(target=lambda: read.extend(s.token for s in generation))
    reader.start()
    wait_until(lambda: len(generation.ids) > 5)
    generation.cancel()
    reader.join(timeout=10)
    assert not reader.is_alive()


def test_an_error_reaches_its_readers_and_the_engine_goes_on(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    generation = forever(engine)
    next(generation)
    with monkeypatch.context() as patch:
        patch.setattr(engine._batch.decoder, "step", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            for _ in generation:
                pass
    assert list(engine.generate("x", limits=Limits(2)))


def test_a_closed_engine_ends_its_texts_and_takes_no_more(model: GPT, py16k: Tokenizer) -> None:
    engine = Engine(model, py16k, slots=1, native=False)
    texts = [forever(engine) for _ in range(3)]
    engine.close()
    for generation in texts:
        for _ in generation:
            pass
        assert generation.finish == "cancelled"
    with pytest.raises(UserError, match="closed"):
        forever(engine)


@pytest.mark.parametrize("damage", [torch.nan, torch.inf])
def test_logits_that_are_no_numbers_end_their_own_text(
    model: GPT, py16k: Tokenizer, monkeypatch: pytest.MonkeyPatch, damage: float
) -> None:
    decoder = Decoder(model, 3, native=False)
    batch = Batch(decoder)
    streams = [
        Stream(py16k, model.config.context, [py16k.eot, 5 + i], Sampling(), seed=i, speculate=False)
        for i in range(3)
    ]
    for stream in streams:
        batch.join(stream)
    step = decoder.step

    def damaged(*given: Any) -> Any:
        logits, attention = step(*given)
        logits = logits.copy()
        logits[1, 7] = damage
        return logits, attention

    monkeypatch.setattr(decoder, "step", damaged)
    batch.step()
    assert [stream.finish for stream in streams] == [None, "error", None]
    assert "no numbers" in str(streams[1].error)
    assert [len(stream.ids) for stream in streams] == [3, 2, 3]


def test_a_failing_text_fails_alone(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    healthy, failing = forever(engine), forever(engine)
    next(healthy)
    monkeypatch.setattr(failing._stream, "take", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        for _ in failing:
            pass
    assert failing._stream.finish == "error"
    assert sum(1 for _, step in zip(range(30), healthy) if step.bytes) > 20
    healthy.cancel()


def test_a_text_that_nobody_ever_reads_is_cancelled(engine: Engine) -> None:
    generation = forever(engine)
    wait_until(lambda: engine._batch.free == 1)
    del generation
    gc.collect()
    wait_until(lambda: engine._batch.free == 2)


def test_a_text_waits_for_a_reader_far_behind(engine: Engine) -> None:
    generation = forever(engine)
    next(generation)
    wait_until(lambda: generation._stream.paused)
    time.sleep(0.1)
    ahead = len(generation._stream.ids) - len(generation.ids)
    assert AHEAD <= ahead <= AHEAD + 8
    for _, _ in zip(range(3 * AHEAD), generation):
        pass
    assert len(generation.ids) > 2 * AHEAD
    generation.cancel()


def test_readers_that_stop_keep_no_slot_from_those_who_wait(
    engine: Engine, model: GPT, py16k: Tokenizer
) -> None:
    stopped = [engine.generate("x = ", GREEDY, Limits(5 * AHEAD)) for _ in range(2)]
    wait_until(lambda: all(g._stream.paused for g in stopped))
    for _ in range(2):
        assert sum(step.token is not None for step in engine.generate("y", limits=Limits(20)))
    assert engine._batch.free == 0 or engine._parked
    for generation in stopped:  # they go on where they were
        for _ in generation:
            pass
        expected = generate(model, py16k, "x = ", GREEDY, Limits(5 * AHEAD))
        assert [s.token for s in expected] == generation.ids[generation.n_prompt :]


def test_of_too_many_readers_that_stopped_the_first_to_give_its_slot_ends(engine: Engine) -> None:
    stopped = []
    for _ in range(5):  # two slots, and two may wait
        stopped.append(forever(engine))
        wait_until(lambda: stopped[-1]._stream.paused)
    first, *others = stopped
    assert [g._stream.finish for g in others] == [None] * 4
    assert sum(step.token is not None for step in first) >= AHEAD
    assert first.finish == "not read"
    for generation in others:
        generation.cancel()
    wait_until(lambda: engine._batch.free == 2 and not engine._parked)


def test_what_a_slot_holds_is_not_read_again(model: GPT, py16k: Tokenizer) -> None:
    decoder = Decoder(model, 2, native=True)
    counts: list[int] = []
    asked = decoder.step
    decoder.read = Mock()  # type: ignore[method-assign]

    def step(rows: list[Row], attention: bool, unasked: int) -> Any:
        counts.extend([unasked] if unasked else [])
        return asked(rows, attention, unasked)

    decoder.step = step  # type: ignore[method-assign,assignment]

    def ids_and_logits(prompt: list[int], decoder: Decoder) -> tuple[list[int], torch.Tensor]:
        generation = generate(model, py16k, prompt, GREEDY, Limits(5), decoder=decoder)
        logits = torch.stack([step.choice.logits for step in generation])
        return generation.ids, logits

    base = [py16k.eot, *py16k.encode(REPEATS)]
    ids, _ = ids_and_logits(base, decoder)
    assert counts == [len(base) - 1]
    edited = [*base[:-3], 300, 301]
    for prompt, new in [(ids, []), (edited, [1]), ([py16k.eot, 5, 6], [2]), (edited, [])]:
        counts.clear()
        _, logits = ids_and_logits(prompt, decoder)
        assert counts == new
        assert not decoder.read.called
        assert torch.equal(logits, ids_and_logits(prompt, Decoder(model, native=True))[1])


@pytest.mark.parametrize("n", [2, AT_ONCE, AT_ONCE + 1, AT_ONCE + 2, 150])
@pytest.mark.parametrize("native", [True, False], ids=["compiled", "torch"])
def test_the_end_of_a_prompt_is_read_with_what_is_asked_of_it(
    model: GPT, py16k: Tokenizer, n: int, native: bool
) -> None:
    model = GPT(replace(model.config, context=256)).eval()
    ids = [py16k.eot, *range(300, 300 + n - 1)]
    decoder, asked = Decoder(model, native=native), Decoder(model, native=native)
    steps = decoder.step = Mock(side_effect=decoder.step)  # type: ignore[method-assign]
    reads = decoder.read = Mock(side_effect=decoder.read)  # type: ignore[method-assign]
    sampling = Sampling(0.0, banned=(py16k.eot,))
    first = next(generate(model, py16k, ids, sampling, decoder=decoder, attention=True))
    [step] = steps.call_args_list
    unasked = min(n - 1, AT_ONCE)
    assert step.args[2] == unasked
    assert [len(read.args[1]) for read in reads.call_args_list] == [n - 1 - unasked] * (
        unasked < n - 1
    )
    asked.read(0, ids[:-1], 0)
    logits, attention = asked.step([Row(ids[-1], 0, n - 1)], attention=True)
    assert attention
    np.testing.assert_allclose(first.choice.given, logits[0], atol=1e-5, rtol=1e-5)
    np.testing.assert_allclose(first.weights, attention[0], atol=1e-5, rtol=1e-5)
    if native:
        assert np.array_equal(first.choice.given, logits[0])
        assert np.array_equal(first.weights, attention[0])


def test_a_prompt_of_many_is_read_once(model: GPT, py16k: Tokenizer) -> None:
    base = [py16k.eot, *py16k.encode(REPEATS)][:40]
    prompts = [base, base, [*base, 300], [*base[:30], 5, 6, 7], base]
    batch = Batch(Decoder(model, len(prompts), native=True))
    counts: list[int] = []
    read = batch.decoder.read
    batch.decoder.read = lambda slot, ids, start: (counts.append(len(ids)), read(slot, ids, start))[
        1
    ]  # type: ignore[method-assign]
    context, sampling = model.config.context, Sampling(1.0, top_k=50)
    limits = [Limits(3 + 40 * n) for n in range(len(prompts))]  # the first one's slot is given away
    streams = [
        Stream(py16k, context, prompt, sampling, limit, seed)
        for seed, (prompt, limit) in enumerate(zip(prompts, limits, strict=True))
    ]
    for stream in streams:
        batch.join(stream)
    batch.step()
    assert counts == [len(base) - 1, 1, 2]
    late = None
    while batch.streams:
        batch.step()
        if not late and batch.free:
            late = Stream(py16k, context, "import os\n" * 30, sampling, limits[2], 9)
            batch.join(late)
    for seed, (stream, prompt, limit) in enumerate(zip(streams, prompts, limits, strict=True)):
        alone = generate(model, py16k, prompt, sampling, limit, seed, Decoder(model, native=True))
        for _ in alone:
            pass
        assert stream.ids == alone.ids
    assert late
    assert late.finish == "length"


def test_a_prompt_that_ends_at_once_is_whole(model: GPT, py16k: Tokenizer) -> None:
    only_end = Sampling(0.0, forced=(py16k.eot,))
    generation = generate(model, py16k, "x = fo", only_end)
    assert list(generation) == []
    assert generation.finish == "end of text"
    assert py16k.text(generation.ids) == "x = fo"
    assert generation.n_prompt == len(generation.ids)


def test_two_texts_share_a_decoder_only_as_far_as_it_has_slots(
    model: GPT, py16k: Tokenizer
) -> None:
    decoder = Decoder(model, 1, native=False)
    first = generate(model, py16k, "x = 1", decoder=decoder)
    next(first)
    with pytest.raises(ValueError, match="no slot is free"):
        next(generate(model, py16k, "y = 1", decoder=decoder))
    with pytest.raises(ValueError, match="another model"):
        generate(copy.deepcopy(model), py16k, "y = 1", decoder=decoder)


@pytest.mark.parametrize("context", [2, 3, 4, 6, 9])
@pytest.mark.parametrize("prompt", ["", "x", "y x = foo(a, ", " " * 64, "fibona"])
def test_a_short_memory_still_writes(py16k: Tokenizer, context: int, prompt: str) -> None:
    torch.manual_seed(0)
    shape = replace(PRESETS["nano"], context=context, n_layer=1, d_model=16, d_mlp=16)
    small = GPT(shape).eval()
    generation = generate(small, py16k, prompt, Sampling(banned=(py16k.eot,)), Limits(20))
    assert sum(step.token is not None for step in generation) == 20


def test_a_process_may_end_while_texts_grow(model: GPT, tmp_path: Path) -> None:
    script = tmp_path / "endless.py"
    script.write_text(
        "import sys, ptx\n"
        "from ptx.config import PRESETS\n"
        "from dataclasses import replace\n"
        "model = ptx.GPT(replace(PRESETS['nano'], n_layer=1)).eval()\n"
        "engine = ptx.Engine(model, ptx.get_tokenizer('py16k'), native=False)\n"
        "texts = [engine.generate('x', limits=ptx.Limits(10**6)) for _ in range(2)]\n"
        "print(next(texts[0]).token is not None)\n"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, script], cwd=root, env=os.environ | {"PYTHONPATH": str(root)},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr


def test_a_retired_engine_goes_on_writing_and_keeps_no_thread(model: GPT, py16k: Tokenizer) -> None:
    with Engine(model, py16k, slots=1, native=False) as engine:
        running = [engine.generate("x", GREEDY, Limits(5)) for _ in range(2)]
        engine.retire()
        alone = run(model, py16k, "x", GREEDY, Limits(5))
        assert ["".join(step.text for step in text) for text in running] == [alone, alone]
        for _ in range(2):
            deadline = time.monotonic() + 20
            while engine._thread and time.monotonic() < deadline:
                time.sleep(0.01)
            assert engine._thread is None
            assert len(list(engine.generate("x", GREEDY, Limits(3)))) == 3
