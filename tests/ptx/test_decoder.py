"""A step of many texts equals reading each text alone, whatever computes it."""

from __future__ import annotations

import gc
import math
import random
import sys
import time
import warnings
import weakref
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from ptx import decoder as ptx_decoder
from ptx import native as native_step
from ptx.config import PRESETS, ModelConfig
from ptx.decoder import Row, torch_threads, usual_threads
from ptx.errors import UserError
from ptx.fastest import Fastest
from ptx.int8 import as_int8
from ptx.model import GPT
from ptx.team import LOST, Helpers
from ptx.tile import BLOCKS, MOST_ROWS

TINY = replace(
    PRESETS["nano"], vocab_size=203, context=24, n_layer=2, n_head=4, n_kv_head=2, head_size=8,
    d_model=20, d_mlp=28, init="gpt2",
)  # fmt: skip
SHAPES: dict[str, dict[str, Any]] = {
    "modern": {},
    "reference": {
        "n_kv_head": 4, "norm": "layer", "position": "learned", "mlp": "relu", "qk_norm": False,
        "bias": True, "qkv_bias": True, "head_bias": True, "tied_head": False,
    },
    "gpt2": {"norm": "layer", "position": "learned", "mlp": "gelu", "bias": True, "qkv_bias": True},
    "llama": {"qk_norm": False, "tied_head": False, "context": 27},  # no whole vector of keys
    "wide heads": {"head_size": 108, "d_mlp": 160},  # whole vectors, and some left over
}  # fmt: skip


class Decoder(ptx_decoder.Decoder):
    """One whose answers torch can compare."""

    def step(self, *arguments: Any, **options: Any) -> Any:
        logits, attention = super().step(*arguments, **options)
        shown = None if attention is None else [torch.from_numpy(some) for some in attention]
        return torch.from_numpy(logits), shown


def random_model(config: ModelConfig) -> GPT:
    torch.manual_seed(0)
    model = GPT(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.3)
    return model


@pytest.fixture(scope="module", params=SHAPES)
def model(request: pytest.FixtureRequest) -> GPT:
    return random_model(replace(TINY, **SHAPES[request.param]))


@pytest.fixture(scope="module", params=[True, False], ids=["compiled", "torch"])
def native(request: pytest.FixtureRequest) -> bool:
    return request.param


def some_ids(n: int, seed: int = 0) -> list[int]:
    return random.Random(seed).choices(range(203), k=n)


def step_through(decoder: Decoder, ids: list[int], slot: int = 0) -> torch.Tensor:
    """Logits (T, V) of a text that is read token by token."""
    rows = [decoder.step([Row(t, slot, i)])[0] for i, t in enumerate(ids)]
    return torch.cat(rows)


@torch.no_grad()
def whole(model: GPT, ids: list[int]) -> torch.Tensor:
    return model(torch.tensor([ids]))[0]


def test_token_by_token_equals_all_at_once(model: GPT, native: bool) -> None:
    ids = some_ids(model.config.context)
    logits = step_through(Decoder(model, native=native), ids)
    torch.testing.assert_close(logits, whole(model, ids), atol=1e-4, rtol=1e-4)


def test_texts_of_different_lengths_share_a_step(model: GPT, native: bool) -> None:
    decoder = Decoder(model, 4, native)
    texts = {3: some_ids(20, 1), 0: some_ids(3, 2), 2: some_ids(11, 3), 1: some_ids(1, 4)}
    for slot, ids in texts.items():
        if len(ids) > 1:
            decoder.read(slot, ids[:-1], 0)
    rows = [Row(ids[-1], slot, len(ids) - 1) for slot, ids in texts.items()]
    logits, _ = decoder.step(rows)
    expected = torch.stack([whole(model, ids)[-1] for ids in texts.values()])
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)


def test_several_rows_of_one_text_see_each_other_and_no_later_one(model: GPT, native: bool) -> None:
    decoder = Decoder(model, 2, native)
    long, short = some_ids(12, 5), some_ids(7, 6)
    decoder.read(1, long[:8], 0)
    decoder.read(0, short[:5], 0)
    rows = [Row(t, 1, 8 + i) for i, t in enumerate(long[8:])]
    rows += [Row(t, 0, 5 + i) for i, t in enumerate(short[5:])]
    logits, _ = decoder.step(rows)
    expected = torch.cat([whole(model, long)[8:], whole(model, short)[5:]])
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)
    # What was read in vain is written over.
    again, _ = decoder.step([Row(9, 1, 9)])
    expected = whole(model, [*long[:9], 9])[-1:]
    torch.testing.assert_close(again, expected, atol=1e-4, rtol=1e-4)


def test_rows_that_nothing_is_asked_of_are_read_like_others(model: GPT, native: bool) -> None:
    ids = some_ids(11, 5)
    rows = [Row(t, 0, i) for i, t in enumerate(ids)]
    logits, weights = Decoder(model, native=native).step(rows, attention=True)
    for unasked in (1, 4, 10):
        decoder = Decoder(model, native=native)
        some, shown = decoder.step(rows, attention=True, unasked=unasked)
        torch.testing.assert_close(some, logits[unasked:])
        assert shown
        assert weights
        assert len(shown) == len(ids) - unasked
        for one, expected in zip(shown, weights[unasked:], strict=True):
            torch.testing.assert_close(one, expected)
            assert torch.equal(one, expected) or not native
        assert torch.equal(some, logits[unasked:]) or not native
        next_row = [Row(3, 0, 11)]
        torch.testing.assert_close(
            decoder.step(next_row)[0], whole(model, [*ids, 3])[-1:], atol=1e-4, rtol=1e-4
        )


def test_a_prompt_may_be_read_in_parts(model: GPT, native: bool) -> None:
    decoder, ids = Decoder(model, native=native), some_ids(20)
    for start in range(0, 19, 7):
        decoder.read(0, ids[start : min(start + 7, 19)], start)
    logits, _ = decoder.step([Row(ids[-1], 0, 19)])
    torch.testing.assert_close(logits, whole(model, ids)[-1:], atol=1e-4, rtol=1e-4)


def test_attention_is_that_of_the_forward(model: GPT, native: bool) -> None:
    decoder, texts = Decoder(model, 2, native), [some_ids(9, 1), some_ids(5, 2)]
    for slot, ids in enumerate(texts):
        decoder.read(slot, ids[:-1], 0)
    plain, nothing = decoder.step([Row(ids[-1], s, len(ids) - 1) for s, ids in enumerate(texts)])
    logits, rows = decoder.step(
        [Row(ids[-1], s, len(ids) - 1) for s, ids in enumerate(texts)], attention=True
    )
    assert nothing is None
    assert torch.equal(plain, logits)
    for ids, weights in zip(texts, rows, strict=True):
        record: list[torch.Tensor] = []
        with torch.no_grad():
            model(torch.tensor([ids]), record=record)
        expected = torch.cat(record)[:, :, -1]  # (L, H, S)
        torch.testing.assert_close(weights, expected, atol=1e-5, rtol=1e-4)


def test_company_changes_no_bit_of_a_compiled_row(model: GPT) -> None:
    decoder = Decoder(model, 9, native=True)
    ids = some_ids(6)
    alone = step_through(decoder, ids)
    for slot in range(1, 9):
        step_through(decoder, some_ids(6, slot), slot)
    for n in range(2, 10):
        logits, _ = decoder.step([Row(some_ids(6, s)[-1], s, 5) for s in range(n)])
        assert torch.equal(logits[0], alone[-1])
    rows = [Row(t, 0, i) for i, t in enumerate(ids)]
    assert torch.equal(decoder.step(rows)[0], alone)


def test_a_prompt_read_in_parts_changes_no_bit(model: GPT) -> None:
    decoder, ids = Decoder(model, 2, native=True), some_ids(20)
    decoder.read(0, ids, 0)
    for start, end in ((0, 7), (7, 14), (14, 20)):  # rows are left over, for smaller tiles
        decoder.read(1, ids[start:end], start)
    for memory in (decoder.cache.k, decoder.cache.v):
        assert torch.equal(memory[:, :, 0, :20], memory[:, :, 1, :20])
        assert memory[:, :, 0, :20].any()


def test_parts_of_a_prompt_leave_over_no_row_but_at_its_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    decoder, sizes = Decoder(random_model(TINY), native=True), []
    assert decoder._native
    monkeypatch.setattr("ptx.decoder.AT_ONCE", 6)
    run = decoder._native._run
    monkeypatch.setattr(
        decoder._native, "_run", lambda some, *rest: (sizes.append(len(some)), run(some, *rest))
    )
    decoder.read(0, some_ids(23), 0)
    assert sum(sizes) == 23
    assert len(sizes) in (2, 3)
    assert all(size % MOST_ROWS == size % native_step.TOGETHER == 0 for size in sizes[:-1])


def test_what_texts_share_changes_no_bit(model: GPT) -> None:
    """Rows that have a source, or a text, in common are compared with its keys together."""
    decoder = Decoder(model, 8, native=True)
    ids, others = some_ids(20), {slot: some_ids(24, slot)[20:] for slot in range(6)}
    decoder.read(0, ids, 0)
    for slot in range(1, 6):
        assert decoder.copy(slot, ids, 0, {0: ids}) == 20
        decoder.read(slot, others[slot][: slot % 3], 20)
    assert decoder.copy(6, ids, 0, {0: ids}) == 20
    decoder.forget(6, 9)  # less of it is that of the others
    decoder.read(6, some_ids(11, 10), 9)
    decoder.read(7, some_ids(11, 9), 0)
    rows = [Row(others[slot][slot % 3], slot, 20 + slot % 3) for slot in range(5)]
    rows += [Row(ids[13], 5, 13), Row(3, 6, 20)]  # one sees fewer keys than are the same
    rows += [Row(t, 7, 11 + i) for i, t in enumerate(some_ids(6, 8))]
    alone = [decoder.step([row], attention=True) for row in rows]
    text = range(7, 13)
    for order in ([*range(7), *text], [4, 3, 1, 5, 2, 6, 0, *text], [0, *text, 6, 2, 3, 4]):
        logits, attention = decoder.step([rows[i] for i in order], attention=True)
        assert attention
        for one, i in enumerate(order):
            expected, [weights] = alone[i]
            assert torch.equal(logits[one], expected[0])
            assert torch.equal(attention[one], weights)


def test_what_nobody_has_written_is_seen_by_nobody(model: GPT) -> None:
    ids, logits = some_ids(21), []
    for nothing in (0.0, math.nan):
        decoder = Decoder(model, 2, native=True)
        decoder.cache.k.fill_(nothing)
        decoder.cache.v.fill_(nothing)
        decoder.read(1, ids[:13], 0)
        rows = [Row(t, 1, 13 + i) for i, t in enumerate(ids[13:18])]
        logits.append(decoder.step(rows)[0])
        logits.append(decoder.step([Row(ids[18], 1, 18)])[0])
    assert torch.equal(logits[0], logits[2])
    assert torch.equal(logits[1], logits[3])
    assert logits[0].isfinite().all()


def test_a_row_that_is_no_number_spoils_none_before_it() -> None:
    model = random_model(TINY)
    with torch.no_grad():
        model.tok_emb.weight[202] = math.nan
    decoder, ids = Decoder(model, 2, native=True), [*(t % 202 for t in some_ids(19)), 202]
    decoder.read(0, ids[:-4], 0)
    decoder.read(1, ids[:-4], 0)
    together, _ = decoder.step([Row(t, 0, 16 + i) for i, t in enumerate(ids[-4:])])
    for i, token in enumerate(ids[-4:-1]):
        alone, _ = decoder.step([Row(token, 1, 16 + i)])
        assert torch.equal(alone[0, :202], together[i, :202])  # not the logit of 202 itself
    assert together[:3, :202].isfinite().all()
    assert not together[3].isfinite().any()


def test_rows_are_compared_with_the_keys_that_they_have_in_common() -> None:
    def common(*rows: tuple[int, int, int, int]) -> tuple[int, int]:
        """rows: (slot, position, source, same)"""
        slots, positions, sources, same = np.array(rows).T
        step = native_step.Rows(slots, slots, positions, sources, same)
        return native_step._common.py_func(step, 0, len(rows))

    K = 16  # a multiple of KEYS everywhere
    assert common((3, 5, 3, 0), (3, 6, 3, 0), (3, 7, 3, 0), (3, 8, 3, 0)) == (3, 9)  # one text
    assert common((3, 5, 3, 0), (3, 6, 3, 0), (3, 7, 3, 0))[1] == 0  # too few
    followers = (1, 90, 0, K), (2, 80, 0, 2 * K + 1), (4, 70, 0, 50), (5, 60, 0, 50)
    assert common(*followers) == (0, K)
    assert common((0, 2 * K - 1, 0, 0), *followers[1:]) == (0, 2 * K)  # with their source
    assert common(*followers[1:], (0, 70, 0, 0)) == (0, 2 * K)
    assert common(*followers[1:], (6, K + 1, 0, 50)) == (0, K)  # one sees no more
    assert common(*followers[1:], (7, 90, 7, 50))[1] == 0  # one follows another


@pytest.mark.parametrize("threads", [2, 3])
def test_threads_that_share_a_step_change_no_bit(model: GPT, threads: int) -> None:
    alone, together = (with_threads(model, n) for n in (1, threads))
    texts = {slot: some_ids(20, slot) for slot in range(5)}
    for decoder in (alone, together):
        for slot, ids in texts.items():
            decoder.read(slot, ids[:-1], 0)
    for n in (1, 3, 5):
        rows = [Row(ids[-1], slot, 19) for slot, ids in list(texts.items())[:n]]
        (logits, weights), (logits2, weights2) = (
            decoder.step(rows, attention=True) for decoder in (alone, together)
        )
        assert torch.equal(logits, logits2)
        assert all(map(torch.equal, weights, weights2))


@pytest.mark.parametrize("rows", [1, 3, 20])
def test_a_thread_that_is_interrupted_in_each_phase_changes_no_bit(model: GPT, rows: int) -> None:
    """In all pieces of its share, which another one does again."""
    decoder, ids = with_threads(model, 2), some_ids(rows)
    weights, some = decoder._native._weights, lambda n, size: -(-n // size)
    chunks, heads = some(rows, native_step.CHUNK), some(rows, native_step.TOGETHER) * weights.n_head
    q, k, out, up, down, head = (
        some(m.weight.shape[1], BLOCKS)
        for m in (weights.q, weights.k, weights.out, weights.up, weights.down, weights.head)
    )
    layer = [q + 2 * k, chunks, heads, out, chunks, up, down, chunks]
    sizes = [0, chunks, *layer * model.config.n_layer, head]  # the first draws, in other steps

    class Interrupted(Helpers):
        def run(self, function, team, *arguments):
            counters = team[0].counters
            assert len(counters) == len(sizes)
            for phase, n in enumerate(sizes):
                if n:  # it holds the first of its share
                    counters[phase, 2, :2] = 1, n // 2 + 1
            function(*arguments, team[0])
            assert (counters[1:, 2, 1] == LOST).all()

    expected, maps = decoder.step([Row(t, 0, i) for i, t in enumerate(ids)], attention=True)
    decoder._native._helpers = Interrupted(0)
    logits, attention = decoder.step([Row(t, 0, i) for i, t in enumerate(ids)], attention=True)
    assert torch.equal(logits, expected)
    assert all(map(torch.equal, attention, maps))


def with_threads(model: GPT, n: int) -> Decoder:
    """A decoder whose steps are always shared by n threads."""
    decoder = Decoder(model, 5, native=True)
    decoder._native._helpers = Helpers(n - 1)
    decoder._native._threads = defaultdict(lambda: Fastest([n]))
    return decoder


def test_steps_leave_nothing_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder, kept, make = with_threads(random_model(TINY), 2), [], native_step.scratch

    def scratch(*given: Any) -> Any:
        made = make(*given)
        kept.extend(weakref.ref(array) for arrays in made for array in arrays)
        return made

    monkeypatch.setattr(native_step, "scratch", scratch)
    for i in range(20):
        logits, weights = decoder.step([Row(5, 0, i)], attention=True)
        kept.append(weakref.ref(logits))
    del logits, weights
    assert len(kept) > 100
    until = time.monotonic() + 20  # the other thread comes to its end
    while any(ref() is not None for ref in kept):
        assert time.monotonic() < until
        time.sleep(0.01)
        gc.collect()


def test_one_thread_here_is_not_everybodys() -> None:
    usual = usual_threads()
    with ThreadPoolExecutor(1) as a, ThreadPoolExecutor(1) as b:
        here, there = torch_threads(usual + 1), torch_threads(usual + 1)
        a.submit(here.__enter__).result()
        assert b.submit(usual_threads).result() == usual
        b.submit(torch.get_num_threads).result()  # now this thread takes the other's for its own
        a.submit(here.__exit__, None, None, None).result()
        b.submit(there.__enter__).result()
        with torch_threads(usual + 1):
            assert torch.get_num_threads() == usual + 1
        b.submit(there.__exit__, None, None, None).result()
        assert [one.submit(torch.get_num_threads).result() for one in (a, b)] == [usual, usual]
    assert torch.get_num_threads() == usual


@pytest.mark.parametrize("native", [True, False], ids=["compiled", "torch"])
def test_bf16_weights_are_taken_as_they_are(native: bool) -> None:
    model = random_model(TINY)
    model.load_state_dict({k: v.bfloat16().float() for k, v in model.state_dict().items()})
    decoder, ids = Decoder(model, native=native), some_ids(10)
    torch.testing.assert_close(step_through(decoder, ids), whole(model, ids), atol=1e-4, rtol=1e-4)


def test_int8_weights_compute_what_their_values_say() -> None:
    model = random_model(TINY)
    small, ids = as_int8(model), some_ids(10)
    decoder = Decoder(small, native=True)
    assert decoder._native._weights.q.weight.dtype == "int8"
    logits = step_through(decoder, ids)
    torch.testing.assert_close(logits, whole(small, ids), atol=1e-4, rtol=1e-4)
    error = (logits - whole(model, ids)).abs().mean() / whole(model, ids).std()
    assert 1e-4 < error < 0.1


def test_steps_are_torchs_until_they_are_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    model, ids = random_model(TINY), some_ids(12)
    decoder = Decoder(model, native=False)
    first = [decoder.step([Row(t, 0, i)])[0] for i, t in enumerate(ids[:6])]
    decoder.compile()
    assert decoder._native
    rest = [decoder.step([Row(t, 0, i)])[0] for i, t in enumerate(ids[6:], 6)]
    torch.testing.assert_close(torch.cat(first + rest), whole(model, ids), atol=1e-4, rtol=1e-4)


def test_a_slot_is_taken_for_the_text_it_holds_most_of() -> None:
    decoder = Decoder(random_model(TINY), 3, native=False)
    assert [decoder.take([1, 2])[1] for _ in range(3)] == [0, 0, 0]
    with pytest.raises(ValueError, match="no slot is free"):
        decoder.take([1])
    for slot, ids in {2: [1, 2, 3], 0: [1, 5], 1: [7]}.items():
        decoder.give_back(slot, ids)
    assert decoder.take([1, 5, 6]) == (0, 2)
    assert decoder.take([9]) == (2, 0)  # the longest unused
    assert decoder.take([]) == (1, 0)


def test_what_another_slot_holds_of_a_text_is_copied(model: GPT, native: bool) -> None:
    """And read there by both, as long as it stays: the same bits as if it had been read."""
    decoder = Decoder(model, 4, native=native)
    ids = some_ids(22)
    expected = step_through(decoder, ids)
    held = {0: ids[:21], 1: ids[:5]}
    assert decoder.copy(1, ids[:15], 0, held) == 0  # too little to be worth it
    assert decoder.copy(1, ids[:21], 5, held) == 21
    assert decoder.copy(2, ids[:21], 0, {1: ids[:21], 3: []}) == 21
    rows = [Row(ids[21], slot, 21) for slot in (0, 1, 2)]
    for again in range(2):
        logits, attention = decoder.step(rows, attention=True)
        assert attention
        for i in range(3):
            torch.testing.assert_close(logits[i], expected[21], atol=1e-5, rtol=1e-5)
            assert not native or torch.equal(logits[i], expected[21])
            assert not native or torch.equal(attention[i], attention[0])
        if not again:  # the source goes on with another text
            decoder.forget(0, 3)
            decoder.read(0, some_ids(19, 7), 3)
            rows = [rows[1], rows[2], rows[1]]
            assert not decoder._same[[1, 2]].any() or decoder._same[[1, 2]].max() <= 3


def test_what_torch_read_is_no_beginning_for_the_compiled_step() -> None:
    """Its last bits are others, and would make a text depend on the company it is in."""
    decoder = Decoder(random_model(TINY), 2, native=False)
    ids = some_ids(20)
    slot, _ = decoder.take(ids)
    decoder.read(slot, ids, 0)
    assert decoder.copy(1 - slot, ids, 0, {slot: ids}) == 20
    decoder.give_back(slot, ids)
    decoder.compile()
    assert decoder.copy(1 - slot, ids, 0, {slot: ids}) == 0
    assert decoder.take(ids) == (1 - slot, 0)
    decoder.read(1 - slot, ids, 0)
    assert decoder.copy(slot, ids, 0, {1 - slot: ids}) == 20


def test_a_decoder_made_in_inference_mode_copies_too(native: bool) -> None:
    with torch.inference_mode():
        decoder = Decoder(random_model(TINY), 2, native=native)
    ids = some_ids(20)
    decoder.read(0, ids, 0)
    assert decoder.copy(1, ids, 0, {0: ids}) == 20


def test_half_precision_models_take_torchs_steps() -> None:
    model = random_model(TINY).bfloat16()
    decoder, ids = Decoder(model, native=True), some_ids(6)
    assert not decoder.can_compile()
    torch.testing.assert_close(
        step_through(decoder, ids), whole(model, ids).float(), atol=0.2, rtol=0.05
    )


def test_without_numba_torchs_steps_are_taken_without_a_word(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "numba", None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        decoder = Decoder(random_model(TINY))
        decoder.compile()
    assert not decoder.compiled


def test_a_compiler_that_fails_leaves_torchs_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ptx.decoder._Native.try_out", lambda _: 1 / 0)
    model, ids = random_model(TINY), some_ids(6)
    with pytest.warns(UserWarning, match="the decoder is not compiled here"):
        decoder = Decoder(model, native=True)
    torch.testing.assert_close(step_through(decoder, ids), whole(model, ids), atol=1e-4, rtol=1e-4)


def test_slots_that_make_no_sense_are_refused() -> None:
    with pytest.raises(UserError, match="slots must be at least 1"):
        Decoder(random_model(TINY), 0)
