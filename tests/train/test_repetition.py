"""Windows in which a passage is repeated: what is in them, what they teach, a run that has them."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ptx.corpus import Corpus
from ptx.errors import UserError
from ptx.model import GPT
from tests.train.conftest import BYTES, TINY
from tests.train.test_beginnings import written
from train.loop import train
from train.repetition import AGAIN, CAME, LEAVES, Loop, Loops, lesson, repeated, with_copies
from train.settings import Settings

FILE = b"""before:
  a = g(b, c)
  a = g(d)
  b = [1, 2, a, 3]
  print(a, b)

def h(a, b=1):
  return a + 2 * b - a
"""


def ids(text: bytes) -> np.ndarray:
    return np.frombuffer(text, np.uint8).astype(np.int64)


def loops(count: int, window: np.ndarray | None = None) -> list[Loop]:
    window = ids(FILE) if window is None else window
    found = (repeated(window, BYTES.eot, np.random.default_rng(seed)) for seed in range(30 * count))
    return [loop for loop in found if loop][:count]


class Twice(np.random.Generator):
    """Draws two copies."""

    def geometric(self, *_args: object) -> int:
        return 2


def test_copies_stand_before_what_follows_them_in_the_file() -> None:
    file, passage = b"a = 1\nb = 2\nif b:\n  c\nif d:\n  a\n" + b"." * 60, b"b = 2\n"
    places = [file.index(b"if b"), file.index(b"if d"), file.index(b"b = 2")]
    loop = with_copies(ids(file), ids(passage), places[:2], Twice(np.random.PCG64()))
    assert loop
    text = b"a = 1\nb = 2\n" + passage * 2 + b"if b:\n  c\n" + passage * 2 + b"if d:\n  a\n"
    assert bytes(loop.ids.tolist()) == (text + b"." * 60)[: len(file)]
    own = "o" * 12 + "c" * 12 + "o" * 10 + "c" * 12 + "o" * 999
    assert "".join("co"[int(mine)] for mine in loop.own) == own[: len(file)]
    before = [12, 18, 24, 34, 40, 46]  # where a copy begins, or the file goes on
    assert loop.forks.tolist() == [
        [place - 1 for place in before], [ord("i")] * 6, [ord("b")] * 6
    ]  # fmt: skip
    assert with_copies(ids(file), ids(passage), places[2:], Twice(np.random.PCG64())) is None


def test_a_fork_is_where_the_copy_and_the_file_part() -> None:
    file = b"x = f(a)\nx = f(b)\nx = g(c)\n" + b"." * 40
    passage, place = b"x = f(b)\n", file.index(b"x = g")
    loop = with_copies(ids(file), ids(passage), [place], Twice(np.random.PCG64()))
    assert loop
    for position in loop.forks[0]:
        assert bytes(loop.ids[: position + 1].tolist()).endswith(b")\nx = ")
    assert loop.forks[1:].tolist() == [[ord("g")] * 3, [ord("f")] * 3]


def test_no_copy_stands_where_the_last_one_and_the_file_have_not_parted() -> None:
    """`a ` follows both joints: after the first copy the file's `e` is that of the second."""
    file = b"x\na b\nc d\na b\nc e\n" + b"." * 60
    places = [file.index(b"a b\nc e"), file.index(b"c e")]
    loop = with_copies(ids(file), ids(b"a b\nc d\n"), places, Twice(np.random.PCG64()))
    assert loop
    assert loop.forks.shape == (3, 3)
    assert bytes(loop.ids.tolist()).count(b"a b\nc d\n") == 3


def test_after_a_fork_comes_the_copy_or_the_file() -> None:
    found = loops(200)
    assert any(loop.forks[0, -1] == len(FILE) - 1 for loop in found)
    for loop in found:
        assert len(loop.ids) == len(FILE)
        for position, leaves, again in loop.forks.T:
            assert leaves != again
            assert loop.ids[position + 1 : position + 2].tolist() in ([leaves], [again], [])
        assert loop.ids[loop.forks[0, 0] + 1] == loop.forks[2, 0]


def test_copies_are_put_into_one_file_only() -> None:
    window = ids(FILE)
    stop = 2 * len(window) // 3
    window[stop] = BYTES.eot
    found = loops(200, window)
    assert sum(BYTES.eot in loop.ids for loop in found) > 50
    for loop in found:
        [[*ends]] = np.nonzero(loop.ids == BYTES.eot)
        assert all(position < end for position in loop.forks[0] for end in ends)
    window[: stop + 1] = BYTES.eot
    assert not loops(1, window)


def test_a_loop_is_the_same_whoever_makes_it(data: Path) -> None:
    corpus = Corpus(data)
    four = [one.ids.tolist() for one in Loops(corpus, 64, 3, range(4)).loops(7)]
    assert {one[0] == BYTES.eot for one in four} == {True, False}
    assert four[2:] == [one.ids.tolist() for one in Loops(corpus, 64, 3, range(2, 4)).loops(7)]
    assert four != [one.ids.tolist() for one in Loops(corpus, 64, 3, range(4)).loops(8)]
    assert len({tuple(one) for one in four}) == 4


def test_the_lesson_is_of_the_forks_and_of_the_file_but_not_of_copies(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    model, some = GPT(replace(TINY, context=len(FILE))).eval(), loops(3)
    expected, copies, came = 0.0, 0.0, []
    monkeypatch.setattr("train.repetition.SURE", 1.0)
    for loop in some:
        log_p = model(torch.from_numpy(loop.ids)[None])[0].log_softmax(-1)  # (T, V)
        came += [-log_p[i - 1, loop.ids[i]].item() for i in np.flatnonzero(loop.own)[1:]]
        for position, leaves, again in loop.forks.T:
            p = log_p[position, again].exp().item()
            expected -= LEAVES * log_p[position, leaves].item() + AGAIN * math.log(1 - p)
            copies += p
    forks = sum(loop.n_forks for loop in some)
    loss, found = lesson(model, some)
    assert loss.item() == pytest.approx(expected + CAME * forks * np.mean(came), rel=1e-5)
    assert found == pytest.approx(copies, rel=1e-4)


def test_not_to_repeat_is_learnt() -> None:
    """By a model that has learnt to write the copies."""
    torch.manual_seed(0)
    model, some = GPT(replace(TINY, context=len(FILE))), loops(32)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    texts = torch.from_numpy(np.stack([loop.ids for loop in some]))
    for _ in range(60):
        optimizer.zero_grad()
        model(texts[:, :-1], texts[:, 1:]).backward()
        optimizer.step()
    before = lesson(model, some)[1]
    for _ in range(40):
        optimizer.zero_grad()
        lesson(model, some)[0].backward()
        optimizer.step()
    assert lesson(model, some)[1] < before / 2


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


def test_data_with_nothing_to_repeat_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    data = written(tmp_path, "a" * 999).path
    with pytest.raises(UserError, match="--loops needs"):
        train(settings(data, tmp_path / "runs"))
    assert not (tmp_path / "runs").exists()
