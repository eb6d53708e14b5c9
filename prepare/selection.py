"""Which of the cleaned documents are kept, on which side, and in which order.

Works on a few numbers a document, so a corpus of millions fits in a small memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from prepare import near, split
from prepare.limits import Limit
from prepare.shards import ShardFiles
from ptx.corpus import SPLITS
from ptx.errors import UserError

KEPT, EXACT, NEAR = 0, 1, 2


@dataclass
class Index:
    """What is known of each cleaned document, in the order of the source: arrays of (N,).

    Attributes:
        shard, row: where its files are: the number of the shard, and its row there.
        place: among all documents of the source, those that cleaning removed included.
        project: number of its project in `projects`.
        start: its first token in the shard's file.
        tokens, bytes: how many.
        digest: the first 16 bytes of its sha256.
        projects: name, version and licence of each project; several of one as "MIT; BSD".
    """

    shards: Sequence[ShardFiles]
    shard: np.ndarray
    row: np.ndarray
    place: np.ndarray
    project: np.ndarray
    start: np.ndarray
    tokens: np.ndarray
    bytes: np.ndarray
    digest: np.ndarray
    projects: list[dict[str, str]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.shard)

    def band(self, number: int) -> np.ndarray:
        """The hashes of one band of all documents, (N,) uint64."""
        counts = np.bincount(self.shard, minlength=len(self.shards))
        parts = []
        for files, count in zip(self.shards, counts.tolist(), strict=True):
            # After a limit the last shards are only partly, or not, in the index.
            total = files.file("bands").stat().st_size // (8 * near.N_BANDS)
            parts.append(
                np.fromfile(files.file("bands"), np.uint64, count, offset=8 * total * number)
            )
        return np.concatenate(parts)

    def signatures(self, members: np.ndarray) -> np.ndarray:
        """The MinHash signatures of some documents, (n, 128) uint32."""
        found = np.empty((len(members), near.N_HASHES), dtype=np.uint32)
        for number in np.unique(self.shard[members]).tolist():
            mine = np.flatnonzero(self.shard[members] == number)
            stored = np.memmap(self.shards[number].file("signatures"), np.uint32, "r")
            found[mine] = stored.reshape(-1, near.N_HASHES)[self.row[members[mine]]]
        return found


TOLD = ("project", "version", "licence")
"""What the documents of a project say of it."""


def read_index(shards: Sequence[ShardFiles], limit: Limit | None) -> Index:
    """The documents of all shards, up to the limit."""
    told: dict[Told, int] = {}
    parts = []
    before = 0  # documents in the shards before
    for i, files in enumerate(shards):
        table = files.rows([*TOLD, "sha256", "bytes", "tokens", "place"])
        n, tokens = table.num_rows, table["tokens"].to_numpy().astype(np.int64)
        digests = b"".join(d[:16] for d in table["sha256"].to_pylist())
        parts.append(
            {
                "shard": np.full(n, i, dtype=np.int32),
                "row": np.arange(n, dtype=np.int32),
                "place": before + table["place"].to_numpy().astype(np.int64),
                "told": _told(table, told),
                "start": np.cumsum(tokens) - tokens,
                "tokens": tokens.astype(np.int32),
                "bytes": table["bytes"].to_numpy(),
                "digest": np.frombuffer(digests, dtype="V16"),
            }
        )
        before += files.counts()["files"].get("in", 0)
    if not parts:
        raise UserError("The source is empty: name another.")
    columns = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    if limit:
        stop = limit.reached_at(columns["bytes"], columns["tokens"])
        columns = {key: values[:stop] for key, values in columns.items()}
    # Only now: neither the split nor the manifest should know of what lies beyond the limit.
    columns["project"], projects = _projects(columns.pop("told"), list(told))
    return Index(shards, **columns, projects=projects)


Told = tuple[str, ...]
"""A document's TOLD."""


def _told(table: pa.Table, numbers: dict[Told, int]) -> np.ndarray:
    """What each document says, (N,): its number among all that was said; new ones are added."""
    coded = [pc.dictionary_encode(table[name].combine_chunks()) for name in TOLD]
    shape = [max(1, len(column.dictionary)) for column in coded]
    codes = [column.indices.to_numpy(zero_copy_only=False) for column in coded]
    different, which = np.unique(np.ravel_multi_index(codes, shape), return_inverse=True)
    words = [column.dictionary.to_pylist() for column in coded]
    said = zip(*np.unravel_index(different, shape))
    found = [tuple(words[i][code] for i, code in enumerate(one)) for one in said]
    return np.array([numbers.setdefault(one, len(numbers)) for one in found], np.int32)[which]


def _projects(told: np.ndarray, words: list[Told]) -> tuple[np.ndarray, list[dict[str, str]]]:
    """From what each document says, (N,): the number of its project, (N,), and the projects."""
    present, which = np.unique(told, return_inverse=True)
    said: dict[str, list[Told]] = {}  # by project
    for number in present.tolist():
        said.setdefault(words[number][0], []).append(words[number])
    numbers = {name: i for i, name in enumerate(said)}
    of_told = np.array([numbers[words[number][0]] for number in present.tolist()], np.int32)
    return of_told[which], [project(name, some) for name, some in said.items()]


def project(name: str, said: Sequence[Told]) -> dict[str, str]:
    """For the manifest; whatever its documents say is listed."""
    _, versions, licences = ("; ".join(sorted({*words} - {""})) for words in zip(*said))
    return {"name": name, "version": versions, "licence": licences}


FindTwins = Callable[[Index, np.ndarray], np.ndarray]
"""Some documents, in the order of preference, (n,) -> for each the one of them, by its place among
them, that is kept in its stead."""


@dataclass(frozen=True)
class Selection:
    """What becomes of the documents.

    Attributes:
        outcome: KEPT, EXACT (an identical one is kept) or NEAR, (N,).
        kept_as: the document that is kept in its stead, (N,); itself if it is.
        side: of each document, a number of `ptx.corpus.SPLITS`, (N,) int8.
        order: for each side, the documents to write, in order.
        rule: how they were split, for the manifest.
    """

    outcome: np.ndarray
    kept_as: np.ndarray
    side: np.ndarray
    order: dict[str, np.ndarray]
    rule: dict[str, object]


def select(
    index: Index,
    val_fraction: float,
    test_fraction: float,
    seed: int,
    exact: bool,
    find_twins: FindTwins | None,
    continuous: bool,
) -> Selection:
    """Split, remove copies, order.

    find_twins: how near duplicates are found, if they are to go.

    The test comes first where copies are concerned, then validation: so nothing in training has a
    twin in either, and nothing in validation one in the test.
    """
    if continuous:
        side, rule = split.by_position(index.bytes, val_fraction)
    else:
        names = [project["name"] for project in index.projects]
        sides, rule = split.by_project(names, val_fraction, test_fraction)
        side = sides[index.project]
    rank = np.argsort(-side, kind="stable")  # the test first; on a side as they come
    outcome, kept_as = _without_copies(index, rank, exact, find_twins)
    stays = outcome == KEPT
    used = SPLITS if (stays & (side == 2)).any() else SPLITS[:2]
    order = {name: np.flatnonzero(stays & (side == i)) for i, name in enumerate(used)}
    if not continuous:
        places = project_places(names, seed)
        order = {
            name: members[np.argsort(places[index.project[members]], kind="stable")]
            for name, members in order.items()
        }
    return Selection(outcome, kept_as, side, order, rule)


def _without_copies(
    index: Index, rank: np.ndarray, exact: bool, find_twins: FindTwins | None
) -> tuple[np.ndarray, np.ndarray]:
    """`outcome` and `kept_as` of a Selection. rank: the documents, those to be kept first."""
    outcome = np.full(len(index), KEPT, dtype=np.int8)
    kept_as = np.arange(len(index))
    if exact:
        _, first, which = np.unique(index.digest[rank], return_index=True, return_inverse=True)
        kept_as[rank] = rank[first[which]]
        outcome[kept_as != np.arange(len(index))] = EXACT
    if find_twins:
        left = rank[outcome[rank] == KEPT]
        kept = find_twins(index, left)
        moved = kept != np.arange(len(left))
        kept_as[left[moved]] = left[kept[moved]]
        outcome[left[moved]] = NEAR
    return outcome, kept_as[kept_as]  # of an identical one that has gone for a similar one


def near_twins(index: Index, members: np.ndarray) -> np.ndarray:
    """`near.twins` of some documents, by the files of their shards."""
    return near.twins(
        len(members),
        lambda number: index.band(number)[members],
        lambda rows: index.signatures(members[rows]),
    )


def project_places(names: Sequence[str], seed: int) -> np.ndarray:
    """A place for each project: shuffled by the seed, whatever else is there.

    The files of one project stay together, as StarCoder 2 packs repositories: what a window of the
    text looks back to is code that belongs to it.
    """
    digests = [hashlib.sha256(f"{seed}:{name}".encode()).digest()[:8] for name in names]
    keys = np.array([int.from_bytes(d, "big") for d in digests], dtype=np.uint64)
    places = np.empty(len(names), dtype=np.int64)
    places[np.argsort(keys, kind="stable")] = np.arange(len(names))
    return places
