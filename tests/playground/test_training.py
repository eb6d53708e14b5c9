"""What the training panel does: start, pause, resume, stop, prepare, estimate; bad requests change
nothing."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ptx import runlog
from ptx.checkpoint import checkpoints, find_model
from ptx.corpus import CorpusWriter
from ptx.errors import UserError
from ptx.playground import jobs
from ptx.playground import training as module
from ptx.playground.library import Library
from ptx.playground.limits import Limits
from ptx.playground.served import Served
from ptx.playground.training import Training, recipes
from ptx.tokenizer import python_tokenizer
from train.settings import RECIPES

STAND_IN = """
import json, os, sys, time
from pathlib import Path
words = sys.argv[1:]
if os.environ.get("STAND_IN") == "fail":
    sys.exit("error: the disk is full: make\\nroom")
if words[0] == "doctor":
    print("a table")
    print(json.dumps({"trouble": None, "presets": [{"parameters": 1, "tokens_per_s": 2.0,
        "memory_gib": 3.0, "fits": True, "checkpoint_gib": 4.0, "kernels": {}}]}))
    sys.exit()
option = dict(zip(words[::2], words[1::2]))
run = Path(option.get("--resume") or Path(option["--runs"]) / option["--name"])
run.mkdir(parents=True, exist_ok=True)
if "--steps" in option:
    (run / "config.json").write_text(json.dumps({"preset": option["--preset"],
        "steps": int(option["--steps"]), "words": words}))
log = run / "metrics.jsonl"
step = len(log.read_text().splitlines()) if log.exists() else 0
steps = json.loads((run / "config.json").read_text())["steps"]
try:
    while step < steps:
        step += 1
        with log.open("a") as file:
            file.write(json.dumps({"step": step, "bpb": 2.0}) + "\\n")
        time.sleep(0.01)
    print("finished")
except KeyboardInterrupt:
    print("stopped")
"""
PREPARE = """
import json, os, sys
from pathlib import Path
out = Path(sys.argv[sys.argv.index("--out") + 1])
print("cleaned 1 of 2 MB, 50 %", flush=True)
out.mkdir(parents=True)
text = Path(sys.argv[2]).read_text() if sys.argv[1] == "text" else ""
(out / "manifest.json").write_text(json.dumps({
    "splits": {"train": {"tokens": 1, "bytes": len(text)}},
    "tokenizer": {"name": "py16k", "n_vocab": 16384},
    "words": sys.argv[1:], "text": text,
}))
"""


@pytest.fixture
def training(served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Training]:
    """With stand-ins for the two scripts, which take milliseconds a step."""
    for name, text in (("TRAIN", STAND_IN), ("PREPARE", PREPARE)):
        (tmp_path / f"{name}.py").write_text(text)
        monkeypatch.setattr(module, name, str(tmp_path / f"{name}.py"))
    manifest = {
        "splits": {"train": {"tokens": 1, "bytes": 1}},
        "tokenizer": {"name": "py16k", "n_vocab": 16384},
    }
    (tmp_path / "data" / "a").mkdir(parents=True)
    (tmp_path / "data" / "a" / "manifest.json").write_text(json.dumps(manifest))
    (tmp_path / "sources" / "mine").mkdir(parents=True)
    (tmp_path / "sources" / "my project").mkdir()
    library = Library(tmp_path / "data", tmp_path / "sources")
    training = Training(served, tmp_path / "runs", library, Limits(upload_bytes=1000))
    yield training
    training.close()


def until(condition: Callable[[], Any], seconds: float = 60) -> Any:
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.02)
    return found


def start(training: Training, **more: Any) -> dict[str, Any]:
    data = {"source": "prepared", "name": "a"}
    return training.act({"do": "start", "data": data, "preset": "nano", "steps": 10_000} | more)


def about(training: Training, key: str) -> dict[str, Any]:
    training.runs._listed = (0.0, [])
    return next((r for r in training.follow({})["runs"] if r["key"] == key), {})


def words_of(training: Training, name: str) -> dict[str, str]:
    words = json.loads((training.directory / name / "config.json").read_text())["words"]
    return dict(zip(words[::2], words[1::2], strict=True))


@pytest.mark.parametrize("asked", ["pause", "stop"])
def test_a_save_that_failed_as_it_was_asked_to_end_is_told(training: Training, asked: str) -> None:
    (training.directory / "a").mkdir(parents=True)
    job = SimpleNamespace(kind="train", name="a", asked=asked, killed=False, lines=[], status=0)
    for status, killed in ((0, False), (130, False), (-2, False), (-9, True)):
        job.status, job.killed = status, killed
        training._note_end(job)
        assert training.problem is None
    job.status, job.killed, job.lines = 2, False, ["error: no room: make some"]
    training._note_end(job)
    assert training.problem == "a: no room: make some"
    assert training.runs._note(training.directory / "a")["state"] == "failed"


def test_a_run_is_started_paused_resumed_and_stopped(training: Training) -> None:
    assert start(training, name="x") == {"run": "runs/x"}
    assert training.follow({})["run"] == "runs/x", "it is at hand before it has a directory"
    until(lambda: about(training, "runs/x")["step"] > 3)
    assert about(training, "runs/x")["state"] == "training"
    assert training.act({"do": "pause"}) == {}
    until(lambda: about(training, "runs/x")["state"] == "paused")
    step = about(training, "runs/x")["step"]
    assert training.act({"do": "resume", "run": "runs/x"}) == {"run": "runs/x"}
    until(lambda: about(training, "runs/x")["step"] > step)
    assert training.act({"do": "stop"}) == {}
    until(lambda: about(training, "runs/x")["state"] == "stopped")
    assert training.act({"do": "resume", "run": "runs/x"}) == {"run": "runs/x"}
    assert about(training, "runs/x")["state"] == "training"


def test_a_run_comes_to_its_end(training: Training) -> None:
    start(training, name="x", steps=3)
    until(lambda: about(training, "runs/x").get("state") == "finished")
    assert training.problem is None
    assert "it cannot be resumed" in training.act({"do": "resume", "run": "runs/x"})["error"]


def test_the_settings_reach_the_command_line(training: Training) -> None:
    start(training, steps=80, batch_size=4, rate=0.5, seed=7)
    until(lambda: about(training, "runs/nano").get("step"))
    option = words_of(training, "nano")
    expected = {
        "--preset": "nano", "--steps": "80", "--batch-size": "4", "--seed": "7",
        "--lr": f"{RECIPES['nano']['lr'] / 2:g}",
        "--muon-lr": f"{RECIPES['nano']['muon_lr'] / 2:g}",
    }  # fmt: skip
    assert expected.items() <= option.items()
    assert Path(option["--data"]) == training.library.data / "a"


def test_without_a_name_runs_are_numbered(training: Training) -> None:
    (training.directory / "nano").mkdir(parents=True)
    assert start(training) == {"run": "runs/nano-2"}


def test_one_thing_at_a_time(training: Training) -> None:
    start(training, name="x")
    assert "x is being trained: pause it first" in start(training, name="y")["error"]
    assert "x is being trained" in training.act({"do": "estimate", "preset": "nano"})["error"]
    assert not (training.directory / "y").exists()


def test_ending_now_kills(training: Training) -> None:
    start(training, name="x")
    until(lambda: about(training, "runs/x")["step"] > 1)
    job = training.jobs.now
    assert job
    training.act({"do": "stop", "now": True})
    until(lambda: about(training, "runs/x")["state"] == "stopped")
    assert job.status == -9
    assert training.problem is None


def test_a_failure_shows_its_last_lines(
    training: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    (training.directory / "x").mkdir(parents=True)
    (training.directory / "x" / "config.json").write_text('{"preset": "nano", "steps": 5}')
    monkeypatch.setenv("STAND_IN", "fail")
    assert training.act({"do": "resume", "run": "runs/x"}) == {"run": "runs/x"}
    until(lambda: about(training, "runs/x")["state"] == "failed")
    assert about(training, "runs/x")["lines"] == ["error: the disk is full: make", "room"]
    assert training.follow({})["problem"] == "x: the disk is full: make room"
    training.act({"do": "dismiss"})
    assert training.follow({})["problem"] is None


@pytest.mark.parametrize(
    ("data", "out"),
    [
        ({"source": "installed"}, "installed-py4k"),
        ({"source": "folder", "name": "mine"}, "mine"),
        ({"source": "folder", "name": "my project"}, "my-project"),
        ({"source": "text", "name": "pasted", "text": "def f():\r\n\treturn 'ä'\n"}, "pasted"),
    ],
)
def test_data_is_prepared_first_if_need_be(
    training: Training, data: dict[str, str], out: str
) -> None:
    assert start(training, data=data, name="x", steps=2) == {"name": out}
    until(lambda: about(training, "runs/x").get("state") == "finished")
    assert Path(words_of(training, "x")["--data"]) == training.library.data / out
    manifest = json.loads((training.library.data / out / "manifest.json").read_bytes())
    assert manifest["words"][0] == data["source"]
    words = manifest["words"]
    assert words[words.index("--tokenizer") + 1] == "py4k", "nano learns it sooner"
    assert manifest["text"] == data.get("text", "").replace("\r\n", "\n")
    assert sorted(p.name for p in training.library.data.iterdir()) == sorted(["a", out])


def test_a_large_preset_has_the_usual_tokenizer(training: Training) -> None:
    data = {"source": "installed"}
    assert start(training, data=data, name="x", preset="mini", steps=2) == {"name": "installed"}
    until(lambda: (training.library.data / "installed" / "manifest.json").exists())
    manifest = json.loads((training.library.data / "installed" / "manifest.json").read_bytes())
    assert "--tokenizer" not in manifest["words"]


def test_this_machines_python_is_offered_until_a_presets_own_is_prepared(
    training: Training,
) -> None:
    offered = set(training.follow({})["options"]["installed"])
    assert {"nano", "mini"} <= offered
    (training.library.data / "installed").mkdir()
    assert training.follow({})["options"]["installed"] == ["nano"]
    (training.library.data / "installed-py4k").mkdir()
    assert training.follow({})["options"]["installed"] == []


def test_preparing_that_fails_trains_nothing(training: Training) -> None:
    Path(module.PREPARE).write_text("import sys; sys.exit('error: no text is left')")
    text = {"source": "text", "name": "pasted", "text": "x"}
    start(training, data=text, name="x")
    until(lambda: training.problem)
    assert training.problem == "pasted: no text is left"
    assert not training.directory.exists()
    assert [path.name for path in training.library.data.iterdir()] == ["a"]


def test_a_text_of_who_came_too_late_is_not_kept(
    training: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    def late(*_: Any) -> None:
        raise UserError("a is being trained")

    monkeypatch.setattr(training.jobs, "start", late)
    text = {"source": "text", "name": "pasted", "text": "x"}
    assert start(training, data=text, name="x") == {"error": "a is being trained"}
    assert [path.name for path in training.library.data.iterdir()] == ["a"]


def test_an_estimate_comes_with_the_options(
    training: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, asked = training.jobs.start, []
    monkeypatch.setattr(training.jobs, "start", lambda *given: asked.append(given) or began(*given))
    before = training.follow({})["options"]
    assert before["estimates"] == {}
    training.act({"do": "estimate", "preset": "nano"})
    [(_, _, words, _)] = asked
    assert words[words.index("--vocab-size") + 1] == "4096", "of the data it is trained on"
    until(lambda: training.estimates)
    after = training.follow({"options": before["version"]})["options"]
    assert after["estimates"]["nano 4096"]["tokens_per_s"] == 2.0
    assert "options" not in training.follow({"options": after["version"]})
    training.act({"do": "estimate", "preset": "nano", "vocab": 300})
    until(lambda: "nano 300" in training.estimates)


def test_recipes_are_those_of_train() -> None:
    assert recipes() == RECIPES


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"preset": "huge"}, "preset must be one of: nano"),
        ({"preset": ["nano"]}, "preset must be one of"),
        ({"steps": 0}, "steps must be a whole number from 1"),
        ({"steps": "9"}, "steps must be a whole number"),
        ({"steps": True}, "steps must be a whole number"),
        ({"batch_size": 1.5}, "batch_size must be a whole number"),
        ({"rate": -1}, "rate must be a number from 0.001"),
        ({"rate": float("nan")}, "rate must be a number"),
        ({"seed": 2**32}, "seed must be a whole number"),
        ({"name": "../x"}, "a name has letters"),
        ({"name": "--resume"}, "a name has letters"),
        ({"name": 3}, "a name has letters"),
        ({"data": None}, "data must have a source"),
        ({"data": {"source": "prepared", "name": "../data/a"}}, "no prepared data"),
        ({"data": {"source": "folder", "name": "/etc"}}, "no folder '/etc' here"),
        ({"data": {"source": "folder", "name": ".."}}, "no folder"),
        ({"data": {"source": "text", "name": "a", "text": "x"}}, "exists already"),
        ({"data": {"source": "text", "name": "../b", "text": "x"}}, "a name has letters"),
        ({"data": {"source": "text", "name": "b", "text": " \n"}}, "paste or choose"),
        ({"data": {"source": "text", "name": "b", "text": 5}}, "paste or choose"),
        ({"data": {"source": "text", "name": "b", "text": "x\0"}}, "NUL"),
        ({"data": {"source": "text", "name": "b", "text": "\ud800"}}, "half of a character"),
        ({"data": {"source": "text", "name": "b", "text": "ä" * 501}}, "1,002 bytes; .* 1,000 at"),
    ],
)
def test_a_bad_start_is_refused_and_changes_nothing(
    training: Training, change: dict[str, Any], message: str
) -> None:
    answer = start(training, **change)
    assert list(answer) == ["error"]
    assert re.search(message, answer["error"])
    assert training.jobs.now is None
    assert not training.directory.exists()
    assert [path.name for path in training.library.data.iterdir()] == ["a"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)
FIELDS = [
    "do", "data", "preset", "steps", "batch_size", "rate", "seed", "name", "run", "now", "shown",
    "options",
]  # fmt: skip
NAMES = st.sampled_from(FIELDS)
ACTIONS = ["start", "pause", "stop", "resume", "estimate", "dismiss", "close", "__init__"]
DO = st.sampled_from(ACTIONS)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(request=JSON | st.dictionaries(NAMES, JSON), do=DO)
def test_any_request_gets_an_answer_and_changes_nothing(
    training: Training, request: Any, do: str
) -> None:
    json.dumps(training.follow(request), allow_nan=False)
    if isinstance(request, dict):
        request = request | {"do": do, "preset": request.get("preset", "no")}
    answer = training.act(request)
    assert list(answer) == ["error"] or (answer == {} and do == "dismiss")
    assert training.jobs.now is None
    assert not training.directory.exists()
    assert [path.name for path in training.library.data.iterdir()] == ["a"]


def test_training_that_is_off_shows_curves_and_does_nothing(training: Training) -> None:
    off = Training(
        training.runs.served, training.directory, training.library, Limits(training=False)
    )
    for do in ("start", "pause", "stop", "resume", "estimate", "dismiss"):
        assert "PTX_TRAINING" in off.act({"do": do})["error"]
    answer = off.follow({})
    assert answer["run"] == "model"
    assert answer["options"] == {"version": "off", "training": False}


# ---- the real thing ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A module of the standard library on both sides, one token a byte."""
    tokenizer = python_tokenizer("bytes", {bytes([i]): i for i in range(256)})
    directory = tmp_path_factory.mktemp("prepared") / "bytes"
    text = Path(json.__file__).read_bytes()
    tokens = [*tokenizer.encode(text), tokenizer.eot]
    project = {"name": "json", "version": "1", "licence": "PSF-2.0"}
    counts = {"files": 1, "bytes": len(text), "tokens": len(tokens)}
    with CorpusWriter(directory, tokenizer) as writer:
        for split in ("train", "val"):
            writer.write(split, tokens)
        writer.finish({split: [project | counts] for split in ("train", "val")})
    return directory


@pytest.mark.timeout(600)
def test_pause_and_resume_give_the_same_curve_bit_for_bit(
    served: Served, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "NICE", 0)  # a busy machine would let it wait for minutes
    training = Training(served, tmp_path / "runs", Library(data.parent))
    named = {"source": "prepared", "name": data.name}
    request = {"do": "start", "data": named, "preset": "nano", "steps": 16, "batch_size": 1}
    training.act(request | {"name": "paused"})
    until(lambda: about(training, "runs/paused").get("step", 0) >= 2, 300)
    training.act({"do": "pause"})
    until(lambda: training.jobs.now is None, 300)
    middle = about(training, "runs/paused")
    assert (middle["state"], middle["checkpoint"]) == ("paused", middle["step"])
    assert middle["step"] < 16, "it ended before it was paused"
    training.act({"do": "resume", "run": "runs/paused"})
    until(lambda: training.jobs.now is None, 300)
    assert about(training, "runs/paused")["state"] == "finished", training.problem
    # The same settings, kernels included, without a pause.
    whole = tmp_path / "runs" / "whole"
    (whole / "checkpoints").mkdir(parents=True)
    (whole / "config.json").write_bytes((tmp_path / "runs/paused/config.json").read_bytes())
    training.act({"do": "resume", "run": "runs/whole"})
    until(lambda: training.jobs.now is None, 300)
    assert about(training, "runs/whole")["state"] == "finished", training.problem
    assert curve(tmp_path / "runs/paused") == curve(whole)
    weights = [find_model(tmp_path / "runs" / n) / "model.safetensors" for n in ("paused", "whole")]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    assert len(checkpoints(whole)) > 1
    training.close()


def curve(run: Path) -> list[tuple[Any, ...]]:
    names = ("step", "tokens", "loss", "bpb", "lr", "muon_lr", "grad_norm", "val_loss", "val_bpb")
    records, _ = runlog.tail(run / "metrics.jsonl")
    return [tuple(record.get(name) for name in names) for record in records]


FULL_DISK = """
import resource, runpy, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
sys.argv[0] = {real!r}
runpy.run_path({real!r}, run_name="__main__")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits the size of files as Unix does")
@pytest.mark.timeout(600)
def test_a_full_disk_shows_its_last_lines(
    served: Served, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "NICE", 0)
    full = tmp_path / "full.py"
    full.write_text(FULL_DISK.format(real=str(jobs.ROOT / module.TRAIN)))
    monkeypatch.setattr(module, "TRAIN", str(full))
    training = Training(served, tmp_path / "runs", Library(data.parent))
    named = {"source": "prepared", "name": data.name}
    request = {"do": "start", "data": named, "preset": "nano", "steps": 20, "batch_size": 1}
    training.act(request | {"name": "full"})
    until(lambda: training.jobs.now is None, 300)
    found = about(training, "runs/full")
    assert found["state"] == "failed"
    assert "the checkpoint of step 2 cannot be written" in " ".join(found["lines"])
    assert "make room, then continue with" in (training.problem or "")
    assert found["checkpoint"] is None
