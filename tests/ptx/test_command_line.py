"""python -m ptx: every knob reaches the engine, and what comes out can be read by programs."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ptx.__main__ import main
from ptx.checkpoint import save_model
from ptx.model import GPT
from ptx.stream import UNCHECKED
from ptx.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory, model: GPT, py16k: Tokenizer) -> Path:
    directory = tmp_path_factory.mktemp("models") / "random"
    save_model(directory, model, py16k, {})
    return directory


@pytest.fixture
def run(directory: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Any:
    def run(*arguments: str, stdin: bytes = b"") -> str:
        monkeypatch.setattr(sys, "argv", ["ptx", *arguments, "--model", str(directory)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        with capfd.disabled():
            output = io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True)
            monkeypatch.setattr(sys, "stdout", output)
            main()
        return output.buffer.getvalue().decode()  # type: ignore[attr-defined]

    return run


def steps(text: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    *records, last = [json.loads(line) for line in text.splitlines()]
    return [r for r in records if "id" in r], last  # without what is left of half a character


def test_the_prompt_may_come_from_standard_input_and_stays_as_it_is(run: Any) -> None:
    prompt = "x = 'é'\r\n\tif x:\r\n"
    written = run("-", "--tokens", "3", stdin=prompt.encode())
    assert written.startswith(prompt)


def test_json_has_a_line_a_token_and_one_for_the_end(run: Any) -> None:
    plain = run("def f(x):", "--tokens", "12", "--seed", "5")
    records, end = steps(run("def f(x):", "--tokens", "12", "--seed", "5", "--json"))
    assert end["finish"] == "length"
    assert len(records) == 12
    assert plain.startswith("def f(x):" + "".join(r["text"] for r in records))
    first = records[0]
    assert first["rank"] >= 1
    assert first["raw_logprob"] <= 0
    assert len(first["alternatives"]) == 5
    raw = [a["raw"] for a in first["alternatives"]]
    assert raw == sorted(raw, reverse=True)


def test_knobs_reach_the_sampler(run: Any, py16k: Tokenizer) -> None:
    few = ("--force", "a", "b", " c", "--ban", "b", "--temperature", "1", "--json")
    records, _ = steps(run("", *few, "--tokens", "30"))
    assert {r["text"] for r in records} == {"a", " c"}
    cut = {a["cut_by"] for r in records for a in r["alternatives"]}
    assert cut == {"forced"}
    records, _ = steps(run("x", "--top-k", "1", "--tokens", "5", "--json"))
    assert {r["rank"] for r in records[1:]} == {1}
    records, _ = steps(run("x", "--min-p", "1", "--top-p", "1", "--tokens", "5", "--json"))
    assert {r["rank"] for r in records[1:]} == {1}


def test_a_text_may_be_kept_python(run: Any) -> None:
    knobs = ("--force", "]", ")", "--temperature", "1", "--tokens", "1", "--json", "--python")
    refused = []
    for seed in range(8):
        [record], _ = steps(run("x = (1", *knobs, "--seed", str(seed)))
        assert record["text"] == ")"
        refused += record["refused"]
    assert set(refused) == {"]"}


def test_it_is_said_when_a_text_is_kept_python_no_longer(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr("ptx.__main__.tell", lambda *notes: told.extend(notes))
    knobs = ("--force", "]", "--tokens", "1", "--python")
    run("x = (1", *knobs)
    assert told == [UNCHECKED]
    [record], _ = steps(run("x = (1", *knobs, "--json"))
    assert record["unchecked"]


@pytest.fixture
def interruptible() -> Iterator[None]:
    """What a shell starts in the background ignores Ctrl+C, and so does what that starts."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_interrupted_text_says_so_and_leaves_whole_lines(
    directory: Path, interruptible: None
) -> None:
    command = [sys.executable, "-m", "ptx", "x", "--json", "--tokens", "100000"]
    with subprocess.Popen(
        [*command, "--model", str(directory)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        first = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert all("id" in json.loads(line) for line in (first + rest).splitlines())
    assert errors.decode().splitlines()[-1] == "stopped"


def test_a_stop_string_and_a_time_end_the_text(run: Any) -> None:
    few = ("--force", "a", "\\n", "--temperature", "1", "--json")
    records, end = steps(run("", *few, "--stop", "\\na"))
    assert end["finish"] == "stop string"
    assert "".join(r["text"] for r in records).endswith("\na")
    _, end = steps(run("x", "--seconds", "0.001", "--json"))
    assert end["finish"] == "time"


def test_guessing_and_int8_are_options(run: Any) -> None:
    assert run("x", "--no-speculate", "--tokens", "9") == run("x", "--tokens", "9")
    assert run("x", "--int8", "--tokens", "9").startswith("x")


@pytest.mark.parametrize(
    ("arguments", "stdin", "sentence"),
    [
        (("x", "--ban", "import numpy"), b"", "--ban 'import numpy' is 2 tokens of this model"),
        (("-",), b"\xff", "standard input is not UTF-8 (byte 0)"),
        (("x", "--tokens", "0"), b"", "the limit in tokens must be a whole number, at least 1"),
        (("x", "--seconds", "0"), b"", "the limit in seconds must be more than 0"),
        (("x", "--stop", ""), b"", "none of them empty"),
        (("x", "--min-p", "2"), b"", "min-p must lie in"),
    ],
)
def test_bad_input_gets_a_sentence(
    directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    stdin: bytes,
    sentence: str,
) -> None:
    monkeypatch.setattr(sys, "argv", ["ptx", *arguments, "--model", str(directory)])
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO()))
    with pytest.raises(SystemExit, match="2"):
        main()
    error = capsys.readouterr().err
    assert sentence in error
    assert "Traceback" not in error
