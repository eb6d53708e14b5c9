"""Data directories: refused by name when wrong, whole or absent, and the same batches for ever."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptx import corpus
from ptx.corpus import Corpus, CorpusWriter, verify
from ptx.errors import UserError
from ptx.tokenizer import Tokenizer, get_tokenizer
from tests.disk import largest_file

PY16K = get_tokenizer("py16k")
PROJECTS = {
    "train": {"a": [b"x = 1\n", b"def f():\n    pass\n"], "b": [b"class C:\n    y = 2\n"]},
    "val": {"c": [b"import os\n\n\nprint(os)\n"]},
}


def write(target: Path, repeat: int = 1) -> dict:
    """A small, correct data directory."""
    sources: dict[str, list[dict]] = {"train": [], "val": []}
    with CorpusWriter(target, PY16K) as writer:
        for split, projects in PROJECTS.items():
            for name, files in projects.items():
                ids = [[*PY16K.encode(data), PY16K.eot] for data in files * repeat]
                for file in ids:
                    writer.write(split, file)
                sources[split].append(
                    {
                        "name": name,
                        "version": "1",
                        "licence": "MIT",
                        "files": len(ids),
                        "bytes": sum(map(len, files)) * repeat,
                        "tokens": sum(map(len, ids)),
                    }
                )
        return writer.finish(sources, filters={})


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write(tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    path = tmp_path_factory.mktemp("corpus") / "large"
    write(path, repeat=200)
    return Corpus(path)


def edit_manifest(data: Path, **fields: object) -> None:
    path = data / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


# --- opening


def test_what_was_written_is_read(data: Path) -> None:
    opened = Corpus(data)
    assert opened.tokenizer.text(opened.val) == "import os\n\n\nprint(os)\n"
    assert opened.train.dtype == np.uint16
    assert sorted(path.name for path in data.iterdir()) == [
        "manifest.json",
        "tokenizer.tiktoken",
        "train.bin",
        "val.bin",
    ]
    assert verify(data) == []


def test_a_large_vocabulary_takes_four_bytes(tmp_path: Path, o200k: Tokenizer) -> None:
    tokens = [*o200k.encode("x = 1"), o200k.eot]
    source = {"name": "a", "version": "1", "licence": "MIT", "files": 1, "bytes": 5}
    source["tokens"] = len(tokens)
    with CorpusWriter(tmp_path / "data", o200k) as writer:
        writer.write("train", tokens)
        writer.write("val", tokens)
        writer.finish({"train": [source], "val": [source]})
    opened = Corpus(tmp_path / "data")
    assert opened.train.dtype == np.uint32
    assert list(opened.train) == tokens
    assert verify(tmp_path / "data") == []


def test_a_missing_directory_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"prepare/run\.py installed --out .*/nowhere"):
        Corpus(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["train.bin", "val.bin", "tokenizer.tiktoken", "manifest.json"])
def test_a_missing_file_is_named(data: Path, name: str) -> None:
    (data / name).unlink()
    with pytest.raises(UserError, match=f"{name} is missing"):
        Corpus(data)
    assert any(name in problem for problem in verify(data))


@pytest.mark.parametrize("name", ["train.bin", "val.bin"])
def test_a_truncated_file_is_refused_by_name(data: Path, name: str) -> None:
    os.truncate(data / name, (data / name).stat().st_size - 2)
    with pytest.raises(UserError, match=rf"{name} is [\d,]+ bytes, but"):
        Corpus(data)
    assert any(name in problem for problem in verify(data))


@pytest.mark.parametrize("name", ["train.bin", "val.bin"])
def test_a_changed_byte_is_refused_by_name(data: Path, name: str) -> None:
    content = bytearray((data / name).read_bytes())
    content[4] ^= 1
    (data / name).write_bytes(content)
    with pytest.raises(UserError, match=rf"{name} is not the file of its manifest"):
        Corpus(data)
    assert any(name in problem for problem in verify(data))


def test_swapped_files_are_refused_by_name(data: Path) -> None:
    (data / "train.bin").rename(data / "x")
    (data / "val.bin").rename(data / "train.bin")
    (data / "x").rename(data / "val.bin")
    with pytest.raises(UserError, match=r"train\.bin holds the val split"):
        Corpus(data)
    assert len(verify(data)) == 2


def test_the_files_of_another_tokenizer_are_refused(data: Path) -> None:
    lines = (data / "tokenizer.tiktoken").read_text().splitlines()
    tokens = [line.split()[0] for line in lines]
    tokens[300], tokens[301] = tokens[301], tokens[300]
    changed = "".join(f"{token} {rank}\n" for rank, token in enumerate(tokens))
    (data / "tokenizer.tiktoken").write_text(changed)
    with pytest.raises(UserError, match=r"tokenizer\.tiktoken is not the tokenizer py16k"):
        Corpus(data)
    assert any("tokenizer.tiktoken" in problem for problem in verify(data))


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "null",
        "{}",
        '{"format": 1}',
        '{"format": 2}',
        "\x00",
        '{"format": 1, "splits": 3}',
        "[" * 200_000,
    ],
)
def test_a_broken_manifest_is_refused_by_name(data: Path, content: str) -> None:
    (data / "manifest.json").write_text(content)
    with pytest.raises(UserError, match=r"manifest\.json"):
        Corpus(data)
    assert any("manifest.json" in problem for problem in verify(data))


def test_a_manifest_of_other_types_is_refused(data: Path) -> None:
    uncounted = json.loads((data / "manifest.json").read_text())["splits"]
    del uncounted["val"]["bytes"]
    for fields in (
        {"dtype": "float16"},
        {"tokenizer": "py16k"},
        {"splits": {"train": {}}},
        {"splits": uncounted},
        {"split": "by project"},
        {"extras": ["documents.parquet"]},
    ):
        shutil.copytree(data, data.with_name("copy"), dirs_exist_ok=True)
        edit_manifest(data.with_name("copy"), **fields)
        with pytest.raises(UserError, match=r"manifest\.json"):
            Corpus(data.with_name("copy"))


# --- verifying


def test_verify_recounts_every_project(data: Path) -> None:
    sources = json.loads((data / "manifest.json").read_text())["sources"]
    sources["train"][0]["bytes"] += 1
    sources["train"][1]["bytes"] -= 1
    sources["val"][0]["files"] += 1
    edit_manifest(data, sources=sources)
    problems = verify(data)
    assert len(problems) == 3
    assert sum("train.bin: a has" in problem for problem in problems) == 1
    assert sum("train.bin: b has" in problem for problem in problems) == 1
    assert sum("val.bin: c has 1 files" in problem for problem in problems) == 1


def test_verify_finds_totals_that_do_not_add_up(data: Path) -> None:
    sources = json.loads((data / "manifest.json").read_text())["sources"]
    edit_manifest(data, sources={**sources, "train": sources["train"][:1]})
    assert any("do not sum" in problem for problem in verify(data))


def test_verify_finds_ids_outside_the_vocabulary(data: Path) -> None:
    tokens = np.fromfile(data / "train.bin", dtype="<u2")
    tokens[1] = 20_000
    tokens.tofile(data / "train.bin")
    splits = json.loads((data / "manifest.json").read_text())["splits"]
    splits["train"]["sha256"] = corpus.file_sha256(data / "train.bin")
    edit_manifest(data, splits=splits)
    assert any("train.bin: a has ids outside" in problem for problem in verify(data))


def test_verify_finds_a_manifest_without_sources(data: Path) -> None:
    edit_manifest(data, sources={})
    assert [p for p in verify(data) if "does not list the sources of train.bin" in p]


@pytest.mark.parametrize("field", ["version", "licence", "tokens"])
def test_verify_finds_a_source_without_one_of_its_fields(data: Path, field: str) -> None:
    sources = json.loads((data / "manifest.json").read_text())["sources"]
    del sources["val"][0][field]
    edit_manifest(data, sources=sources)
    [problem] = verify(data)
    assert "does not list the sources of val.bin" in problem


# --- writing


def test_writing_twice_gives_the_same_files(tmp_path: Path) -> None:
    write(tmp_path / "one")
    write(tmp_path / "two")
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_a_failed_write_leaves_what_was_there(data: Path) -> None:
    before = (data / "train.bin").read_bytes()
    with pytest.raises(OverflowError), CorpusWriter(data, PY16K) as writer:
        writer.write("train", [1, 2, 70_000])
    assert (data / "train.bin").read_bytes() == before
    assert [path.name for path in data.parent.iterdir()] == ["data"]


KILLED = """
import os, signal, sys
from ptx.corpus import CorpusWriter
from ptx.tokenizer import Tokenizer, get_tokenizer
with CorpusWriter(sys.argv[1], get_tokenizer("py16k")) as writer:
    writer.write("train", [1, 2, 3])
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_write_leaves_what_was_there_and_the_next_cleans_up(data: Path) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED, data], cwd=Path.cwd(), check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(list(data.parent.iterdir())) == 2
    assert verify(data) == []
    write(data)
    assert [path.name for path in data.parent.iterdir()] == ["data"]


def test_a_write_killed_between_the_renames_is_recovered(data: Path) -> None:
    data.rename(data.with_name(".data.old-4000000"))
    with pytest.raises(RuntimeError), CorpusWriter(data, PY16K):
        raise RuntimeError
    assert verify(data) == []


def test_the_directory_of_a_living_writer_is_left_alone(data: Path) -> None:
    living = data.with_name(f".data.partial-{os.getppid()}")
    living.mkdir()
    write(data)
    assert living.is_dir()


def test_an_empty_split_is_refused(tmp_path: Path) -> None:
    with CorpusWriter(tmp_path / "data", PY16K) as writer:
        writer.write("train", [1])
        with pytest.raises(UserError, match=r"No text is left for val\.bin"):
            writer.finish({"train": [], "val": []})
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_one_sentence_and_leaves_what_was_there(data: Path) -> None:
    before = (data / "train.bin").read_bytes()
    with (
        largest_file(100_000),
        pytest.raises(UserError, match="is full: make room and run the same command again"),
        CorpusWriter(data, PY16K) as writer,
    ):
        writer.write("train", [1] * 100_000)
    assert (data / "train.bin").read_bytes() == before
    assert [path.name for path in data.parent.iterdir()] == ["data"]


def test_files_that_nobody_prepared_are_not_deleted(data: Path) -> None:
    edit_manifest(data, extras={"documents.parquet": ""})
    (data / "documents.parquet").touch()
    (data / "test.bin").touch()
    (data / ".DS_Store").touch()  # of macOS, which shows the folder
    corpus.require_replaceable(data)
    (data / "input.txt").write_text("precious")
    with pytest.raises(UserError, match=r"holds input\.txt, which is no part of a data directory"):
        CorpusWriter(data, PY16K)
    assert (data / "input.txt").read_text() == "precious"


def test_a_directory_of_something_else_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("x")
    with pytest.raises(UserError, match="not empty and not a data directory"):
        CorpusWriter(tmp_path, PY16K)
    with pytest.raises(UserError, match="is a file"):
        CorpusWriter(tmp_path / "precious.txt", PY16K)


# --- adopting


def test_a_bare_directory_is_adopted(data: Path) -> None:
    (data / "manifest.json").unlink()
    (data / "tokenizer.tiktoken").unlink()
    corpus.adopt(data, "uint16", PY16K)
    assert verify(data) == []
    assert Corpus(data).manifest["splits"]["val"]["bytes"] == 22


def test_adopting_with_the_wrong_dtype_or_tokenizer_is_refused(data: Path) -> None:
    (data / "manifest.json").unlink()
    np.array([70_000, 1], dtype="<u4").tofile(data / "val.bin")
    np.array([5, 1], dtype="<u4").tofile(data / "train.bin")
    with pytest.raises(UserError, match="Unknown dtype"):
        corpus.adopt(data, "int8", PY16K)
    with pytest.raises(UserError, match=r"val\.bin: it holds the id 70,000"):
        corpus.adopt(data, "uint32", PY16K)
    assert not (data / "manifest.json").exists()


def test_adopting_what_has_a_manifest_is_refused(data: Path) -> None:
    with pytest.raises(UserError, match="has a manifest already"):
        corpus.adopt(data, "uint16", PY16K)


def test_adopting_that_was_killed_can_be_done_again(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (data / "manifest.json").unlink()

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(json, "dump", killed)
        with pytest.raises(KeyboardInterrupt):
            corpus.adopt(data, "uint16", PY16K)
    corpus.adopt(data, "uint16", PY16K)
    assert verify(data) == []
    corpus.require_replaceable(data)


# --- batches


def test_targets_are_inputs_shifted_by_one(large: Corpus) -> None:
    x, y = large.batch(step=3, batch_size=4, context=16, seed=0)
    assert x.shape == y.shape == (4, 16)
    assert x.dtype == y.dtype == np.int64
    assert (x[:, 1:] == y[:, :-1]).all()


@given(st.integers(0, 10_000), st.integers(1, 9), st.integers(1, 40), st.integers(0, 3))
def test_a_batch_depends_on_nothing_but_its_arguments(
    large: Corpus, step: int, batch_size: int, context: int, seed: int
) -> None:
    first = large.batch(step, batch_size, context, seed)
    large.batch(step + 77, 5, 13, seed + 1)  # fills the cache with another order
    again = large.batch(step, batch_size, context, seed)
    assert all((a == b).all() for a, b in zip(first, again, strict=True))


READ_ALL = """
import sys, psutil
from ptx.corpus import Corpus
corpus, process = Corpus(sys.argv[1]), psutil.Process()
steps = len(corpus.train) // 1024 // 64 - 1
corpus.batch(0, 64, 1024, 0)
before = process.memory_info().rss
for step in range(steps):
    corpus.batch(step, 64, 1024, 0)
print((process.memory_info().rss - before) / corpus.train.nbytes)
"""


def test_reading_batches_does_not_fill_the_memory_with_the_corpus(tmp_path: Path) -> None:
    tokens = np.random.default_rng(0).integers(256, size=2**24)  # 32 MiB
    with CorpusWriter(tmp_path / "big", PY16K) as writer:
        writer.write("train", tokens)
        writer.write("val", tokens[:99])
        totals = {"files": 0, "bytes": 0, "version": "1", "licence": "MIT"}
        writer.finish(
            {
                "train": [{"name": "a", "tokens": len(tokens), **totals}],
                "val": [{"name": "b", "tokens": 99, **totals}],
            }
        )
    command = [sys.executable, "-c", READ_ALL, str(tmp_path / "big")]
    grown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert float(grown) < 0.3


def test_an_epoch_draws_every_window_once(large: Corpus) -> None:
    context = 32
    windows = len(large.train) // context - 1
    phase, order = corpus.shuffled(0, 0, windows, context)
    assert sorted(order) == list(range(windows))
    x, _ = large.batch(step=0, batch_size=windows, context=context, seed=0)
    text = np.asarray(large.train[phase : phase + windows * context])
    assert sorted(map(tuple, x)) == sorted(map(tuple, text.reshape(windows, context)))


def test_epochs_and_seeds_differ(large: Corpus) -> None:
    windows = len(large.train) // 32 - 1
    first, second = (corpus.shuffled(0, epoch, windows, 32) for epoch in (0, 1))
    other = corpus.shuffled(1, 0, windows, 32)
    assert list(first[1]) != list(second[1])
    assert list(first[1]) != list(other[1])


def test_a_batch_may_span_two_epochs(large: Corpus) -> None:
    windows = len(large.train) // 32 - 1
    x, _ = large.batch(step=1, batch_size=windows - 1, context=32, seed=0)
    start = corpus.window_start(0, 1, 0, windows, 32)  # the second of this batch's windows
    assert (x[1] == large.train[start : start + 32]).all()


@given(st.integers(1, 300), st.integers(1, 100))
def test_validation_windows_are_fixed_and_do_not_overlap(
    large: Corpus, context: int, n_windows: int
) -> None:
    x, y = large.val_windows(context, n_windows)
    assert 1 <= len(x) <= n_windows
    assert (x[:, 1:] == y[:, :-1]).all()
    assert y[-1, -1] == large.val[-1] or len(x) == 1
    assert len(x) * context < len(large.val)
    again, _ = large.val_windows(context, n_windows)
    assert (x == again).all()


def test_a_context_longer_than_the_text_is_refused_by_name(data: Path) -> None:
    opened = Corpus(data)
    with pytest.raises(UserError, match=r"train\.bin holds"):
        opened.batch(0, 1, 10_000, 0)
    with pytest.raises(UserError, match=r"val\.bin holds"):
        opened.val_windows(10_000, 1)
