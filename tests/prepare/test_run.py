"""The command line, as a person runs it: whole directories, and one sentence for bad input."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from prepare import progress, run, workers
from ptx.corpus import Corpus, verify

SCRIPT = Path(run.__file__)


def prepare(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Runs from a directory that is not the repository, in which nothing is installed."""
    return subprocess.run(
        [sys.executable, SCRIPT, *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )


def call(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """The same, in this process: (status, stdout, stderr)."""
    sys.argv = ["prepare/run.py", *map(str, arguments)]
    status = 0
    try:
        run.main()
    except SystemExit as stopped:
        status = stopped.code or 0
    output = capsys.readouterr()
    return status, output.out, output.err


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five small projects, with files for two of the filters."""
    root = tmp_path_factory.mktemp("projects")
    for i in range(5):
        for j in range(8):
            path = root / f"project{i}" / f"module{j}.py"
            path.parent.mkdir(exist_ok=True)
            path.write_text(f"def f_{i}_{j}(x):\n    return x + {j}\n" * 20)
    (root / "project2" / "twin.py").write_text(
        (root / "project2" / "module3.py").read_text() + "x = 1\n"
    )
    (root / "project0" / "empty.py").write_text("")
    (root / "project1" / "latin.py").write_bytes("x = 'é'\n".encode("latin-1"))
    return root


@pytest.fixture(scope="module")
def prepared(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`folder` prepared twice, by two processes."""
    work = tmp_path_factory.mktemp("work")
    for name in ("one", "two"):
        result = prepare("folder", folder, "--out", f"data/{name}", cwd=work)
        assert result.returncode == 0, result.stderr
        assert "bytes/token" in result.stdout
    return work / "data"


def test_a_folder_becomes_a_data_directory(prepared: Path) -> None:
    opened = Corpus(prepared / "one")
    assert verify(prepared / "one") == []
    assert opened.manifest["filters"]["in"]["files"] == 43
    assert opened.manifest["filters"]["near duplicate"]["files"] == 1
    assert opened.manifest["filters"]["empty"]["files"] == 1
    assert opened.manifest["filters"]["not UTF-8"] == {"files": 1, "bytes": 8}
    assert opened.manifest["filters"]["kept"]["files"] == 40
    assert "def f_" in opened.tokenizer.text(opened.val)


def test_training_and_validation_share_no_project(prepared: Path) -> None:
    sources = Corpus(prepared / "one").manifest["sources"]
    train, val = ({source["name"] for source in sources[split]} for split in ("train", "val"))
    assert not train & val
    assert len(train | val) == 5


def test_two_runs_give_identical_files(prepared: Path) -> None:
    names = sorted(path.name for path in (prepared / "one").iterdir())
    extras = ["documents.parquet", "near_duplicates.parquet"]
    assert set(names) == {*extras, "manifest.json", "tokenizer.tiktoken", "train.bin", "val.bin"}
    for name in names:
        assert (prepared / "one" / name).read_bytes() == (prepared / "two" / name).read_bytes()


def test_one_text_is_split_by_position(tmp_path: Path) -> None:
    text = "".join(f"def f_{i}(x):\n    return x + {i}\n\n\n" for i in range(2_000))
    (tmp_path / "input.txt").write_text(text)
    result = prepare("text", "input.txt", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    opened = Corpus(tmp_path / "data" / "text")
    assert verify(opened.path) == []
    assert "position" in opened.manifest["split"]["rule"]
    assert opened.tokenizer.text(opened.train) + opened.tokenizer.text(opened.val) == text
    assert opened.manifest["splits"]["train"]["files"] == 1


def test_a_test_that_the_projects_are_too_few_for_is_told(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = tmp_path / "few"
    for project in ("project0", "project1"):
        shutil.copytree(folder / project, few / project)
    arguments = ("folder", few, "--out", tmp_path / "data", "--test-fraction", "0.1")
    status, out, _ = call(capsys, *arguments)
    assert status == 0
    assert "There is no test.bin" in out


def test_verify_says_what_is_wrong_and_fails(
    prepared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(capsys, "verify", prepared / "one")[0] == 0
    os.truncate(prepared / "two" / "val.bin", 10)
    status, out, _ = call(capsys, "verify", prepared / "two")
    assert status == 1
    assert "val.bin is 10 bytes" in out


def test_a_directory_of_nanogpt_is_adopted(
    prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("train.bin", "val.bin"):
        (tmp_path / name).write_bytes((prepared / "one" / name).read_bytes())
    arguments = ("adopt", tmp_path, "--dtype", "uint16", "--tokenizer", "py16k")
    assert call(capsys, *arguments)[0] == 0
    assert verify(tmp_path) == []
    assert call(capsys, *arguments)[0] == 2


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("folder", "nowhere"), "nowhere is not a directory"),
        (("folder", "full"), "holds no .py file"),
        (("folder", "alone"), "only one project, a"),
        (("text", "nowhere.txt"), "nowhere.txt is not a file"),
        (("folder", "alike/site"), "only one project, site"),
        (("text", "binary"), "binary is not UTF-8 text"),
        (("text", "lines.txt", "--test-fraction", "0.3"), "--test-fraction is a share of projects"),
        (("text", "empty"), "empty is empty"),
        (("installed", "--tokenizer", "gpt5"), "Unknown tokenizer 'gpt5'"),
        (("installed", "--out", "full"), "is not empty and not a data directory"),
        (("installed", "--out", "empty"), "is a file"),
        (("installed", "--out", "empty/data"), "empty cannot hold data ("),
        (("installed", "--val-fraction", "1.5"), "--val-fraction must lie between 0 and 1"),
        (("tokenizer", "--out", "x", "--vocab-size", "3"), "--vocab-size must be from 512"),
        (("folder", "two", "--benchmarks", "nowhere.jsonl"), "nowhere.jsonl is not there"),
        (("folder", "two", "--benchmarks", "other.jsonl"), "other.jsonl is not HumanEval or MBPP"),
        (("text", "nanogpt/input.txt", "--out", "nanogpt"), "nanogpt holds input.txt, which is"),
        (("adopt", "full", "--dtype", "uint16", "--tokenizer", "py16k"), "adopt needs train.bin"),
        (("adopt", "full", "--dtype", "int4", "--tokenizer", "py16k"), "Unknown dtype 'int4'"),
    ],
)
def test_bad_input_is_one_sentence_and_status_2(
    arguments: tuple[str, ...],
    sentence: str,
    prepared: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "binary").write_bytes(b"\x7fELF\xff\xfe\n" * 99)
    (tmp_path / "empty").touch()
    (tmp_path / "other.jsonl").write_text('{"a": 1}\n')
    shutil.copytree(prepared / "one", tmp_path / "nanogpt")
    (tmp_path / "nanogpt" / "input.txt").write_text("x = 1\n" * 1_000)
    for name in ("full", "alone/a", "two/a", "two/b"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "full" / "precious.txt").write_text("x")
    (tmp_path / "lines.txt").write_text("x = 1\n" * 1_000)
    (tmp_path / "alike" / "site" / "site").mkdir(parents=True)
    for name in ("alone/a", "two/a", "two/b", "alike/site", "alike/site/site"):
        (tmp_path / name / "x.py").write_text("x = 1\n")
    before = sorted(tmp_path.rglob("*"))
    status, out, err = call(capsys, *arguments)
    assert status == 2
    assert out == ""
    assert err.startswith("error: ")
    assert sentence in err
    assert err.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_a_dying_worker_is_one_sentence_and_leaves_what_was_there(
    folder: Path,
    prepared: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(workers, "start_worker", os.abort)  # no worker gets to its first document
    before = (prepared / "one" / "manifest.json").read_bytes()
    status, _, err = call(capsys, "folder", folder, "--out", prepared / "one")
    assert status == 2
    assert "A worker process was stopped" in err
    assert (prepared / "one" / "manifest.json").read_bytes() == before
    assert not list(prepared.glob(".*"))


def test_the_table_shows_every_filter_and_split(prepared: Path) -> None:
    manifest = json.loads((prepared / "one" / "manifest.json").read_text())
    console = Console(width=80)
    with console.capture() as captured:
        console.print(progress.summary(manifest, 1.0))
    text = captured.get()
    happened = [name for name, count in manifest["filters"].items() if count["files"]]
    for label in (*happened, "train (", "val ("):
        assert label in text


def test_help_teaches() -> None:
    result = subprocess.run(
        [sys.executable, SCRIPT, "--help"], capture_output=True, text=True, check=True
    )
    for command in ("installed", "stack-v2", "hub", "verify", "report", "adopt"):
        assert command in result.stdout


def test_another_language_is_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("folder", folder, "--out", tmp_path / "data", "--languages", "Python", "Java")
    status, _, error = call(capsys, *arguments)
    assert status
    assert "--languages Java: only Python is prepared here" in " ".join(error.split())
    assert not list(tmp_path.iterdir())
