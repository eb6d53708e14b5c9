"""The models that a page offers: names from a list, never paths."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from threading import Lock
from typing import Any

from ptx.checkpoint import checkpoints, find_model, is_run
from ptx.errors import UserError
from ptx.hub import hub_model
from ptx.playground.limits import LIMITS, Limits
from ptx.playground.served import Served

KEPT = 3
"""Models in memory at a time, the first one among them."""
FIRST = ""
"""The key of the model that the page opened with."""
HUB = "hub:"
"""Before a name of the Hugging Face Hub, it makes the key of that model."""
HUB_BYTES = 2_000_000_000
"""Of a model from the Hub."""


class Models:
    """The model that the page opened with, its neighbours in the directory of released models, and
    the newest checkpoint of every local run; where that is allowed, any model of the Hub by name.
    Loaded when first asked for."""

    def __init__(self, first: Served, released: Path, runs: Path, limits: Limits = LIMITS) -> None:
        self.first, self.released, self.runs, self.limits = first, released, runs, limits
        self._from_hub: dict[str, Path] = {}
        self._loaded: OrderedDict[Path, Served] = OrderedDict()
        self._lock = Lock()

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
        """What a person chooses from."""
        keys = [key for key in self.paths() if key != FIRST]
        named = [{"key": key, "name": key.removeprefix(HUB)} for key in keys]
        return [{"key": FIRST, "name": self.first.name}, *named]

    def path_to(self, key: str) -> str:
        """What `ptx.load_model` is given for it, from the repository's root; a name of the Hub."""
        if key == FIRST and self.first.directory.parent.resolve() != self.released.resolve():
            return str(self.first.directory)
        if key.startswith(HUB):
            return key.removeprefix(HUB)
        return key if key.startswith("runs/") else f"checkpoints/{key or self.first.name}"

    def get(self, key: Any = FIRST) -> Served:
        """The model with this key, from any client. Raises UserError for another one, and for a
        model that cannot be read."""
        if key == FIRST:
            return self.first
        if isinstance(key, str) and key.startswith(HUB):
            self._fetch(key)
        paths = self.paths()
        if not isinstance(key, str) or key not in paths:
            raise UserError(f"there is no model {key!r} here: choose one of the list")
        directory = find_model(paths[key]).resolve()
        with self._lock:
            if directory not in self._loaded:
                self._loaded[directory] = Served.load(directory)
                self._loaded[directory].get_ready()
            self._loaded.move_to_end(directory)
            while len(self._loaded) >= KEPT:
                # Texts that are being written keep their engine until they end.
                self._loaded.popitem(last=False)
            return self._loaded[directory]

    def _fetch(self, key: str) -> None:
        if not self.limits.hub:
            raise UserError(
                "this page opens no models of the Hub (PTX_HUB): choose one of the list"
            )
        if key not in self._from_hub:
            self._from_hub[key] = hub_model(key.removeprefix(HUB), max_bytes=HUB_BYTES)


def _is_model(path: Path) -> bool:
    if is_run(path):
        return bool(checkpoints(path))
    return (path / "config.json").is_file() and (path / "model.safetensors").is_file()
