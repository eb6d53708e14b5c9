"""Bits per byte: every token scored once, with the context that the protocol promises."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ptx.checkpoint import save_model
from ptx.config import PRESETS
from ptx.corpus import Corpus
from ptx.errors import UserError
from ptx.model import GPT
from train.evaluate import Evaluate, evaluate
from train.heldout import held_out
from train.kernels import Kernels
from train.score import score, token_scores, validate


@pytest.fixture(scope="module")
def model() -> GPT:
    torch.manual_seed(0)
    config = replace(PRESETS["nano"], vocab_size=257, context=16, n_layer=1, init="gpt2")
    model = GPT(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1 if parameter.ndim == 1 else 5)
    return model


@torch.no_grad()
def by_definition(model: GPT, tokens: np.ndarray) -> np.ndarray:
    """One token at a time, each in the window that the protocol puts it in."""
    context, out, start = model.config.context, [], 0
    ids = torch.from_numpy(tokens.astype(np.int64))
    for position in range(1, len(tokens)):
        while position > start + context:  # not predicted by this window: the next one, half on
            start = min(start + context // 2, len(tokens) - 1 - context)
        log_probs = model(ids[None, start:position])[0, -1].log_softmax(-1)
        out.append(-float(log_probs[ids[position]]))
    return np.array(out)


@pytest.mark.parametrize("n", [2, 10, 17, 18, 24, 25, 100])
def test_scores_equal_the_definition_whatever_the_length(model: GPT, n: int) -> None:
    tokens = np.random.default_rng(n).integers(257, size=n).astype(np.uint16)
    np.testing.assert_allclose(
        token_scores(model, tokens)[0], by_definition(model, tokens), rtol=1e-4
    )


def test_bits_per_byte_count_the_bytes_of_the_scored_text(model: GPT, data: Path) -> None:
    corpus = Corpus(data)
    project, everything = score(model, corpus.tokenizer, held_out(corpus, per_project=50))
    assert (project.project, everything.project) == ("json", "all")
    assert project.tokens == project.bytes == 50  # one byte a token
    bits = by_definition(model, np.array([corpus.tokenizer.eot, *corpus.val[:50]])).sum()
    assert project.bits_per_byte == pytest.approx(bits / math.log(2) / 50, rel=1e-4)
    assert score(model, corpus.tokenizer, held_out(corpus))[0].tokens == len(corpus.val)


def test_validation_is_the_mean_over_its_windows(model: GPT, data: Path) -> None:
    corpus = Corpus(data)
    windows = corpus.val_windows(16, 40)
    loss, bpb = validate(model, windows, corpus.tokenizer.byte_lengths, Kernels())
    x, y = map(torch.from_numpy, windows)
    with torch.no_grad():
        expected = torch.nn.functional.cross_entropy(model(x).flatten(0, 1), y.flatten())
    assert loss == pytest.approx(float(expected), rel=1e-5)
    n_bytes = corpus.tokenizer.byte_lengths[y.numpy()].sum()
    assert bpb == pytest.approx(loss * y.numel() / math.log(2) / n_bytes)
    assert not model.training


def test_the_command_writes_what_it_measured(model: GPT, data: Path, tmp_path: Path) -> None:
    save_model(tmp_path / "model", model, Corpus(data).tokenizer)
    text = tmp_path / "mine" / "one.py"
    text.parent.mkdir()
    text.write_text("def f(x):\n    return [x]\n" * 60)
    (text.parent / "two.py").write_text("import os\n\n\nprint(os.getcwd())\n" * 60)
    out = tmp_path / "found.json"
    evaluate(
        Evaluate(
            tmp_path / "model", data, text=text.parent, against=(tmp_path / "model",),
            baselines=True, continuations=2, json=out, device="cpu",
        )
    )  # fmt: skip
    found = json.loads(out.read_text())
    [mine, everything] = found["projects"]
    assert (mine["project"], everything["project"]) == ("mine", "all")
    assert mine["bytes"] == sum(path.stat().st_size for path in text.parent.iterdir())
    assert mine["tokens"] == mine["bytes"] + 2  # an end-of-text token a file
    assert mine["against"][str(tmp_path / "model")] == mine["bits_per_byte"]
    assert mine["against"]["xz -9"] < mine["bits_per_byte"]
    assert 0 <= mine["top1"] < 0.2
    assert found["continuations"]["continuations"] == 2
    assert 0 <= found["continuations"]["parsed"] <= 1
    assert 0 <= found["continuations"]["refused_after_real_text"] < 1


def test_what_is_too_short_to_continue_is_refused_before_it_is_scored(
    model: GPT, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_model(tmp_path / "model", model, Corpus(data).tokenizer)
    (tmp_path / "short.py").write_text("x = 1\n")
    args = Evaluate(tmp_path / "model", text=tmp_path / "short.py", continuations=2, device="cpu")
    with pytest.raises(UserError, match="leave out --continuations"):
        evaluate(args)
    assert not capsys.readouterr().out


def test_a_place_for_the_report_that_is_not_there_is_refused_before_it_is_measured(
    tmp_path: Path,
) -> None:
    args = Evaluate(tmp_path / "model", json=tmp_path / "absent" / "report.json")
    with pytest.raises(UserError, match=r"there is no directory .*absent: make it first"):
        evaluate(args)


def test_top_1_counts_the_tokens_that_were_the_likeliest(model: GPT) -> None:
    tokens = np.random.default_rng(0).integers(257, size=9)
    with torch.no_grad():
        best = model(torch.from_numpy(tokens[None, :-1]))[0].argmax(-1).numpy()
    tokens[3] = model(torch.from_numpy(tokens[None, :3]))[0, -1].argmax()
    _, hits = token_scores(model, tokens)
    assert hits[2]
    assert not hits[0] or best[0] == tokens[1]
