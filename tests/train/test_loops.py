"""Windows in which a passage is repeated: what is in them, what they teach, a run that has them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ptx.corpus import Corpus
from ptx.errors import UserError
from ptx.model import GPT
from tests.train.conftest import BYTES, TINY, assert_equal_ends, interrupted
from tests.train.test_beginnings import written
from train.loop import loops_of, train
from train.loops import MOST_COPIES, WEIGHT, Loop, Loops, lesson, repeated
from train.parallel import World
from train.settings import Settings

FILE = b"""before:
  a = g(b, c)
  a = g(d)
  b = [1, 2, a, 3]
  print(a, b)

def h(a, b=1):
  return a + 2 * b - a
"""


def loops(count: int = 200) -> list[Loop]:
    window = np.frombuffer(FILE, np.uint8).astype(np.int64)
    found = (repeated(window, BYTES.eot, np.random.default_rng(seed)) for seed in range(9 * count))
    return [loop for loop in found if loop][:count]


def text(loop: Loop, end: int | None = None) -> bytes:
    return bytes(loop.ids[:end].tolist())


def test_a_window_is_the_file_with_copies_of_a_passage_put_in_after_it() -> None:
    for loop in loops():
        copies = len(loop.ends)
        assert 1 <= copies <= MOST_COPIES
        assert len(loop.ids) == len(FILE)
        assert any(
            (FILE[:end] + FILE[start:end] * copies + FILE[end:])[: len(FILE)] == text(loop)
            for start in range(1, len(FILE))
            for end in range(start + 1, len(FILE))
        )


def test_at_every_end_the_passage_would_go_on_and_the_file_leaves_it() -> None:
    """The file is found again by cutting all copies but one out of the window."""
    for loop in loops():
        if len(loop.ends) < 2:
            continue
        length = loop.ends[1] - loop.ends[0]
        assert set(np.diff(loop.ends)) == {length}
        for end in loop.ends:
            came = text(loop, end + 1)
            assert came[-length:] == came[-2 * length : -length]
            once = came[: -length * (1 + list(loop.ends).index(end))]
            assert FILE.startswith(once)
            assert FILE[len(once)] == loop.leaves != loop.again
        assert [loop.ids[end + 1] for end in loop.ends[:-1]] == [loop.again] * (len(loop.ends) - 1)
        assert loop.ids[loop.ends[-1] + 1] == loop.leaves


def test_a_passage_lies_within_a_file() -> None:
    window = np.frombuffer(FILE, np.uint8).astype(np.int64)
    window[len(window) // 4 :: 9] = BYTES.eot
    found = [repeated(window, BYTES.eot, np.random.default_rng(seed)) for seed in range(500)]
    some = [loop for loop in found if loop and len(loop.ends) > 1]
    assert len(some) > 20
    for loop in some:
        inside = slice(3 * loop.ends[0] - 2 * loop.ends[1] + 1, loop.ends[-1] + 2)
        assert BYTES.eot not in loop.ids[inside]


def test_a_loop_is_the_same_whoever_makes_it(data: Path) -> None:
    corpus = Corpus(data)
    four = [one.ids.tolist() for one in Loops(corpus, 64, 3, range(4)).loops(7)]
    assert four[2:] == [one.ids.tolist() for one in Loops(corpus, 64, 3, range(2, 4)).loops(7)]
    assert four != [one.ids.tolist() for one in Loops(corpus, 64, 3, range(4)).loops(8)]
    assert len({tuple(one) for one in four}) == 4


def test_the_lesson_is_the_loss_at_the_ends_alone() -> None:
    torch.manual_seed(0)
    model, some = GPT(replace(TINY, context=len(FILE))).eval(), loops(3)
    expected, again = 0.0, 0.0
    for loop in some:
        log_p = model(torch.from_numpy(loop.ids)[None])[0].log_softmax(-1)  # (T, V)
        expected -= WEIGHT * sum(log_p[end, loop.leaves].item() for end in loop.ends)
        again += sum(log_p[end, loop.again].exp().item() for end in loop.ends)
    loss, found = lesson(model, some)
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert found == pytest.approx(again, rel=1e-4)


def test_to_leave_them_is_learnt() -> None:
    torch.manual_seed(0)
    model, some = GPT(replace(TINY, context=len(FILE))), loops(32)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    before = lesson(model, some)[0].item()
    for _ in range(30):
        optimizer.zero_grad()
        lesson(model, some)[0].backward()
        optimizer.step()
    assert lesson(model, some)[0].item() < before / 2


def settings(data: Path, runs: Path, **more: object) -> Settings:
    return Settings(
        preset="tiny", data=data, runs=runs, steps=6, cooldown=0.5, loops=4, val_windows=4,
        device="cpu", precision="fp32", attention="math", compile="off", **more,
    )  # fmt: skip


def test_a_run_leaves_loops_in_its_cooldown(data: Path, tmp_path: Path) -> None:
    directory = train(settings(data, tmp_path))
    lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    told = [line.get("looping") for line in lines if "loss" in line]
    assert told[:3] == [None] * 3
    assert all(0 < share < 1 for share in told[3:])


def test_a_run_that_leaves_loops_resumes_bit_for_bit(data: Path, tmp_path: Path) -> None:
    whole = train(settings(data, tmp_path, name="whole"))
    paused = interrupted(settings(data, tmp_path, name="paused", save_every=4), 4)
    train(Settings(resume=paused))
    assert_equal_ends(whole, paused)


def test_loops_are_shared_evenly_and_not_with_spread_weights(data: Path, tmp_path: Path) -> None:
    given, corpus = settings(data, tmp_path), Corpus(data)
    second = World(torch.device("cpu"), rank=1, size=2)
    found = loops_of(given, second, corpus, TINY)
    assert found
    assert found.numbers == range(2, 4)
    with pytest.raises(UserError, match="--loops"):
        loops_of(replace(given, loops=3), second, corpus, TINY)
    with pytest.raises(UserError, match="--shard"):
        loops_of(given, replace(second, shard=True), corpus, TINY)


def test_data_with_nothing_to_repeat_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    data = written(tmp_path, "a" * 999).path
    with pytest.raises(UserError, match="--loops needs"):
        train(settings(data, tmp_path / "runs"))
    assert not (tmp_path / "runs").exists()


def test_loops_without_a_cooldown_are_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--loops is for the cooldown"):
        train(replace(settings(data, tmp_path), cooldown=0.0))
    with pytest.raises(UserError, match="--loops must be 0 or more"):
        train(replace(settings(data, tmp_path), loops=-1))
