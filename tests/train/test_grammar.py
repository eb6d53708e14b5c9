"""What Python's parser would refuse of what a model expects, and that it becomes less likely."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from ptx.corpus import Corpus
from ptx.errors import UserError
from ptx.guard import text_of
from ptx.model import GPT
from ptx.prefix import can_go_on, syntax_error
from ptx.sampling import USUAL
from tests.train.conftest import BYTES, TINY
from tests.train.test_beginnings import beginnings_of, written
from train.beginnings import Beginnings
from train.evaluate import held_out_excerpts, refused_after
from train.grammar import (
    CAME,
    WEIGHT,
    Excerpt,
    Grammar,
    judge,
    last_lines,
    refused,
)
from train.heldout import held_out
from train.loop import train
from train.settings import Settings

BEFORE, AFTER = "def f(a):\n    return [", "a, 'b']\n\n\nx = f(2) if 3 else 4\n"


def excerpt(before: str = BEFORE, after: str = AFTER) -> Excerpt:
    seen = [BYTES.eot, *BYTES.encode(before)]
    return Excerpt(before.encode(), [*seen, *BYTES.encode(after)], len(seen))


def test_an_excerpt_is_the_same_whoever_draws_it(data: Path) -> None:
    corpus = Corpus(data)
    begun = beginnings_of(corpus)
    four = Grammar(begun, 64, 3, range(4)).excerpts(7)
    assert four[2:] == Grammar(begun, 64, 3, range(2, 4)).excerpts(7)
    assert four != Grammar(begun, 64, 3, range(4)).excerpts(8)
    text = BYTES.decode(corpus.train.tolist())
    for one in four:
        assert len(one.ids) == 64
        begun = one.ids[0] == BYTES.eot
        assert 1 < one.n_seen <= 16 if begun else one.n_seen == 16
        assert one.before + BYTES.decode(one.ids[one.n_seen :]) in text
        assert one.before.endswith(BYTES.decode(one.ids[begun : one.n_seen]))
    assert {one.ids[0] == BYTES.eot for one in four} == {True, False}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\n\nif b:\n    c\nd\ne", "if b:\n    c\nd\ne"),
        ("    c\n    d", "    c\n    d"),
        ("a\n", "a\n"),
    ],
)
def test_a_prompt_begins_at_the_left_margin_if_it_can(text: str, expected: str) -> None:
    assert BYTES.decode(last_lines(BYTES.encode(text), BYTES)).decode() == expected


def test_refused_is_all_with_which_the_text_cannot_become_python() -> None:
    one = excerpt()
    found = refused(one, torch.ones(one.n_judged, BYTES.n_vocab), BYTES).tolist()
    expected = []
    for position in range(one.n_seen - 1, len(one.ids) - 1):
        text = BYTES.decode(one.ids[: position + 1])
        others = [t for t in range(256) if t != one.ids[position + 1]]
        expected += [[position, t] for t in others if not can_go_on(text_of(text + bytes([t])))]
        if syntax_error(text.decode(), ended=True):
            expected.append([position, BYTES.eot])
    assert found == expected
    assert len(found) > 500


def test_only_what_is_likely_is_asked_about() -> None:
    one = excerpt()
    chances = torch.zeros(one.n_judged, BYTES.n_vocab)
    chances[0, list(b")]")] = torch.tensor([0.5, 0.3])
    chances[1, ord(")")] = 0.01
    assert refused(one, chances, BYTES).tolist() == [[one.n_seen - 1, ord(")")]]


def test_what_follows_a_text_that_is_no_python_is_not_judged() -> None:
    broken = excerpt(after="a) + [1\n")
    found = refused(broken, torch.ones(broken.n_judged, BYTES.n_vocab), BYTES)
    assert found[:, 0].max() == broken.n_seen - 1  # a bracket is wrong after that


@pytest.mark.usefixtures("any_token")
def test_the_verdict_is_of_all_that_is_refused_at_each_position_and_of_all_that_came() -> None:
    torch.manual_seed(0)
    model, one, other = GPT(TINY).eval(), excerpt(), excerpt(after="a]\n")
    expected = mass = torch.zeros(())
    for each in (one, other):
        ids = torch.tensor([each.ids])
        logits = model(ids)[0]  # (T, V)
        expected = expected + CAME * F.cross_entropy(logits[:-1], ids[0, 1:], reduction="sum")
        p = (logits / USUAL.temperature).softmax(-1)
        wrong = torch.zeros_like(p)
        positions, tokens = refused(each, p[each.judged], BYTES).unbind(1)
        wrong[positions, tokens] = p[positions, tokens]
        expected = expected - WEIGHT * (1 - wrong.sum(1)).log().sum()
        mass = mass + wrong.sum()
    verdict = judge(model, BYTES, [one, other])
    torch.testing.assert_close(verdict.loss, expected, rtol=1e-2, atol=1e-3)
    assert verdict.refused == pytest.approx(mass.item(), rel=1e-4)


def test_a_model_that_expects_no_such_thing_learns_what_came_alone() -> None:
    model, one = GPT(TINY), excerpt()  # noise: nothing is likely
    verdict = judge(model, BYTES, [one])
    assert verdict.refused == 0
    ids = torch.tensor([one.ids])
    torch.testing.assert_close(
        verdict.loss, CAME * (ids.shape[1] - 1) * model(ids[:, :-1], ids[:, 1:])
    )


@pytest.mark.usefixtures("any_token")
def test_what_is_refused_becomes_less_likely() -> None:
    torch.manual_seed(0)
    model = GPT(TINY)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    before = judge(model, BYTES, [excerpt()]).refused
    for _ in range(8):
        optimizer.zero_grad()
        judge(model, BYTES, [excerpt()]).loss.backward()
        optimizer.step()
    assert judge(model, BYTES, [excerpt()]).refused < 0.7 * before


@pytest.mark.usefixtures("any_token")
def test_what_is_refused_after_held_out_text_is_a_mean_over_its_positions(data: Path) -> None:
    torch.manual_seed(0)
    model, texts = GPT(TINY).eval(), held_out(Corpus(data), "val")
    found = refused_after(model, BYTES, held_out_excerpts(texts, BYTES, 64, 10, 0))
    begun = Beginnings(texts[0].ids(BYTES), BYTES, "--continuations")
    excerpts = Grammar(begun, 64, 0, range(10)).excerpts(0)
    masses = [judge(model, BYTES, [excerpt]).refused for excerpt in excerpts]
    assert found == pytest.approx(sum(masses) / sum(e.n_judged for e in excerpts), rel=1e-4)
    assert 0 < found < 1


def settings(data: Path, runs: Path, **more: object) -> Settings:
    return Settings(
        preset="tiny", data=data, runs=runs, steps=6, cooldown=0.5, grammar=4, val_windows=4,
        device="cpu", precision="fp32", attention="math", compile="off", **more,
    )  # fmt: skip


@pytest.mark.usefixtures("any_token")
def test_a_run_reads_strictly_in_its_cooldown(data: Path, tmp_path: Path) -> None:
    directory = train(settings(data, tmp_path))
    lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    told = [line.get("refused") for line in lines if "loss" in line]
    assert told[:3] == [None] * 3
    assert all(0 < share < 1 for share in told[3:])


def test_data_without_python_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    data = written(tmp_path, "This is (not) a program, = is it?\n" * 99).path
    with pytest.raises(UserError, match="needs Python"):
        train(settings(data, tmp_path / "runs"))
    assert not (tmp_path / "runs").exists()
