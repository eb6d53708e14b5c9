"""What is scored: the held-out projects of a data directory, or somebody's own files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ptx.corpus import Corpus
from ptx.errors import UserError
from train.heldout import files, held_out


def test_a_projects_tokens_come_back_from_its_text(data: Path) -> None:
    corpus = Corpus(data)
    for per_project, closed in ((0, True), (50, False), (10**9, True)):
        [text] = held_out(corpus, per_project=per_project)
        assert (text.project, text.closed) == ("json", closed)
        expected = corpus.val[: per_project or None]
        np.testing.assert_array_equal(text.ids(corpus.tokenizer), expected)
        assert text.bytes == int(corpus.tokenizer.byte_lengths[expected].sum())
    whole = Path(json.__file__).read_bytes()
    assert held_out(corpus)[0].documents == (whole,)


def test_a_folders_subfolders_are_its_projects(tmp_path: Path) -> None:
    for name in ("a/one.py", "a/deep/two.py", "b/three.py", "loose.py", "b/empty.py", "b/no.txt"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("" if "empty" in name else f"# {name}\n")
    (tmp_path / "b" / "folder.py").mkdir()
    (tmp_path / "b" / ".#lock.py").symlink_to("nobody@nowhere")
    (tmp_path / "b" / "again.py").symlink_to(tmp_path / "loose.py")
    found = {text.project: text.documents for text in files(tmp_path)}
    assert found == {
        "a": (b"# a/deep/two.py\n", b"# a/one.py\n"),
        "b": (b"# b/three.py\n",),
        tmp_path.name: (b"# loose.py\n",),
    }
    [single] = files(tmp_path / "loose.py")
    assert (single.project, single.documents) == ("loose.py", (b"# loose.py\n",))


def test_what_cannot_be_scored_is_refused_by_name(data: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nothing at .*absent"):
        files(tmp_path / "absent")
    with pytest.raises(UserError, match="holds no Python"):
        files(tmp_path)
    with pytest.raises(UserError, match="no test split: prepare it again with --test-fraction"):
        held_out(Corpus(data), "test")
    with pytest.raises(UserError, match="--tokens must be 0"):
        held_out(Corpus(data), per_project=-1)
