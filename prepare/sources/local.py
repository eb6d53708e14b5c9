"""Source code on this machine: installed packages, a folder of projects, one text."""

from __future__ import annotations

import mmap
import os
import platform
import re
import sysconfig
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path

from prepare.sources import Document, Source
from prepare.split import require_several
from ptx.errors import UserError

# Not part of the standard library although they lie inside its directory.
NOT_STDLIB = {"site-packages", "dist-packages", "lib-dynload", "__pycache__"}

SHARD = 4_000_000  # bytes of files that one worker reads at a time
BLOCK = 64 * 1024  # bytes of one text that are judged together
TOP_LEVEL = re.compile(rb"\n[ \t\r]*\n(?=\S)")


@dataclass(frozen=True)
class Project:
    """One package or folder, with its files sorted."""

    name: str
    version: str
    licence: str
    root: Path
    paths: tuple[Path, ...]

    def document(self, path: Path) -> Document:
        shown = os.path.relpath(path, self.root)
        return Document(read(path), shown, self.name, self.version, self.licence)


@dataclass(frozen=True)
class Files:
    """Some files of some projects; sizes and times tell whether they are still the same."""

    projects: tuple[Project, ...]
    stats: tuple[tuple[int, int], ...]

    @property
    def size(self) -> int:
        return sum(size for size, _ in self.stats)

    def documents(self) -> Iterator[Document]:
        for project in self.projects:
            yield from map(project.document, project.paths)


@dataclass(frozen=True)
class Blocks:
    """Consecutive parts of one text."""

    path: Path
    modified: int
    spans: tuple[tuple[int, int], ...]

    @property
    def size(self) -> int:
        return self.spans[-1][1] - self.spans[0][0]

    def documents(self) -> Iterator[Document]:
        for start, stop in self.spans:
            yield Document(read(self.path, start, stop), f"{start}-{stop}", self.path.name)


def read(path: Path, start: int = 0, stop: int | None = None) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(start)
            return file.read(-1 if stop is None else stop - start)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}).") from None


def shards(projects: Iterable[Project]) -> list[Files]:
    """The projects' files in order, in parts of about SHARD bytes."""
    parts: list[Files] = []
    members: list[Project] = []
    stats: list[tuple[int, int]] = []
    size = 0
    for project in projects:
        begun = 0
        for i, path in enumerate(project.paths, 1):
            stat = path.stat()
            stats.append((stat.st_size, stat.st_mtime_ns))
            size += stat.st_size
            if size >= SHARD:
                members.append(replace(project, paths=project.paths[begun:i]))
                parts.append(Files(tuple(members), tuple(stats)))
                members, stats, size, begun = [], [], 0, i
        if begun < len(project.paths):
            members.append(replace(project, paths=project.paths[begun:]))
    return [*parts, Files(tuple(members), tuple(stats))] if members else parts


def installed() -> Source:
    """The standard library and every distribution installed beside the running interpreter."""
    return Source("installed", shards([standard_library(), *distributions()]))


def standard_library() -> Project:
    """The standard library's own .py files, without what is installed inside its directory."""
    root = Path(sysconfig.get_path("stdlib"))
    return Project(
        name="python",
        version=platform.python_version(),
        licence="PSF-2.0",
        root=root,
        paths=tuple(sorted(python_files(root, skip=NOT_STDLIB))),
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
            root, paths = Path(str(dist.locate_file(""))), tuple(sorted(files))
            projects.append(Project(normalized(dist.name), dist.version, licence, root, paths))
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


def folder(root: Path) -> Source:
    """Each immediate subdirectory is a project; loose .py files form one named after the folder."""
    if not root.is_dir():
        raise UserError(f"{root} is not a directory: name a folder whose subfolders are projects.")
    children = sorted(child for child in root.iterdir() if not child.is_symlink())
    loose = [path for path in children if path.is_file() and path.suffix == ".py"]
    groups = [(root.resolve().name, loose)]
    groups += [(path.name, python_files(path)) for path in children if visible_directory(path)]
    projects = [
        Project(name, "", "", root, tuple(sorted(files))) for name, files in groups if files
    ]
    if not projects:
        raise UserError(f"{root} holds no .py file: name a folder whose subfolders are projects.")
    require_several(sorted({project.name for project in projects}))  # a subfolder may be named so
    return Source(f"folder {root}", shards(projects))


def text(path: Path) -> Source:
    """One text cut into blocks of about 64 KiB.

    They end before a top-level line that follows a blank one, so that the filters can judge and
    remove a part of the text.
    """
    if not path.is_file():
        raise UserError(f"{path} is not a file: name one text file.")
    spans = block_spans(path)
    try:
        read(path, *spans[0]).decode("utf-8")
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8 text: convert it or name another file.") from None
    per_shard = max(1, SHARD // BLOCK)
    parts = [tuple(spans[i : i + per_shard]) for i in range(0, len(spans), per_shard)]
    modified = path.stat().st_mtime_ns
    blocks = [Blocks(path, modified, part) for part in parts]
    return Source(f"text {path}", blocks, continuous=True)


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
