"""Train a byte-level BPE vocabulary for Python."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from prepare.cleaning import fault
from prepare.sources import Project
from ptx.atomic import atomic_directory
from ptx.corpus import write_json
from ptx.errors import UserError
from ptx.tokenizer import MANIFEST_FILE, PYTHON_PATTERN, RANKS_FILE, Tokenizer, python_tokenizer

SMALLEST = 512
LARGEST = 65_536  # what uint16 token files hold


def train(name: str, texts: Iterator[str], vocab_size: int) -> Tokenizer:
    """A tokenizer of `vocab_size` ids, `<|endoftext|>` included."""
    import rustbpe  # only training needs it

    if not SMALLEST <= vocab_size <= LARGEST:
        raise UserError(f"--vocab-size must be from {SMALLEST} to {LARGEST:,}, not {vocab_size}.")
    trainer = rustbpe.Tokenizer()
    trainer.train_from_iterator(texts, vocab_size=vocab_size - 1, pattern=PYTHON_PATTERN)
    ranks = {bytes(token): rank for token, rank in trainer.get_mergeable_ranks()}
    if len(ranks) < vocab_size - 1:
        raise UserError(
            f"The text holds only {len(ranks):,} tokens worth merging: lower --vocab-size to "
            f"{len(ranks) + 1} or add text."
        )
    return python_tokenizer(name, ranks)


def sample(projects: list[Project], budget: int) -> Iterator[str]:
    """About `budget` bytes of clean text, the same from each project as far as it goes.

    Even shares serve packages that nobody has seen better than shares by size, in which a few
    giants decide the vocabulary. Within a project, the order is by content: fixed, but mixed.
    """
    clean = {project.name: clean_texts(project) for project in projects}
    share = even_share([sum(map(len, texts)) for texts in clean.values()], budget)
    for texts in clean.values():
        taken = 0
        for data in sorted(texts, key=lambda data: hashlib.sha256(data).digest()):
            if taken >= share:
                break
            taken += len(data)
            yield data.decode("utf-8")


def clean_texts(project: Project) -> set[bytes]:
    contents = (document.read() for document in project.documents)
    return {data for data in contents if fault(data) is None}


def even_share(sizes: list[int], budget: int) -> int:
    """The most that each may give, so that all together give no more than `budget`."""
    left = budget
    for count, size in zip(range(len(sizes), 0, -1), sorted(sizes), strict=True):
        if size * count > left:
            return left // count
        left -= size
    return max(sizes)


def require_replaceable(directory: Path) -> None:
    """Refuse a place that holds anything but an earlier tokenizer."""
    if directory.exists() and {p.name for p in directory.iterdir()} - {RANKS_FILE, MANIFEST_FILE}:
        raise UserError(f"{directory} holds more than a tokenizer: name another --out.")


def save(tokenizer: Tokenizer, directory: Path, provenance: dict) -> None:
    """Write the directory that `get_tokenizer` opens: the ranks, and what they are."""
    with atomic_directory(directory) as partial:
        tokenizer.save(partial)
        write_json(partial / MANIFEST_FILE, {"tokenizer": tokenizer.record(), **provenance})
