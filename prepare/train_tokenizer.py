"""Train a byte-level BPE vocabulary for Python."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from prepare import split
from prepare.cleaning.rules import Rules
from prepare.cleaning.text import fault
from prepare.sources import Source
from ptx.atomic import atomic_directory, held
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


def texts(
    source: Source, val_fraction: float, budget: int
) -> tuple[Iterator[str], dict[str, object]]:
    """About `budget` bytes of clean text of the projects that do not validate, the same from each
    as far as it goes; and which those are, for the manifest.

    Even shares serve packages that nobody has seen better than shares by size, in which a few
    giants decide the vocabulary. Within a project, the order is by content: fixed, but mixed.
    """
    contents: dict[str, set[bytes]] = {}
    facts: dict[str, dict[str, str]] = {}
    for shard in source.shards:
        for document in shard.documents():
            told = {"version": document.version, "licence": document.licence}
            facts.setdefault(document.project, {"name": document.project, **told})
            clean = contents.setdefault(document.project, set())
            if document.content and fault(document.content, Rules()) is None:
                clean.add(document.content)
    validates, rule = split.by_project(list(facts), val_fraction)
    learned = [name for name, held_back in zip(facts, validates, strict=True) if not held_back]
    listed = {"split": rule, "sources": [facts[name] for name in learned]}
    return sample([contents[name] for name in learned], budget), listed


def sample(projects: list[set[bytes]], budget: int) -> Iterator[str]:
    share = even_share([sum(map(len, contents)) for contents in projects], budget)
    for contents in projects:
        taken = 0
        for data in sorted(contents, key=lambda data: hashlib.sha256(data).digest()):
            if taken >= share:
                break
            taken += len(data)
            yield data.decode("utf-8")


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
    if directory.is_file():
        raise UserError(f"{directory} is a file: name a directory with --out.")
    if {path.name for path in held(directory)} - {RANKS_FILE, MANIFEST_FILE}:
        raise UserError(f"{directory} holds more than a tokenizer: name another --out.")


def save(tokenizer: Tokenizer, directory: Path, provenance: dict) -> None:
    """Write the directory that `get_tokenizer` opens: the ranks, and what they are."""
    with atomic_directory(directory) as partial:
        tokenizer.save(partial)
        write_json(partial / MANIFEST_FILE, {"tokenizer": tokenizer.record(), **provenance})
