"""Data and folders are names from a list, and nothing else reaches the disk."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from ptx.errors import UserError
from ptx.playground.library import Library, plain, plain_form

MANIFEST = {
    "splits": {"train": {"tokens": 12, "bytes": 34}},
    "tokenizer": {"name": "py16k", "n_vocab": 16_384},
}
BAD_NAMES = ["", ".", "..", "../a", "a/b", "a\\b", ".hidden", "latest", "a\0", "ä", "a" * 61,
             None, 3, ["a"]]  # fmt: skip


@pytest.fixture
def library(tmp_path: Path) -> Library:
    for name, text in (("a", json.dumps(MANIFEST)), ("broken", "{"), ("other", "[]")):
        (tmp_path / "data" / name).mkdir(parents=True)
        (tmp_path / "data" / name / "manifest.json").write_text(text)
    (tmp_path / "sources" / "mine").mkdir(parents=True)
    (tmp_path / "sources" / ".git").mkdir()
    (tmp_path / "secret").mkdir()
    return Library(tmp_path / "data", tmp_path / "sources")


def test_only_whole_data_directories_are_listed(library: Library) -> None:
    [found] = library.prepared()
    assert found == {
        "name": "a", "tokens": 12, "bytes": 34, "tokenizer": "py16k", "vocab": 16_384
    }  # fmt: skip
    assert library.folders() == ["mine"]
    assert library.find("a").name == "a"
    assert library.find_folder("mine").name == "mine"


def test_what_cannot_be_read_or_named_is_left_out(library: Library, tmp_path: Path) -> None:
    for folder in (tmp_path / "data", tmp_path / "sources"):
        os.mkdir(os.fsencode(folder) + b"/caf\xe9")
        os.symlink("a" * 300, folder / "odd")
    (tmp_path / "data" / "broken" / "manifest.json").write_text("[" * 100_000)
    assert [about["name"] for about in library.prepared()] == ["a"]
    assert library.folders() == ["mine"]


@pytest.mark.parametrize("name", [*BAD_NAMES, "broken", "../secret", "a/../a", "mine/../../secret"])
def test_other_names_are_refused(library: Library, name: Any) -> None:
    with pytest.raises(UserError, match="no prepared data"):
        library.find(name)
    with pytest.raises(UserError, match="no folder"):
        library.find_folder(name)


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_new_name_is_nothing_but_a_name(library: Library, name: Any) -> None:
    with pytest.raises(UserError, match="a name has letters"):
        library.new(name)
    with pytest.raises(UserError, match="a name has letters"):
        plain(name)


@pytest.mark.parametrize(
    ("name", "form"),
    [("mine", "mine"), ("my project (1)", "my-project-1"), ("latest", "folder"), ("äé", "folder"),
     ("x" * 99, "x" * 60), ("--out", "out"), ("_a.b_", "a.b")],
)  # fmt: skip
def test_a_folder_of_any_name_has_a_plain_one(name: str, form: str) -> None:
    assert plain(plain_form(name)) == form


def test_data_that_exists_is_not_replaced(library: Library) -> None:
    with pytest.raises(UserError, match="exists already"):
        library.new("a")
    assert library.new("b-1.2_c") == library.data / "b-1.2_c"


def test_without_directories_there_is_nothing_to_choose(tmp_path: Path) -> None:
    library = Library(tmp_path / "nowhere")
    assert library.prepared() == []
    assert library.folders() == []
