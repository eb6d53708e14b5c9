"""What the model learns from its own text: where faults are found, and that they become rarer."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ptx.checkpoint import find_model
from ptx.config import PRESETS
from ptx.corpus import Corpus, CorpusWriter
from ptx.errors import UserError
from ptx.model import GPT
from ptx.tokenizer import python_tokenizer
from train.loop import Run, practice_of, train
from train.parallel import World
from train.practice import (
    PASSAGE,
    SAMPLING,
    Attempt,
    Lessons,
    Practice,
    correction,
    faults,
    repetitions,
)
from train.settings import Settings

BYTES = python_tokenizer("bytes", {bytes([i]): i for i in range(256)})
TINY = replace(
    PRESETS["nano"], vocab_size=257, context=64, n_layer=2, n_head=2, n_kv_head=2, head_size=8,
    d_model=16, d_mlp=32,
)  # fmt: skip


def attempt(before: str, written: str, ended: bool = False) -> Attempt:
    ids = [BYTES.eot, *BYTES.encode(before), *BYTES.encode(written), *[BYTES.eot] * ended]
    return Attempt(before.encode(), ids, 1 + len(before.encode()), ended)


def slips(before: str, written: str, ended: bool = False) -> str:
    """The bytes that are blamed most; $ for the end of the text."""
    found = faults(attempt(before, written, ended), BYTES)[1]
    most = found == found.max() if found.any() else found > 0
    whole = written.encode() + b"$" * ended
    return bytes(c for c, blamed in zip(whole, most, strict=True) if blamed).decode()


@pytest.mark.parametrize(
    ("written", "blamed"),
    [
        ("x = 1\ny = = 2\nz = 3\n", "="),
        ("x = f(1]\ny = 2\n", "]"),
        ("x = 1)\ny = 2\n", ")"),
        ("x = '\u00fc', 'ä' 12 34\ny = 2\n", "12"),  # Python counts characters
        ("if x:\ny = 2\n", "\ny"),
        ("def f():\n        b\n    c\nd = 1\n", "  c"),
        ("x = f(b,\n    c\nreturn 3\nd = 5\n", "r"),  # the bracket, says Python
        ('y = = 2\ndef f():\n    """abc\n', "="),  # the string, says Python
    ],
)
def test_the_place_where_the_parser_gives_up_is_blamed(written: str, blamed: str) -> None:
    assert slips("a = 0\n", written) == blamed


@pytest.mark.parametrize(
    "written", ["x = 1\ny = 2\n", "def f(a,\n", 'x = """\n', "x = 1 +", "", "if x:\n    y"]
)
def test_nothing_is_wrong_with_python_that_goes_on(written: str) -> None:
    assert not faults(attempt("a = 0\n", written), BYTES).any()


def test_to_end_a_file_in_a_bracket_is_a_slip_and_to_end_it_whole_is_none() -> None:
    assert slips("a = 0\n", "x = (1,\n", ended=True) == "$"
    assert slips("a = 0\nf(", "", ended=True) == "$"
    assert slips("a = 0\n", "x = 1\n", ended=True) == ""


def test_an_error_that_begins_before_the_new_text_is_blamed_on_it() -> None:
    assert slips("x = (", "]\n") == "]"
    assert slips("a = foo(b,\n", "    c\nreturn 3 4\nd = 5\n") == "r"


def test_any_text_has_a_place_to_blame() -> None:
    random = np.random.default_rng(0)
    for before in (b"a = 1\nb", b"f(a,\n", b'"""\n', b"if a:\n    "):
        for _ in range(100):
            new = random.choice(list(b"a\xc3\xa9 =([)'\"\n\r:\\\0f"), 40).tolist()
            ids = [BYTES.eot, *before, *new]
            found = faults(Attempt(before, ids, len(ids) - 40, bool(new[0] % 2)), BYTES)
            assert found.shape == (2, 40)


def test_the_middle_of_a_character_is_no_slip() -> None:
    assert not faults(Attempt(b"d\xc3", [BYTES.eot, *b"d\xc3\xa9f = 1\n"], 3, False), BYTES).any()


def test_what_comes_after_the_parser_gave_up_is_not_judged() -> None:
    again = "value = compute(1)\n" * 3
    wrong = "y = = 2\n"
    found = faults(attempt("a = 0\n", wrong + again), BYTES)
    assert not found[:, len(wrong) :].any()
    assert faults(attempt("a = 0\n", again), BYTES)[0].any()


def test_passages_are_repetitions_from_the_second_time_on() -> None:
    passage = list(range(PASSAGE))
    assert list(repetitions([*passage, 99, *passage])) == [2 * PASSAGE + 1]
    assert not list(repetitions([*passage, 99, *passage[:-1]]))
    assert list(repetitions([7] * (PASSAGE + 2))) == [PASSAGE + 1, PASSAGE + 2]


def test_the_correction_is_the_sum_of_its_terms() -> None:
    torch.manual_seed(0)
    model = GPT(TINY).eval()
    ids = torch.randint(257, (2, 64))
    repeated, slipped = torch.zeros(2, 64), torch.zeros(2, 64)
    repeated[0, 5], slipped[1, 9] = 0.5, 20.0
    p = (model.head(model.hidden(ids)) / SAMPLING.temperature).softmax(-1)  # (B, T, V)
    expected = -0.5 * (1 - p[0, 5, ids[0, 6]]).log() + 20 * p[1, 9, ids[1, 10]].log()
    torch.testing.assert_close(
        correction(model, ids, repeated, slipped), expected, rtol=1e-3, atol=1e-4
    )


def test_what_is_corrected_becomes_less_likely() -> None:
    torch.manual_seed(0)
    model = GPT(TINY)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    ids = torch.randint(257, (1, 64))
    repeated, slipped = torch.zeros(1, 64), torch.zeros(1, 64)
    repeated[0, 5], slipped[0, 9] = 1.0, 1.0

    def probabilities() -> torch.Tensor:
        p = model.head(model.hidden(ids)).softmax(-1)[0]  # (T, V)
        return torch.stack([p[5, ids[0, 6]], p[9, ids[0, 10]]])

    before = probabilities()
    for _ in range(20):
        optimizer.zero_grad()
        correction(model, ids, repeated, slipped).backward()
        optimizer.step()
    assert (probabilities() < 0.7 * before).all()


def test_lessons_hold_what_was_wrong_and_nothing_else() -> None:
    good, bad = attempt("a = 0\n", "x = 1\n"), attempt("a = 0\n", "x = = 1\n")
    lessons = Lessons([good, bad, bad], 64, BYTES)
    assert (lessons.written, lessons.parsed, lessons.repeated) == (6 + 8 + 8, 1, 0)
    [(ids, repeated, slipped)] = lessons.parts(4)
    assert ids.shape == slipped.shape == (4, 64)
    assert ids[0, : len(bad.ids)].tolist() == bad.ids
    assert not repeated.any()
    assert not slipped[2:].any()
    # the weight of a token stands at the position that it is chosen at
    assert chr(ids[0, int(slipped[0].argmax()) + 1]) == "="


def test_an_attempt_is_the_same_whoever_makes_it(data: Path) -> None:
    torch.manual_seed(0)
    corpus, model = Corpus(data), GPT(TINY).eval()
    four = Practice(corpus, 64, 3, range(4)).attempts(model, 7)
    two = Practice(corpus, 64, 3, range(2, 4)).attempts(model, 7)
    assert four[2:] == two
    assert len({tuple(one.ids) for one in four}) == 4
    assert four != Practice(corpus, 64, 3, range(4)).attempts(model, 8)
    for one in four:
        assert one.ids[0] == corpus.tokenizer.eot
        assert len(one.ids) <= 64
        assert one.before.endswith(bytes(one.ids[1 : one.n_prompt]))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("This is (not) a program, = is it?\n" * 99, "needs Python"),
        ("x = 1\n" * 8, "needs files of"),
    ],
)
def test_data_without_python_is_refused(tmp_path: Path, text: str, sentence: str) -> None:
    with CorpusWriter(tmp_path / "data", BYTES) as writer:
        sources = {}
        for split in ("train", "val"):
            tokens = [*BYTES.encode(text), BYTES.eot]
            writer.write(split, tokens)
            counts = {"files": 1, "bytes": len(text), "tokens": len(tokens)}
            sources[split] = [{"name": "a", "version": "1", "licence": None} | counts]
        writer.finish(sources)
    with pytest.raises(UserError, match=sentence):
        train(settings(tmp_path / "data", tmp_path / "runs"))
    assert not (tmp_path / "runs").exists()


def settings(data: Path, runs: Path, **more: object) -> Settings:
    return Settings(
        preset="tiny", data=data, runs=runs, steps=6, cooldown=0.5, practice=4, val_windows=4,
        device="cpu", precision="fp32", attention="math", compile="off", **more,
    )  # fmt: skip


def test_a_run_practises_while_its_rate_falls(data: Path, tmp_path: Path) -> None:
    directory = train(settings(data, tmp_path))
    lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    told = [{"parsed", "repeated"} <= set(line) for line in lines if "loss" in line]
    assert told == [False] * 3 + [True] * 3


def test_a_run_that_practises_resumes_bit_for_bit(data: Path, tmp_path: Path) -> None:
    whole = train(settings(data, tmp_path, name="whole"))
    paused = Run.start(settings(data, tmp_path, name="paused", save_every=4))
    for _ in range(4):
        paused.step()
    paused.close()
    resumed = Run.resume(paused.directory)
    resumed.to_the_end()
    resumed.close()
    for name in ("model.safetensors", "optimizer.safetensors"):
        ours, theirs = (find_model(run) / name for run in (whole, paused.directory))
        assert ours.read_bytes() == theirs.read_bytes()


def test_practice_is_shared_evenly_and_not_with_spread_weights(data: Path, tmp_path: Path) -> None:
    given, corpus = settings(data, tmp_path), Corpus(data)
    second = World(torch.device("cpu"), rank=1, size=2)
    found = practice_of(given, second, corpus, TINY)
    assert found
    assert found.numbers == range(2, 4)
    with pytest.raises(UserError, match="--practice"):
        practice_of(replace(given, practice=3), second, corpus, TINY)
    with pytest.raises(UserError, match="--shard"):
        practice_of(given, replace(second, shard=True), corpus, TINY)


def test_practice_without_a_cooldown_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--cooldown"):
        train(replace(settings(data, tmp_path), cooldown=0.0))
    with pytest.raises(UserError, match="--practice must be 0 or more"):
        train(replace(settings(data, tmp_path), practice=-1))
