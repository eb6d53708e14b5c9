"""Training: choose what to learn from, start, pause, resume, stop; curves and texts as they come.

Training itself is `train/run.py` in a child process (jobs.py); all that the page knows of a run is
its directory (runs.py, history.py). The browser asks every second for what it lacks, so closing a
page stops nothing and two pages see the same.
"""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
import time
from functools import cached_property
from pathlib import Path
from typing import Any

from ptx.config import PRESETS
from ptx.errors import UserError
from ptx.playground.answers import clean, is_number
from ptx.playground.jobs import ROOT, Job, Jobs, word
from ptx.playground.library import Library, plain
from ptx.playground.limits import LIMITS, Limits
from ptx.playground.preparing import installed, preparation
from ptx.playground.runs import OWN, Runs
from ptx.playground.served import Served
from ptx.playground.web import panel
from ptx.tokenizer import SHIPPED

TRAIN, PREPARE = "train/run.py", "prepare/run.py"
TOKENIZERS = {"nano": "py4k"}
"""Of presets that learn sooner with another than the usual one: train/ABLATIONS.md."""
LAST_LINES, LONGEST = 12, 500
"""Of what a job said, and characters of each."""
AS_ASKED = (0, 130, -signal.SIGINT, -signal.SIGTERM)
"""Exit statuses of a job that ended because it was asked to."""
WHY_NOT = {
    "training": "it is being trained",
    "pausing": "it is saving what it has",
    "elsewhere": "another process trains it",
    "finished": "it has taken all its steps",
    "done": "only its log is here",
}
"""Why a run in such a state cannot be resumed."""
Answer = dict[str, Any]


class Training:
    """Everything behind the panel. For any number of threads and pages."""

    def __init__(
        self, served: Served, directory: Path, library: Library, limits: Limits = LIMITS
    ) -> None:
        self.directory, self.library, self.limits = directory, library, limits
        self.jobs = Jobs()
        self.runs = Runs(served, directory, self.jobs)
        self.estimates: dict[str, Answer] = {}
        self.problem: str | None = None  # of the last job, if it failed

    def follow(self, request: Any) -> Answer:
        """What a page lacks: as `Runs.follow`, with "job", the one at hand, and "options", what
        can be chosen, unless the request's "options" is their version."""
        request = request if isinstance(request, dict) else {}
        answer = self.runs.follow(request) | {"job": self._job(), "problem": self.problem}
        options = self._options()
        if request.get("options") != options["version"]:
            answer["options"] = options
        return answer

    def _job(self) -> Answer | None:
        if (job := self.jobs.now) is None:
            return None
        return {
            "kind": job.kind,
            "name": job.name,
            "asked": job.asked,
            "seconds": round(time.monotonic() - job.started, 1),
            "lines": _last_lines(job),
            "command": f"python {shlex.join(job.words)}",
        }

    def _options(self) -> Answer:
        if not self.limits.training:
            return {"version": "off", "training": False}
        options = {
            "training": True,
            "data": self.library.prepared(),
            "folders": self.library.folders(),
            "installed": [
                name
                for name in self.presets
                if not (self.library.data / installed(TOKENIZERS.get(name))).exists()
            ],
            "presets": self.presets,
            "estimates": self.estimates,
            "upload_bytes": self.limits.upload_bytes,
        }
        return options | {"version": str(hash(json.dumps(options, sort_keys=True)))}

    @cached_property
    def presets(self) -> dict[str, Answer]:
        """{name: its recipe and shape}, of what the page can train."""
        return {
            name: {
                "steps": recipe["steps"],
                "batch_size": recipe["batch_size"],
                "lr": recipe["lr"],
                "muon_lr": recipe["muon_lr"] if recipe["optimizer"] == "muon" else None,
                "context": PRESETS[name].context,
                "layers": PRESETS[name].n_layer,
                "heads": PRESETS[name].n_head,
                "width": PRESETS[name].d_model,
                "vocab": SHIPPED.get(TOKENIZERS.get(name, ""), PRESETS[name].vocab_size),
            }
            for name, recipe in recipes().items()
        }

    def act(self, request: Any) -> Answer:
        """{"do": one of the names below, ...} from any client -> {"run" or "name": ...} or
        {"error": sentence}; the browser never learns of an exception."""
        actions = {
            "start": self.start,
            "pause": self.pause,
            "stop": self.stop,
            "resume": self.resume,
            "estimate": self.estimate,
            "dismiss": self.dismiss,
        }
        try:
            if not self.limits.training:
                raise UserError("training is turned off on this page (PTX_TRAINING)")
            name = request.get("do") if isinstance(request, dict) else None
            if not isinstance(name, str) or name not in actions:
                raise UserError(f"do must be one of: {', '.join(actions)}")
            return actions[name](request)
        except UserError as error:
            return {"error": str(error)}
        except OSError as error:
            return {"error": f"{error.filename or 'a file'}: {error.strerror}"}

    def start(self, request: Answer) -> Answer:
        """{"data": {"source": "prepared" | "installed" | "folder" | "text", "name", "text"},
        "preset", "steps", "batch_size", "rate", "seed", "name"}: prepares the data if need be, and
        trains on it. rate: times the recipe's learning rates."""
        preset = self._preset(request)
        recipe = self.presets[preset]
        steps = whole(request, "steps", 1, 10_000_000, recipe["steps"])
        batch = whole(request, "batch_size", 1, 4096, recipe["batch_size"])
        rate = number(request, "rate", 0.001, 1000.0, 1.0)
        seed = whole(request, "seed", 0, 2**32 - 1, 0)
        name = request.get("name")
        name = plain(name) if name else self._free(preset)
        if (self.directory / name).exists():
            raise UserError(f"a run {name!r} exists already: resume it, or give another name")
        words = [
            TRAIN, "--preset", preset, "--runs", word(self.directory), "--name", name,
            "--steps", str(steps), "--batch-size", str(batch), "--seed", str(seed),
            "--val-every", str(min(100, max(1, steps // 10))),
            "--sample-every", str(min(250, max(1, steps // 8))),
            "--save-every", str(min(250, max(1, steps // 8))),
        ]  # fmt: skip
        if rate != 1.0:
            words += ["--lr", f"{rate * recipe['lr']:.6g}"]
            words += ["--muon-lr", f"{rate * recipe['muon_lr']:.6g}"] if recipe["muon_lr"] else []
        return self._with_data(request.get("data"), name, words, TOKENIZERS.get(preset))

    def _with_data(self, data: Any, name: str, words: list[str], tokenizer: str | None) -> Answer:
        """Trains on prepared data; on other data once it is prepared, with a tokenizer of the
        preset's, if it has one."""
        data = data if isinstance(data, dict) else {}
        if data.get("source") == "prepared":
            return self._train(name, [*words, "--data", word(self.library.find(data.get("name")))])
        wanted = preparation(data, tokenizer, self.library, self.limits.upload_bytes)

        def then(job: Job) -> None:
            wanted.end()
            if job.status != 0:
                self._note_end(job)
                return
            try:
                self._train(name, [*words, "--data", word(wanted.out)])
            except UserError as error:  # the page is being closed
                self.problem = str(error)

        try:
            wanted.begin()
            self.jobs.start("prepare", wanted.out.name, [PREPARE, *wanted.words], then)
        except (UserError, OSError):  # another visitor was faster, or the disk is full
            wanted.end()
            raise
        self.problem = None
        return {"name": wanted.out.name}

    def _train(self, name: str, words: list[str]) -> Answer:
        self.problem = None
        self.jobs.start("train", name, words, self._note_end)
        self.runs.note(name, None)
        return {"run": f"runs/{name}"}

    def _free(self, preset: str) -> str:
        number, name = 1, preset
        while (self.directory / name).exists():
            number += 1
            name = f"{preset}-{number}"
        return name

    def pause(self, request: Answer) -> Answer:
        """{}: the job finishes its step and saves."""
        self._at_hand().ask_to_end("pause")
        return {}

    def stop(self, request: Answer) -> Answer:
        """{"now"}: as pausing, for good; with `now` at once, and what was not saved is lost."""
        job = self._at_hand()
        if request.get("now") is True:
            job.kill()
        else:
            job.ask_to_end("stop")
        return {}

    def _at_hand(self) -> Job:
        if job := self.jobs.now:
            return job
        raise UserError("nothing is going on")

    def resume(self, request: Answer) -> Answer:
        """{"run": key}"""
        key = request.get("run")
        path = self.runs.paths().get(key) if isinstance(key, str) else None
        if path is None or key == OWN:
            raise UserError(f"there is no run {key!r} here: choose one of the list")
        state = self.runs.about(key, path)["state"]
        if state in WHY_NOT:
            raise UserError(f"{path.name}: {WHY_NOT[state]}, so it cannot be resumed")
        return self._train(path.name, [TRAIN, "--resume", word(path)])

    def estimate(self, request: Answer) -> Answer:
        """{"preset", "vocab"}: lets train/run.py doctor time it with data of so many different
        tokens; the figures come with the options."""
        preset = self._preset(request)
        vocab = str(whole(request, "vocab", 2, 10_000_000, self.presets[preset]["vocab"]))

        def then(job: Job) -> None:
            try:
                found = json.loads(job.lines[-1])
                figures, trouble = found["presets"][0], found["trouble"]
            except (IndexError, KeyError, TypeError, ValueError):
                self._note_end(job)
                return
            names = ("parameters", "tokens_per_s", "memory_gib", "fits")
            self.estimates = self.estimates | {
                f"{preset} {vocab}": {name: figures[name] for name in names} | {"trouble": trouble}
            }

        self.problem = None
        words = [
            TRAIN, "doctor", "--preset", preset, "--vocab-size", vocab, "--json",
            "--runs", word(self.directory),
        ]  # fmt: skip
        self.jobs.start("estimate", preset, words, then)
        return {"name": preset}

    def _preset(self, request: Answer) -> str:
        preset = request.get("preset")
        if not isinstance(preset, str) or preset not in self.presets:
            raise UserError(f"preset must be one of: {', '.join(self.presets)}")
        return preset

    def dismiss(self, request: Answer) -> Answer:
        """{}: the last problem has been read."""
        self.problem = None
        return {}

    def _note_end(self, job: Job) -> None:
        """Remembers why a job ended, if that is not what it was asked for."""
        as_asked = job.asked and (job.killed or job.status in AS_ASKED)
        if as_asked and job.asked == "stop":
            note: Answer = {"state": "stopped"}
        elif as_asked or job.status == 0:
            return
        else:
            lines = _last_lines(job)
            self.problem = f"{job.name}: {_reason(job, lines)}"
            note = {"state": "failed", "lines": lines}
        if job.kind == "train":
            self.runs.note(job.name, note)

    def close(self) -> None:
        """Ends what is going on, as a pause does."""
        if job := self.jobs.now:
            print(f"{job.name} saves and ends; it can be resumed on the next page", flush=True)
        self.jobs.close()


def _last_lines(job: Job) -> list[str]:
    return [clean(line[:LONGEST]) for line in list(job.lines)[-LAST_LINES:]]


def _reason(job: Job, lines: list[str]) -> str:
    """What went wrong, in one sentence."""
    if job.status is not None and job.status < 0:
        return f"the process was killed (signal {-job.status}); is there enough memory?"
    errors = [line for line in lines if line.startswith("error: ")]
    if errors:
        return lines_from(errors[-1], lines)
    return lines[-1] if lines else f"the process ended with status {job.status}"


def lines_from(first: str, lines: list[str]) -> str:
    """A sentence that the terminal broke into lines."""
    start = len(lines) - 1 - lines[::-1].index(first)
    return " ".join(lines[start:]).removeprefix("error: ")


def recipes() -> dict[str, Answer]:
    """The recipe of every preset, asked of train/, which the page does not import."""
    code = "import json; from train.settings import RECIPES; print(json.dumps(RECIPES))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True)
    return json.loads(done.stdout)


def whole(request: Answer, name: str, low: int, high: int, default: int) -> int:
    """A whole number of a request, or the default if it is left out."""
    value = request.get(name)
    value = default if value is None else value
    if type(value) is not int or not low <= value <= high:
        raise UserError(f"{name} must be a whole number from {low:,} to {high:,}")
    return value


def number(request: Answer, name: str, low: float, high: float, default: float) -> float:
    """A number of a request, or the default if it is left out."""
    value = request.get(name)
    value = default if value is None else value
    if not is_number(value) or not low <= value <= high:
        raise UserError(f"{name} must be a number from {low:g} to {high:g}")
    return float(value)


def build(training: Training) -> None:
    """The panel; everything it does happens between its scripts and these two functions."""

    def follow(request: Any) -> Answer:
        return training.follow(request)

    def act(request: Any) -> Answer:
        return training.act(request)

    panel("training", server=[follow, act])
