"""Parquet and JSON-lines files on this machine, a part at a time."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from prepare.sources import Document, Source
from prepare.sources.columns import content_column, document, encoded
from ptx.errors import UserError

SHARD = 32_000_000  # bytes of a file that one worker reads at a time
BATCH = 256  # rows read together


@dataclass(frozen=True)
class ParquetRows:
    """Some row groups of a parquet file."""

    path: Path
    modified: int
    groups: tuple[int, ...]
    size: int
    column: str | None

    def documents(self) -> Iterator[Document]:
        with readable(self.path), pq.ParquetFile(self.path) as file:
            names = file.schema_arrow.names
            column = content_column(names, self.column, str(self.path))
            for batch in file.iter_batches(BATCH, row_groups=list(self.groups)):
                for row in batch.to_pylist():
                    yield document(row, encoded(row.pop(column)))


@dataclass(frozen=True)
class JsonLines:
    """The lines that start inside [start, stop) of a file; of a compressed one, all of them."""

    path: Path
    modified: int
    start: int
    stop: int
    column: str | None

    @property
    def size(self) -> int:
        return self.stop - self.start

    def documents(self) -> Iterator[Document]:
        for row in self.rows():
            column = content_column(row, self.column, str(self.path))
            yield document(row, encoded(row.pop(column)))

    def rows(self) -> Iterator[dict[str, object]]:
        for number, line in self.lines():
            try:
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise ValueError("not an object")
            except (ValueError, RecursionError) as error:
                where = f"{self.path}, byte {number:,}"
                raise UserError(f"{where}: not a line of JSON ({error}).") from None
            yield row

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """(where it starts, line) of all that are not empty."""
        compressed = self.path.suffix == ".gz"
        opened = gzip.open if compressed else open
        with readable(self.path), opened(self.path, "rb") as file:
            position = 0
            if self.start:  # the line that began before belongs to the part before
                file.seek(self.start - 1)
                position = self.start - 1 + len(file.readline())
            while (compressed or position < self.stop) and (line := file.readline()):
                if line.strip():
                    yield position, line
                position += len(line)


def parquet(paths: Sequence[Path], column: str | None = None) -> Source:
    """Parquet files, or folders of them, in the order of their names."""
    shards: list[ParquetRows] = []
    for path in found(paths, (".parquet",)):
        with readable(path), pq.ParquetFile(path) as file:
            groups = map(file.metadata.row_group, range(file.metadata.num_row_groups))
            sizes = [group.total_byte_size for group in groups]
            content_column(file.schema_arrow.names, column, str(path))
        modified = path.stat().st_mtime_ns
        for groups in grouped(sizes):
            size = sum(sizes[g] for g in groups)
            shards.append(ParquetRows(path, modified, groups, size, column))
    return Source(f"parquet {' '.join(map(str, paths))}", shards)


def jsonl(paths: Sequence[Path], column: str | None = None) -> Source:
    """Files of one JSON object a line (.jsonl, .json, with .gz or not), or folders of them."""
    shards: list[JsonLines] = []
    for path in found(paths, (".jsonl", ".json", ".jsonl.gz", ".json.gz")):
        stat = path.stat()
        step = stat.st_size if path.suffix == ".gz" else SHARD
        for start in range(0, stat.st_size, max(1, step)):
            stop = min(start + step, stat.st_size)
            shards.append(JsonLines(path, stat.st_mtime_ns, start, stop, column))
    return Source(f"jsonl {' '.join(map(str, paths))}", shards)


def grouped(sizes: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Neighbouring row groups of about SHARD bytes together."""
    members: list[int] = []
    for i in range(len(sizes)):
        members.append(i)
        if sum(sizes[m] for m in members) >= SHARD or i + 1 == len(sizes):
            yield tuple(members)
            members = []


def rows_of(path: Path) -> Iterator[dict[str, object]]:
    """Every row of one parquet or JSON-lines file."""
    if path.suffix == ".parquet":
        with readable(path), pq.ParquetFile(path) as file:
            for batch in file.iter_batches(BATCH):
                yield from batch.to_pylist()
    else:
        yield from JsonLines(path, 0, 0, path.stat().st_size, None).rows()


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Names the file that is damaged, cut off or not what its name says."""
    try:
        yield
    except (OSError, EOFError, zlib.error, UnicodeError, pa.ArrowException) as error:
        raise UserError(
            f"{path} cannot be read ({error}): get it again, or leave it out."
        ) from None


def found(paths: Sequence[Path], endings: tuple[str, ...]) -> list[Path]:
    """The files named, and those with such an ending in the folders named."""
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.is_file() and p.name.endswith(endings))
            if not inside:
                raise UserError(f"{path} holds no file that ends in {' or '.join(endings)}.")
            files += inside
        elif path.is_file():
            files.append(path)
        else:
            raise UserError(f"{path} is not there: name files that end in {' or '.join(endings)}.")
    if not files:
        raise UserError(f"Name at least one file that ends in {' or '.join(endings)}.")
    return files
