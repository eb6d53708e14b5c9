"""The command lines as a person types them: a folder of Python in, a continued prompt out."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("json", "logging", "tomllib", "unittest", "html")


def run(*command: str | Path, code: int = 0) -> str:
    """Runs a Python command line from the repository; returns what it printed."""
    done = subprocess.run(
        [sys.executable, *map(str, command)], cwd=ROOT, capture_output=True, text=True, timeout=200
    )
    output = done.stdout + done.stderr
    assert done.returncode == code, output
    assert "Traceback" not in output
    return output


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared directory `data`, and `runs` with one short run."""
    home = tmp_path_factory.mktemp("home")
    for name in PACKAGES:
        source = Path(json.__file__).parents[1] / name
        shutil.copytree(source, home / "code" / name, ignore=shutil.ignore_patterns("__pycache__"))
    run("prepare/run.py", "folder", home / "code", "--out", home / "data")
    run(*TRAIN, "--data", home / "data", "--runs", home / "runs", "--steps", "3")
    return home


TRAIN = ("train/run.py", "--batch-size", "4", "--val-windows", "4")


def test_a_folder_becomes_a_model_that_continues_a_prompt(home: Path) -> None:
    assert "is as its manifest says" in run("prepare/run.py", "verify", home / "data")
    model = home / "runs" / "nano" / "latest"
    text = run("-m", "ptx", "class Stack:", "--model", model, "--tokens", "8", "--seed", "1")
    assert text.startswith("class Stack:")
    assert len(text) > len("class Stack:\n")
    again = run("-m", "ptx", "class Stack:", "--model", model, "--tokens", "8", "--seed", "1")
    assert text == again


def test_evaluation_reports_bits_per_byte_by_project(home: Path) -> None:
    table = run("train/run.py", "evaluate", home / "runs" / "nano", "--data", home / "data")
    assert "bits/byte" in table
    assert any(f" {name} " in table for name in PACKAGES)


def test_a_release_is_a_model_directory_with_its_metrics(home: Path) -> None:
    run("train/run.py", "release", home / "runs" / "nano", home / "released", "--samples", "4")
    assert {p.name for p in (home / "released").iterdir()} == {
        "README.md", "config.json", "metrics.jsonl", "model.safetensors", "samples.md",
        "tokenizer.tiktoken",
    }  # fmt: skip
    assert run("-m", "ptx", "import ", "--model", home / "released", "--tokens", "3")
    evaluated = run("train/run.py", "evaluate", home / "released", "--data", home / "data")
    card = (home / "released" / "README.md").read_text()
    bpb = json.loads((home / "released" / "config.json").read_text())["info"]["val_bpb"]
    assert f"{bpb:.4f}" in evaluated
    assert f"**{bpb} bits per byte**" in card
    assert str(home) not in card
    assert (home / "released" / "samples.md").read_text().count("## Prompt") == 4


@pytest.mark.timeout(600)
def test_sigterm_saves_and_exits_cleanly_and_the_run_resumes(home: Path) -> None:
    command = [sys.executable, *TRAIN, "--data", str(home / "data"), "--steps", "100000"]
    process = subprocess.Popen(
        [*command, "--runs", str(home / "runs"), "--name", "long"], cwd=ROOT,
        stdout=subprocess.DEVNULL, env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    metrics = home / "runs" / "long" / "metrics.jsonl"
    deadline = time.monotonic() + 300  # a long run tries first what compiling gains
    while not metrics.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert metrics.exists()
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 0
    done = json.loads(metrics.read_text().splitlines()[-1])["step"]
    config = home / "runs" / "long" / "config.json"
    settings = json.loads(config.read_text())
    config.write_text(json.dumps(settings | {"steps": done + 2}))
    assert f"finished at step {done + 2}" in run("train/run.py", "--resume", home / "runs" / "long")


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        (("train/run.py", "--preset", "huge"), "unknown preset 'huge': choose one of reference"),
        (("train/run.py", "--data", "no/such/data"), "no/such/data"),
        (("train/run.py", "--resume", "no/such/run"), "no/such/run"),
        (("train/run.py", "evaluate", "no/such/model"), "there is no model at no/such/model"),
        (("train/run.py", "release", "no/such/run", "out"), "no/such/run is no run directory"),
        (("-m", "ptx", "x", "--model", "no/such/model"), "there is no model at no/such/model"),
        (("train/run.py", "release", "runs", "tests"), "no run directory"),
        (("-m", "ptx", "x", "--temperature", "-1"), "temperature must lie between 0 and 100"),
        (("app.py", "--model", "no/such/model"), "there is no model at no/such/model"),
    ],
)
def test_bad_input_gets_one_sentence_and_exit_code_2(command: tuple, sentence: str) -> None:
    output = run(*command, code=2)
    assert output.startswith("error: ")
    assert sentence in output
    assert output.count("\n") == 1


def test_data_of_another_tokenizer_is_read_with_the_models_own(home: Path, o200k) -> None:
    run("prepare/run.py", "folder", home / "code", "--out", home / "other", "--tokenizer",
        "o200k_base")  # fmt: skip
    table = run("train/run.py", "evaluate", home / "runs" / "nano", "--data", home / "other")
    assert "bits/byte" in table
    assert " tomllib " in table


def test_a_corrupt_model_is_refused_by_name(home: Path) -> None:
    broken = home / "broken"
    run("train/run.py", "release", home / "runs" / "nano", broken, "--samples", "1")
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert f"{weights} is damaged" in run("-m", "ptx", "x", "--model", broken, code=2)


@pytest.mark.parametrize("command", ["prepare/run.py", "train/run.py", "app.py", "-m ptx"])
def test_help_teaches_with_an_example(command: str) -> None:
    text = run(*command.split(), "--help")
    assert "xample" in text
    assert f"python {command} " in text.split("options", 1)[0]
