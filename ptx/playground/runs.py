"""What is known of a training run from its directory, whoever trains it."""

from __future__ import annotations

import json
import time
from collections import OrderedDict
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

from filelock import FileLock, Timeout

from ptx.checkpoint import checkpoints, log_folder, step_of
from ptx.playground.answers import can_be_named, clean, is_number
from ptx.playground.history import History
from ptx.playground.jobs import Jobs
from ptx.playground.served import Served
from ptx.runlog import METRICS

MOST_RUNS = 200
SHOWN = 6
"""Runs whose curves one page shows together."""
FRESH = 0.5
"""Seconds that a list of the runs serves all pages."""
LIVE_SECONDS = 60.0
"""A run without a lock that wrote something this recently is going on."""
TAIL = 4096
"""Bytes at the end of a log in which its last step is looked for."""
OWN = "model"
"""The key of the page's own model."""
ENDED = "ended.json"
"""In a run's directory: why it ended, unless it was paused or came to its end."""
SETTINGS = (
    "preset", "data", "steps", "batch_size", "optimizer", "lr", "muon_lr", "weight_decay", "warmup",
    "cooldown", "clip", "seed", "precision", "attention", "compile",
)  # fmt: skip
"""Of config.json, in the order in which differences between runs are told."""
Answer = dict[str, Any]
_looking = Lock()
"""Held while a run's lock is tried: two threads of the page would take each other for a trainer."""


class Runs:
    """The runs that a page can show: those of the runs directory, and the model's own training.
    For any number of threads."""

    def __init__(self, served: Served, directory: Path, jobs: Jobs) -> None:
        self.served, self.directory, self.jobs = served, directory, jobs
        self._histories: OrderedDict[Path, History] = OrderedDict()
        self._notes: dict[str, Answer] = {}  # as in ENDED: a full disk takes none
        self._listed: tuple[float, list[Answer]] = (0.0, [])
        self._lock = Lock()

    def paths(self) -> dict[str, Path]:
        """{key: directory} of everything that has a curve or settings, and of the run that is
        about to; the newest comes first."""
        found = {}
        if (job := self.jobs.now) and job.kind == "train":
            found[f"runs/{job.name}"] = self.directory / job.name
        folders = self.directory.iterdir() if self.directory.is_dir() else ()
        dated = [(_written(path), path) for path in folders if _is_run(path)]
        for _, path in sorted(dated, reverse=True)[:MOST_RUNS]:
            found[f"runs/{path.name}"] = path
        known = {path.resolve() for path in found.values()}
        own = log_folder(self.served.directory)
        if own and own.resolve() not in known:
            found[OWN] = own
        return found

    def follow(self, request: Answer) -> Answer:
        """The list of runs, and what a page lacks of those that it shows.

        request: {"run": key of the run at hand, or "" for the most interesting one,
            "shown": {key: "read" of the last answer about it}}; from any client, so whatever does
            not fit counts as absent.
        Returns {"runs": as `listing`, "run": the run at hand,
            "shown": {key: as `History.since`, with "settings" when it comes from the start}}.
        """
        paths, listing = self.paths(), self.listing()
        key, shown = request.get("run"), request.get("shown")
        if not isinstance(key, str) or key not in paths:
            live = (r["key"] for r in listing if r["state"] in ("training", "pausing", "elsewhere"))
            key = next((k for k in live if k in paths), next(iter(paths), ""))
        shown = shown if isinstance(shown, dict) else {}
        wanted = [key, *(k for k in shown if k in paths and k != key)][:SHOWN] if key else []
        return {
            "runs": listing,
            "run": key,
            "shown": {k: self._since(paths[k], shown.get(k)) for k in wanted},
        }

    def _since(self, run: Path, read: Any) -> Answer:
        answer = self._history(run).since(read)
        known = isinstance(read, dict) and read.get("epoch") == answer["epoch"]
        return answer if known else answer | {"settings": settings_of(run)}

    def whole(self, run: Path) -> Answer:
        """As `History.since` from the start, once all of the log has been read."""
        history = self._history(run)
        while (answer := history.since({}))["more"]:
            pass
        return answer

    def _history(self, run: Path) -> History:
        run = run.resolve()
        with self._lock:
            if run not in self._histories:
                self._histories[run] = History(run)
            self._histories.move_to_end(run)
            while len(self._histories) > MOST_RUNS:
                self._histories.popitem(last=False)
            return self._histories[run]

    def listing(self) -> list[Answer]:
        """[{key, name, state, step, steps, checkpoint, lines}]"""
        listed, runs = self._listed
        if time.monotonic() - listed > FRESH:
            runs = [self.about(key, path) for key, path in self.paths().items()]
            self._listed = time.monotonic(), runs
        return runs

    def about(self, key: str, run: Path) -> Answer:
        """One run. step: how far it is, of `steps`. checkpoint: the newest one's step. lines: the
        last that it said, if it failed."""
        own = key == OWN
        found = [] if own else _saved(run)
        step, steps = last_step(run), None if own else config(run).get("steps")
        steps = steps if is_number(steps) else None
        return {
            "key": key,
            "name": f"{self.served.name} (the model on this page)" if own else run.name,
            "state": "done" if own else self._state(run, step, steps),
            "step": step,
            "steps": steps,
            "checkpoint": step_of(found[-1]) if found else None,
            "lines": self._note(run).get("lines", []),
        }

    def _state(self, run: Path, step: float, steps: float | None) -> str:
        """training, pausing (it finishes its step), elsewhere (another process trains it),
        finished, stopped (by a person, for good), failed, paused; done if its log is all there
        is."""
        job = self.jobs.now
        if job and job.kind == "train" and job.name == run.name:
            return "pausing" if job.asked else "training"
        if held(run):
            return "elsewhere"
        if steps is not None and step >= steps:
            return "finished"
        return self._note(run).get("state") or ("paused" if config(run) else "done")

    def note(self, name: str, note: Answer | None) -> None:
        """Remembers why a run ended, or forgets it: {"state": stopped | failed, "lines"}."""
        run = self.directory / name
        self._listed = (0.0, [])
        if note is None:
            self._notes.pop(name, None)
            (run / ENDED).unlink(missing_ok=True)
        elif run.is_dir():
            note = self._notes[name] = note | {"step": last_step(run)}
            try:
                (run / ENDED).write_text(json.dumps(note))
            except OSError:
                return

    def _note(self, run: Path) -> Answer:
        """{} as well if the run has gone on since, wherever that was."""
        note = self._notes.get(run.name) or _json(run / ENDED)
        state, lines, step = (note.get(name) for name in ("state", "lines", "step"))
        if state not in ("stopped", "failed") or step not in (None, last_step(run)):
            return {}
        return {"state": state, "lines": lines if _are_texts(lines) else []}


def config(run: Path) -> Answer:
    """config.json of a run; {} if it has none."""
    path = run / "config.json"
    try:
        stat = path.stat()
    except OSError:
        return {}
    return _config(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=MOST_RUNS)
def _config(path: Path, changed: int, size: int) -> Answer:
    found = _json(path)
    return found if "preset" in found else {}


def settings_of(run: Path) -> Answer:
    """What a run was told, as far as it matters for comparing it with another."""
    found = config(run)
    values = {n: found[n] for n in SETTINGS if isinstance(found.get(n), str | int | float)}
    if isinstance(values.get("data"), str):
        values["data"] = Path(values["data"]).name
    return {n: clean(value) if isinstance(value, str) else value for n, value in values.items()}


def held(run: Path) -> bool:
    """Whether a process trains this run. One that holds no lock must have written lately."""
    if not (run / "lock").is_file():
        return not config(run) and _is_fresh(run)
    lock = FileLock(run / "lock")
    with _looking:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return True
        except OSError:  # another person's run
            return _is_fresh(run)
        lock.release()
    return False


def _is_fresh(run: Path) -> bool:
    """Whether it was written to lately; a date to come says nothing."""
    return abs(time.time() - _written(run)) < LIVE_SECONDS


def last_step(run: Path) -> int:
    """The newest step in a run's log; 0 before there is one."""
    path = run / METRICS
    try:
        stat = path.stat()
        return _last_step(path, stat.st_mtime_ns, stat.st_size)
    except OSError:
        return 0


@lru_cache(maxsize=2 * MOST_RUNS)
def _last_step(path: Path, changed: int, size: int) -> int:
    with open(path, "rb") as file:
        file.seek(max(0, size - TAIL))
        lines = file.read().splitlines()
    for line in reversed(lines):
        try:
            step = json.loads(line)["step"]
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
        if is_number(step):
            return int(step)
    return 0


def _json(path: Path) -> Answer:
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _saved(run: Path) -> list[Path]:
    try:
        return checkpoints(run)
    except OSError:  # another person's
        return []


def _is_run(path: Path) -> bool:
    try:
        return can_be_named(path.name) and ((path / METRICS).is_file() or bool(config(path)))
    except OSError:
        return False


def _written(run: Path) -> float:
    for name in (METRICS, "config.json"):
        try:
            return (run / name).stat().st_mtime
        except OSError:
            continue
    return 0.0
