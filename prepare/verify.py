"""Everything a data directory says of itself, checked again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

from prepare import documents
from prepare.build import DOCUMENTS
from ptx import corpus
from ptx.corpus import Corpus
from ptx.errors import UserError


def problems(directory: Path) -> Iterator[str]:
    """What is wrong, as sentences that name the file: what `ptx.corpus.verify` finds, projects and
    documents on two sides, and documents whose tokens do not decode to the recorded text."""
    found = corpus.verify(directory)
    yield from found
    if found:
        return
    opened = Corpus(directory)
    yield from shared_projects(opened)
    if DOCUMENTS in opened.manifest.get("extras", {}):
        try:
            yield from document_problems(opened)
        except UserError as error:
            yield str(error)


def shared_projects(opened: Corpus) -> Iterator[str]:
    if opened.manifest.get("split", {}).get("rule", "").startswith("By position"):
        return  # one text is on both sides of its cut
    sides = {s: {p["name"] for p in opened.manifest["sources"][s]} for s in opened.splits}
    for one, other in combinations(opened.splits, 2):
        for name in sorted(sides[one] & sides[other] - {"adopted"}):
            yield f"{opened.path / 'manifest.json'}: {name} is in {one} and in {other}."


def document_problems(opened: Corpus) -> Iterator[str]:
    """Reads every document by the list, and checks that together they are the files."""
    listing, eot = opened.path / DOCUMENTS, opened.tokenizer.eot
    covered = dict.fromkeys(opened.splits, 0)
    digests: dict[str, set[bytes]] = {split: set() for split in opened.splits}
    for row in documents.rows(opened.path):
        split, start, size = row["split"], row["start"], row["tokens"]
        tokens = getattr(opened, split)[start : start + size + row["closed"]]
        name = f"{row['project']}/{row['path']}"
        covered[split] += len(tokens)
        digests[split].add(row["sha256"])
        if row["closed"] and (len(tokens) <= size or tokens[size] != eot):
            yield f"{listing}: no end-of-text token closes {name} in {split}.bin."
        content = opened.tokenizer.decode(tokens[:size].tolist())
        if len(content) != row["bytes"] or hashlib.sha256(content).digest() != row["sha256"]:
            yield f"{listing}: the tokens of {name} in {split}.bin are not its text."
    for split in opened.splits:
        if covered[split] != len(getattr(opened, split)):
            yield f"{listing} lists {covered[split]:,} tokens of {split}.bin, which holds others."
    for one, other in combinations(opened.splits, 2):
        if shared := digests[one] & digests[other]:
            yield f"{listing}: {len(shared):,} documents are in {one} and in {other}."
