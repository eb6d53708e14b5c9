"""Beginnings of training files, which are Python."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest

from ptx.corpus import Corpus, CorpusWriter
from ptx.errors import UserError
from ptx.prefix import syntax_error
from tests.train.conftest import BYTES
from train.beginnings import LONGEST, SHORTEST, Beginnings


def test_a_beginning_and_what_follows_are_a_file(data: Path) -> None:
    corpus = Corpus(data)
    beginnings, random = beginnings_of(corpus), np.random.default_rng(0)
    for _ in range(20):
        begun, after = beginnings.draw(random)
        assert SHORTEST <= len(begun) < LONGEST
        text = BYTES.decode(begun).decode()
        assert syntax_error(text) is None
        ast.parse(text + BYTES.decode(after).decode())


def test_a_beginning_that_is_no_python_is_not_drawn(tmp_path: Path) -> None:
    corpus = written(tmp_path, "x = 1\n" * 40 + "y = = 1\n" * 20)
    beginnings, random = beginnings_of(corpus), np.random.default_rng(0)
    assert all(b"= =" not in BYTES.decode(beginnings.draw(random)[0]) for _ in range(50))


def test_every_file_is_drawn_from_its_first_token_on(tmp_path: Path) -> None:
    files = ["a = 1\n" * 20, "\ufeff" + "b = 1\n" * 20, "c = 1\n" * 20]
    beginnings = beginnings_of(written(tmp_path, *files))
    random = np.random.default_rng(0)
    drawn = {tuple(map(BYTES.decode, beginnings.draw(random))) for _ in range(60)}
    assert {(begun + after).decode() for begun, after in drawn} == set(files)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("This is (not) a program, = is it?\n" * 99, "--grammar needs Python"),
        ("x = 1\n" * 8, "--grammar needs files of"),
    ],
)
def test_data_without_python_is_refused(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        beginnings_of(written(tmp_path, text))


def beginnings_of(corpus: Corpus) -> Beginnings:
    return Beginnings(corpus.train, corpus.tokenizer, "--grammar")


def written(folder: Path, *texts: str) -> Corpus:
    """Data of these files."""
    tokens = [token for text in texts for token in (*BYTES.encode(text), BYTES.eot)]
    size = sum(len(text.encode()) for text in texts)
    counts = {"files": len(texts), "bytes": size, "tokens": len(tokens)}
    source = {"name": "a", "version": "1", "licence": None} | counts
    with CorpusWriter(folder / "data", BYTES) as writer:
        for split in ("train", "val"):
            writer.write(split, tokens)
        writer.finish({"train": [source], "val": [source]})
    return Corpus(folder / "data")
