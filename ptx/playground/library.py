"""What training can learn from: prepared data, and what can be prepared. Names, never paths."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

from ptx.corpus import MANIFEST_FILE
from ptx.errors import UserError
from ptx.playground.answers import can_be_named

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,59}")
OTHERS = re.compile(r"[^A-Za-z0-9._-]+")
MOST = 200
"""Names in a list."""


class Library:
    """A directory of prepared data, and one of folders with source code.

    sources: the directory whose folders may be chosen, or None.
    """

    def __init__(self, data: Path, sources: Path | None = None) -> None:
        self.data, self.sources = data, sources

    def prepared(self) -> list[dict[str, Any]]:
        """Every data directory with what it holds."""
        folders = sorted(self.data.iterdir()) if self.data.is_dir() else []
        found = [about for path in folders if (about := _about(path))]
        return found[:MOST]

    def folders(self) -> list[str]:
        """The folders of the sources directory."""
        if self.sources is None or not self.sources.is_dir():
            return []
        return sorted(path.name for path in self.sources.iterdir() if _is_folder(path))[:MOST]

    def find(self, name: Any) -> Path:
        """The data directory of this name, from any client."""
        if isinstance(name, str) and name in {about["name"] for about in self.prepared()}:
            return self.data / name
        raise UserError(f"there is no prepared data {name!r} here: choose one of the list")

    def find_folder(self, name: Any) -> Path:
        """The folder of source code of this name, from any client."""
        if self.sources and isinstance(name, str) and name in self.folders():
            return self.sources / name
        raise UserError(f"there is no folder {name!r} here: choose one of the list")

    def new(self, name: Any) -> Path:
        """Where data of a new name goes, from any client."""
        path = self.data / plain(name)
        if path.exists():
            raise UserError(
                f"data {name!r} exists already: choose it under Prepared data, or, for a text, "
                "another name"
            )
        return path


def plain(name: Any) -> str:
    """A name that is nothing but a name. UserError for any other."""
    if isinstance(name, str) and NAME.fullmatch(name) and name != "latest":
        return name
    raise UserError("a name has letters, digits, dots, dashes and underscores, 60 at most")


def plain_form(name: str) -> str:
    """A plain name for what is called anything."""
    found = OTHERS.sub("-", name).strip("._-")[:60]
    return found if found not in ("", "latest") else "folder"


def _is_folder(path: Path) -> bool:
    try:
        return can_be_named(path.name) and path.is_dir()
    except OSError:
        return False


def _about(path: Path) -> dict[str, Any] | None:
    """None for what is no data directory."""
    manifest = path / MANIFEST_FILE
    try:
        if not can_be_named(path.name):
            return None
        stat = manifest.stat()
        return _read(manifest, stat.st_mtime_ns, stat.st_size)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


@lru_cache(maxsize=MOST)
def _read(manifest: Path, changed: int, size: int) -> dict[str, Any]:
    found = json.loads(manifest.read_text("utf-8"))
    splits = found["splits"]
    return {
        "name": manifest.parent.name,
        "tokens": int(splits["train"]["tokens"]),
        "bytes": int(splits["train"]["bytes"]),
        "tokenizer": str(found["tokenizer"]["name"]),
        "vocab": int(found["tokenizer"]["n_vocab"]),
    }
