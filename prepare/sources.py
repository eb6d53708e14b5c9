"""Where the text comes from: projects, each a list of files with a name, version and licence."""

from __future__ import annotations

import mmap
import os
import platform
import re
import sysconfig
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from ptx.errors import UserError

# Not part of the standard library although they lie inside its directory.
NOT_STDLIB = {"site-packages", "dist-packages", "lib-dynload", "__pycache__"}

BLOCK = 64 * 1024  # bytes of one text that are judged together
TOP_LEVEL = re.compile(rb"\n[ \t\r]*\n(?=\S)")


@dataclass(frozen=True)
class Document:
    """A file, or the bytes [start, stop) of one: small enough to hand to another process."""

    path: Path
    start: int = 0
    stop: int | None = None

    def read(self) -> bytes:
        try:
            with self.path.open("rb") as file:
                file.seek(self.start)
                return file.read(-1 if self.stop is None else self.stop - self.start)
        except OSError as error:
            raise UserError(f"{self.path} cannot be read ({error.strerror}).") from None


@dataclass(frozen=True)
class Project:
    """One package or repository: the unit of the split, and of provenance."""

    name: str
    version: str
    licence: str
    documents: tuple[Document, ...]  # in a fixed order, so that two runs write the same files
    continuous: bool = False  # the documents are the consecutive parts of one text


def installed() -> list[Project]:
    """The standard library and every distribution installed beside the running interpreter."""
    return [standard_library(), *distributions()]


def standard_library() -> Project:
    """The standard library's own .py files, without what is installed inside its directory."""
    root = Path(sysconfig.get_path("stdlib"))
    return Project(
        name="python",
        version=platform.python_version(),
        licence="PSF-2.0",
        documents=documents(python_files(root, skip=NOT_STDLIB)),
    )


def distributions() -> list[Project]:
    """One project per installed distribution, sorted by name; no file belongs to two of them."""
    roots = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    projects: list[Project] = []
    owned: set[Path] = set()
    # What an interrupted uninstall leaves behind has no name.
    present = [d for d in metadata.distributions(path=sorted(roots)) if d.name and d.version]
    for dist in sorted(present, key=lambda d: (normalized(d.name), d.version)):
        files = owned_files(dist, roots) - owned
        owned |= files
        if files:
            licence = licence_of(dist.metadata)
            found = documents(files)
            projects.append(Project(normalized(dist.name), dist.version, licence, found))
    return projects


def owned_files(dist: metadata.Distribution, roots: set[str]) -> set[Path]:
    """The distribution's .py files that exist inside site-packages (its scripts lie outside)."""
    listed = {
        Path(os.path.normpath(str(dist.locate_file(file))))
        for file in dist.files or ()
        if file.suffix == ".py" and "__pycache__" not in file.parts
    }
    return {
        path
        for path in listed
        if any(path.is_relative_to(root) for root in roots)
        and path.is_file()
        and not path.is_symlink()
    }


def folder(root: Path) -> list[Project]:
    """Each immediate subdirectory is a project; loose .py files form one named after the folder."""
    if not root.is_dir():
        raise UserError(f"{root} is not a directory: name a folder whose subfolders are projects.")
    children = sorted(child for child in root.iterdir() if not child.is_symlink())
    loose = [path for path in children if path.is_file() and path.suffix == ".py"]
    groups = [(root.resolve().name, loose)]
    groups += [(path.name, python_files(path)) for path in children if visible_directory(path)]
    projects = [Project(name, "", "unknown", documents(files)) for name, files in groups if files]
    if not projects:
        raise UserError(f"{root} holds no .py file: name a folder whose subfolders are projects.")
    return projects


def text(path: Path, val_fraction: float) -> tuple[Project, Project]:
    """One text cut into blocks, as (training, validation): the last `val_fraction` is validation.

    Blocks are about 64 KiB and end before a top-level line that follows a blank one, so that the
    filters can judge and remove a part of the text.
    """
    if not path.is_file():
        raise UserError(f"{path} is not a file: name one text file.")
    blocks = [Document(path, start, stop) for start, stop in block_spans(path)]
    try:
        blocks[0].read().decode("utf-8")
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8 text: convert it or name another file.") from None
    cut = sum(block.stop <= (1 - val_fraction) * blocks[-1].stop for block in blocks)
    if cut == 0 or cut == len(blocks):
        raise UserError(
            f"{path} is too short to hold back {val_fraction:.0%} of it for validation: name a "
            "longer text, or one with line breaks."
        )
    parts = (tuple(blocks[:cut]), tuple(blocks[cut:]))
    train, val = (Project(path.name, "", "unknown", part, continuous=True) for part in parts)
    return train, val


def block_spans(path: Path) -> list[tuple[int, int]]:
    """Where the blocks of a text start and stop; together they are the whole text."""
    size = path.stat().st_size
    if size == 0:
        raise UserError(f"{path} is empty.")
    block = min(BLOCK, size // 20)  # a short text still has a last tenth
    spans = []
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        start = 0
        while start < size:
            # A text without top-level lines is cut at any line, one without lines not at all.
            best = TOP_LEVEL.search(data, start + block, start + 2 * block)
            stop = best.end() if best else data.find(b"\n", start + block) + 1 or size
            spans.append((start, stop))
            start = stop
    return spans


def documents(paths: Iterable[Path]) -> tuple[Document, ...]:
    return tuple(map(Document, sorted(paths)))


def visible_directory(path: Path) -> bool:
    return path.is_dir() and not path.name.startswith(".") and path.name != "__pycache__"


def python_files(root: Path, skip: set[str] = frozenset({"__pycache__"})) -> list[Path]:
    """Every .py file under `root`; symbolic links are neither followed nor read."""
    found: list[Path] = []
    for directory, subdirectories, names in os.walk(root):
        subdirectories[:] = [d for d in subdirectories if d not in skip and not d.startswith(".")]
        paths = (Path(directory, name) for name in names if name.endswith(".py"))
        found += [path for path in paths if path.is_file() and not path.is_symlink()]
    return found


def normalized(name: str) -> str:
    """A distribution's name as package indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def licence_of(fields: metadata.PackageMetadata) -> str:
    """The licence a distribution declares: expression, short free text, or its classifiers."""
    if expression := fields.get("License-Expression"):
        return expression.strip()
    # Older packages paste the whole licence here: only a short name is worth recording.
    free_text = (fields.get("License") or "").strip()
    if free_text and "\n" not in free_text and len(free_text) <= 80 and free_text != "UNKNOWN":
        return free_text
    classifiers = fields.get_all("Classifier") or ()
    names = [c.rsplit(" :: ", 1)[-1] for c in classifiers if c.startswith("License ::")]
    return " AND ".join(names) or "unknown"
