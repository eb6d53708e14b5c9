"""A shard cleaned: what a worker writes for each part of a source, once and for all.

    NNNNN-KEY.tokens      the tokens of the kept documents, one after the other
    NNNNN-KEY.signatures  their MinHash signatures, (n, 128) uint32; empty without that step
    NNNNN-KEY.bands       the hashes of the signatures' bands, (25, n) uint64
    NNNNN-KEY.parquet     a row for each: where it comes from, sha256, bytes, tokens
    NNNNN-KEY.json        what was removed; written last: with it, the shard is done

KEY is a hash of everything that decides the content. A file is written beside its place, flushed
and renamed, so whatever has a name is whole, and a run that was killed goes on with the next shard.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from prepare import near
from prepare.cleaning.clean import Cleaned, Cleaner
from prepare.sources import Document, Shard
from ptx.atomic import flush
from ptx.errors import FULL_DISK, UserError

FORMAT = 2  # of these files, and of the steps' meaning: part of KEY
TOGETHER = 64  # documents signed at once
SCHEMA = pa.schema(
    [
        ("project", pa.string()),
        ("path", pa.string()),
        ("version", pa.string()),
        ("licence", pa.string()),
        ("sha256", pa.binary(32)),
        ("bytes", pa.int32()),
        ("tokens", pa.int32()),
        ("place", pa.int32()),  # among all documents of the shard, the removed ones included
    ]
)


@dataclass(frozen=True)
class ShardFiles:
    """The files of one shard."""

    directory: Path
    index: int
    key: str

    def file(self, kind: str) -> Path:
        return self.directory / f"{self.index:05}-{self.key}.{kind}"

    @property
    def done(self) -> bool:
        return self.file("json").is_file()

    def counts(self) -> dict[str, Any]:
        """What `Tally.record` wrote."""
        return json.loads(self.file("json").read_text("utf-8"))

    def rows(self, columns: list[str]) -> pa.Table:
        return pq.read_table(self.file("parquet"), columns=columns)


def shard_files(directory: Path, index: int, shard: Shard, cleaning: str) -> ShardFiles:
    """cleaning: what is done to documents, and with which tokenizer."""
    told = f"{FORMAT} {cleaning} {shard!r}".encode("utf-8", "surrogatepass")
    return ShardFiles(directory, index, hashlib.sha256(told).hexdigest()[:16])


def clean_shard(
    shard: Shard,
    files: ShardFiles,
    cleaner: Cleaner,
    dtype: np.dtype,
    progress: Callable[[int], None],
) -> None:
    """Clean all documents of a shard and write its files.

    dtype: of the tokens. progress: is told the bytes of documents as they are done.
    Raises UserError if the disk is full.
    """
    kinds = ("tokens", "signatures", "bands", "parquet", "json")  # the last makes it done
    partial = {kind: files.file(f"{kind}.partial") for kind in kinds}
    try:
        tally = _clean(shard, partial, cleaner, dtype, progress)
        found = np.fromfile(partial["signatures"], np.uint32).reshape(-1, near.N_HASHES)
        partial["bands"].write_bytes(near.bands(found).tobytes())
        partial["json"].write_text(json.dumps(tally.record()), "utf-8")
        for kind, path in partial.items():
            flush(path)
            path.replace(files.file(kind))
    except OSError as error:
        if error.errno not in FULL_DISK:
            raise
        raise UserError(
            f"{files.directory} is full: make room and run the same command again; finished "
            "parts are kept."
        ) from None


def _clean(
    shard: Shard,
    files: dict[str, Path],
    cleaner: Cleaner,
    dtype: np.dtype,
    progress: Callable[[int], None],
) -> Tally:
    """Writes the tokens, signatures and rows of what stays; TOGETHER documents at a time."""
    tally = Tally()
    rows: list[dict[str, object]] = []
    members: list[np.ndarray] = []  # their tokens
    with (
        files["tokens"].open("wb") as tokens,
        files["signatures"].open("wb") as signatures,
        pq.ParquetWriter(files["parquet"], SCHEMA) as table,
    ):

        def write() -> None:
            # Not by numpy's `tofile`, to which a small write to a full disk is no error.
            for ids in members:
                tokens.write(ids.astype(dtype).tobytes())
            if cleaner.steps.near:
                signatures.write(near.signatures(members).tobytes())
            table.write_table(pa.Table.from_pylist(rows, SCHEMA))
            rows.clear()
            members.clear()

        for place, document in enumerate(shard.documents()):
            cleaned = cleaner.clean(document)
            tally.add(cleaned)
            if cleaned.fault is None:
                rows.append(row(place, document, cleaned))
                members.append(cleaned.tokens)
                if len(rows) == TOGETHER:
                    write()
            progress(cleaned.size)
        write()
    return tally


def row(place: int, document: Document, cleaned: Cleaned) -> dict[str, object]:
    return {
        "project": presentable(document.project),
        "path": presentable(document.path),
        "version": presentable(document.version),
        "licence": presentable(document.licence),
        "sha256": hashlib.sha256(cleaned.content).digest(),
        "bytes": len(cleaned.content),
        "tokens": len(cleaned.tokens),
        "place": place,
    }


def presentable(text: str) -> str:
    """What a source says, as UTF-8: names on disk and JSON may hold what is none."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


class Tally:
    """Counts what comes in and what becomes of it."""

    def __init__(self) -> None:
        self.files: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()
        self.tokens = 0
        self.replaced: Counter[str] = Counter()

    def add(self, cleaned: Cleaned) -> None:
        for outcome in ("in", cleaned.fault or "kept"):
            self.files[outcome] += 1
            # Of a kept document, what is left of it: placeholders are shorter or longer.
            self.bytes[outcome] += len(cleaned.content) if outcome == "kept" else cleaned.size
        self.tokens += len(cleaned.tokens)
        self.replaced.update(cleaned.replaced)

    def record(self) -> dict[str, Any]:
        return {
            "tokens": self.tokens,
            "files": dict(self.files),
            "bytes": dict(self.bytes),
            "replaced": dict(self.replaced),
        }
