"""The models that a page offers: names from a list, never paths."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from threading import Lock
from typing import Any

from ptx.checkpoint import STEP_DIR, checkpoints, find_model, is_run, step_of
from ptx.errors import UserError
from ptx.hub import hub_model
from ptx.playground.answers import can_be_named
from ptx.playground.limits import LIMITS, Limits
from ptx.playground.served import Served

KEPT = 3
"""Models in memory at a time, the first one among them."""
FIRST = ""
"""The key of the model that the page opened with."""
HUB = "hub:"
"""Before a name of the Hugging Face Hub, it makes the key of that model."""
INSIDE = "/checkpoints/"
"""Between a run's key and the name of one of its checkpoints: the pinned key of that one."""
EARLIER = 20
"""Checkpoints of a run, before its newest, that can be chosen."""
HUB_BYTES = 2_000_000_000
"""Of a model from the Hub."""


class Models:
    """The model that the page opened with, its neighbours in the directory of released models, and
    the newest checkpoint of every local run; where that is allowed, any model of the Hub by name.
    Loaded when first asked for."""

    def __init__(self, first: Served, released: Path, runs: Path, limits: Limits = LIMITS) -> None:
        self.first, self.released, self.runs, self.limits = first, released, runs, limits
        self._from_hub: dict[str, Path] = {}
        self._loaded: OrderedDict[str, Served] = OrderedDict()  # by pinned keys
        self._lock = Lock()  # of what is loaded
        self._loading = Lock()  # one model at a time

    def paths(self) -> dict[str, Path]:
        """{key: directory} of what can be chosen. A run's key goes on to mean its newest
        checkpoint."""
        found = {FIRST: self.first.directory}
        for folder, prefix in ((self.released, ""), (self.runs, "runs/")):
            for path in sorted(folder.iterdir()) if folder.is_dir() else ():
                if _is_model(path) and path.resolve() != self.first.directory.resolve():
                    found[prefix + path.name] = path
        return found | self._from_hub

    def listing(self) -> list[dict[str, str]]:
        """What a person chooses from; `run` is in a checkpoint of one, which has others."""
        others = {key: path for key, path in self.paths().items() if key != FIRST}
        named = [{"key": key, "name": key.removeprefix(HUB)} for key in others]
        steps = [
            {"key": key + INSIDE + step.name, "name": f"{key}, step {step_of(step):,}", "run": key}
            for key, path in others.items()
            for step in (checkpoints(path) if is_run(path) else [])[:-1][-EARLIER:]
        ]
        return [{"key": FIRST, "name": self.first.name}, *named, *steps]

    def path_to(self, key: str) -> str:
        """What `ptx.load_model` is given for it, from the repository's root; a name of the Hub."""
        if key == FIRST and self.first.directory.parent.resolve() != self.released.resolve():
            return str(self.first.directory)
        if key.startswith(HUB):
            return key.removeprefix(HUB)
        return key if key.startswith("runs/") else f"checkpoints/{key or self.first.name}"

    def pin(self, key: Any) -> str:
        """The key, from any client, of the one model that this key means now: a run's goes on to
        mean its newest checkpoint. Raises UserError for a key that means none."""
        return self._find(key)[0] if self._held(key) is None else key

    def get(self, key: Any = FIRST) -> Served:
        """The model with this key, from any client. Raises UserError for another one, and for a
        model that cannot be read."""
        if served := self._held(key):
            return served
        with self._loading:
            key, directory = self._find(key)
            if served := self._held(key):
                return served
            served = Served.load(directory)
            served.get_ready()
            self._keep(key, served)
            return served

    def _held(self, key: Any) -> Served | None:
        """A model in memory, found without a look at the disk."""
        if key == FIRST:
            return self.first
        with self._lock:
            if not isinstance(key, str) or key not in self._loaded:
                return None
            self._loaded.move_to_end(key)
            return self._loaded[key]

    def _keep(self, key: str, served: Served) -> None:
        with self._lock:
            self._loaded[key] = served
            while len(self._loaded) >= KEPT:
                self._loaded.popitem(last=False)[1].retire()

    def _find(self, key: Any) -> tuple[str, Path]:
        """A pinned key, and the directory that it means."""
        wrong = f"there is no model {key!r:.60} here: choose one of the list"
        if not isinstance(key, str):
            raise UserError(wrong)
        if key.startswith(HUB):
            self._fetch(key)
        paths = self.paths()
        if key in paths:
            directory = find_model(paths[key])
            return key if directory == paths[key] else key + INSIDE + directory.name, directory
        run, _, step = key.rpartition(INSIDE)
        if run in paths and STEP_DIR.fullmatch(step):
            directory = paths[run] / INSIDE.strip("/") / step
            if directory.is_dir():
                return key, directory
        raise UserError(wrong)

    def _fetch(self, key: str) -> None:
        if not self.limits.hub:
            raise UserError(
                "this page opens no models of the Hub (PTX_HUB): choose one of the list"
            )
        if key not in self._from_hub:
            self._from_hub[key] = hub_model(key.removeprefix(HUB), max_bytes=HUB_BYTES)


def _is_model(path: Path) -> bool:
    if not can_be_named(path.name):
        return False
    try:
        if is_run(path):
            return bool(checkpoints(path))
        return (path / "config.json").is_file() and (path / "model.safetensors").is_file()
    except OSError:  # another person's
        return False
