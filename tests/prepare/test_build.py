"""From documents to tokens: order, end-of-text, copies, provenance."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from prepare import build as module
from prepare.build import build
from prepare.sources import Document, Project
from ptx.corpus import Corpus, CorpusWriter, verify
from ptx.tokenizer import get_tokenizer

EOT = "<eot>"


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Encode here: tests/prepare/test_run.py covers the worker processes."""

    def run(function: Callable, items: Iterable, chunksize: int) -> Iterator:
        return map(function, items)

    @contextmanager
    def encoders(tokenizer: str) -> Iterator[SimpleNamespace]:
        yield SimpleNamespace(map=run)

    monkeypatch.setattr(module, "encoders", encoders)
    monkeypatch.setattr(module, "_tokenizer", get_tokenizer("py16k"), raising=False)


def project(root: Path, name: str, *contents: str, continuous: bool = False) -> Project:
    documents = []
    for i, content in enumerate(contents):
        path = root / f"{name}_{i}.py"
        path.write_bytes(content.encode())
        documents.append(Document(path))
    return Project(name, "1.0", "MIT", tuple(documents), continuous)


def prepared(root: Path, train: list[Project], val: list[Project]) -> tuple[Corpus, dict]:
    tokenizer = get_tokenizer("py16k")
    with CorpusWriter(root / "data", tokenizer) as writer:
        projects = {"train": train, "val": val}
        sources, sieve = build(projects, "py16k", writer, lambda size: None)
        writer.finish(sources, filters=sieve.record())
    assert verify(root / "data") == []
    opened = Corpus(root / "data")
    return opened, opened.manifest


def shown(opened: Corpus, split: str) -> str:
    tokenizer = opened.tokenizer
    ids = getattr(opened, split)
    return "".join(EOT if i == tokenizer.eot else tokenizer.text([i]) for i in ids)


def test_every_file_ends_with_end_of_text_and_projects_keep_their_order(tmp_path: Path) -> None:
    a = project(tmp_path, "a", "x = 1\n", "y = 2\n")
    b = project(tmp_path, "b", "z = 3\n")
    opened, manifest = prepared(tmp_path, [a, b], [project(tmp_path, "v", "v = 4\n")])
    assert shown(opened, "train") == f"x = 1\n{EOT}y = 2\n{EOT}z = 3\n{EOT}"
    assert shown(opened, "val") == f"v = 4\n{EOT}"
    assert [s["name"] for s in manifest["sources"]["train"]] == ["a", "b"]
    first = manifest["sources"]["train"][0]
    assert first == first | {"version": "1.0", "licence": "MIT", "files": 2, "bytes": 12}


def test_end_of_text_in_a_file_stays_text(tmp_path: Path) -> None:
    a = project(tmp_path, "a", "s = '<|endoftext|>'\n")
    opened, manifest = prepared(tmp_path, [a], [project(tmp_path, "v", "v = 4\n")])
    assert shown(opened, "train") == f"s = '<|endoftext|>'\n{EOT}"
    assert manifest["splits"]["train"]["files"] == 1


def test_a_copy_stays_in_validation_and_leaves_training(tmp_path: Path) -> None:
    a = project(tmp_path, "a", "x = 1\n", "shared = 2\n", "x = 1\n")
    opened, manifest = prepared(tmp_path, [a], [project(tmp_path, "v", "shared = 2\n")])
    assert shown(opened, "train") == f"x = 1\n{EOT}"
    assert shown(opened, "val") == f"shared = 2\n{EOT}"
    assert manifest["filters"]["duplicate"] == {"files": 2, "bytes": 17}


def test_a_project_of_which_nothing_is_left_is_not_listed(tmp_path: Path) -> None:
    train = [project(tmp_path, "a", "x = 1\n"), project(tmp_path, "gone", "", "\n")]
    _, manifest = prepared(tmp_path, train, [project(tmp_path, "v", "v = 4\n")])
    assert [s["name"] for s in manifest["sources"]["train"]] == ["a"]


def test_one_text_ends_only_where_a_part_was_removed(tmp_path: Path) -> None:
    parts = ("a = 1\n", "b = 2\n", "", "c = 3\n", "d = 4\n")
    train = project(tmp_path, "text", *parts, continuous=True)
    opened, manifest = prepared(tmp_path, [train], [project(tmp_path, "v", "v = 4\n")])
    assert shown(opened, "train") == f"a = 1\nb = 2\n{EOT}c = 3\nd = 4\n{EOT}"
    assert manifest["sources"]["train"][0]["files"] == 2
