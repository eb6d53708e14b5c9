"""Datasets of the Hugging Face Hub, streamed with `datasets` from one commit."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass

from prepare.sources import Document, Source
from prepare.sources.columns import content_column, document, encoded
from ptx.errors import UserError
from ptx.hub import answers

ENDINGS = {
    ".parquet": "parquet",
    ".jsonl": "json",
    ".jsonl.gz": "json",
    ".jsonl.zst": "json",
    ".json.gz": "json",
    ".json": "json",
}
# Folders and files that are for measuring: these whole words, as the library `datasets` takes them.
HELD_BACK = re.compile(
    r"(?<![a-z])(?:test|testing|eval|evaluation|val|valid|validation|dev)(?![a-z])", re.IGNORECASE
)


@dataclass(frozen=True)
class HubFile:
    """One file of a dataset at one commit."""

    dataset: str
    commit: str
    path: str
    size: int
    column: str | None

    def rows(self) -> Iterator[dict[str, object]]:
        from datasets import load_dataset

        kind = next(kind for ending, kind in ENDINGS.items() if self.path.endswith(ending))
        url = f"hf://datasets/{self.dataset}@{self.commit}/{self.path}"
        with explained(self.dataset):
            yield from load_dataset(kind, data_files=[url], split="train", streaming=True)

    def documents(self) -> Iterator[Document]:
        column = None
        for row in self.rows():
            column = column or content_column(row, self.column, f"{self.dataset}, {self.path},")
            yield document(row, encoded(row.pop(column)))


def hub(name: str, folder: str = "", column: str | None = None) -> Source:
    """A dataset by its name, or one folder of it."""
    commit, files = listing(name, folder)
    shards = [HubFile(name, commit, path, size, column) for path, size in files]
    return Source(f"hub {name}", shards, provenance={"dataset": name, "commit": commit})


def stack() -> Source:
    """The Stack v1, near-deduplicated: permissively licensed Python, contents inline."""
    return hub("bigcode/the-stack-dedup", "data/python", "content")


def codeparrot() -> Source:
    """CodeParrot's cleaned Python of GitHub."""
    return hub("codeparrot/codeparrot-clean", column="content")


def listing(name: str, folder: str) -> tuple[str, list[tuple[str, int]]]:
    """The newest commit of a dataset, and its data files for training with their sizes."""
    from huggingface_hub import HfApi

    with explained(name):
        found = HfApi().dataset_info(name, files_metadata=True)
    files = [(f.rfilename, f.size or 0) for f in found.siblings or ()]
    inside = f"{folder.rstrip('/')}/" if folder else ""
    data = sorted(
        (path, size)
        for path, size in files
        if path.endswith(tuple(ENDINGS))
        and path.startswith(inside)
        and not HELD_BACK.search(path, len(inside))  # a folder that was named is meant
    )
    if not data:
        where = f"{name}, {folder}," if folder else name
        raise UserError(f"{where} holds no file for training that ends in {', '.join(ENDINGS)}.")
    assert found.sha
    return found.sha, data


def explained(name: str) -> AbstractContextManager[None]:
    """Turns what the Hub answers into a sentence that says what to do."""
    return answers.explained(name, "dataset", "Finished parts are kept: run the same command again")
