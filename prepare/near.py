"""Near duplicates: MinHash signatures of five-token runs, and who shares most of them.

Broder (1997); with bands, as Lee et al. (2022, "Deduplicating Training Data Makes Language Models
Better") and BigCode do. The signatures are rensa's (Rust); the rest is numpy on one band at a time,
so that memory holds a few numbers a document and never all signatures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

RUN = 5  # tokens hashed together
N_HASHES = 128
SEED = 1  # of the hash functions; a constant, so that signatures of all shards compare
THRESHOLD = 0.7
N_BANDS, BAND = 25, 5
"""Documents that agree on all five hashes of a band are compared: 99 % of those at 0.7."""
PAIRS = 50_000  # compared together

MIX = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


def signatures(documents: Sequence[np.ndarray]) -> np.ndarray:
    """MinHash of each document's tokens, (n,) each -> (N, 128) uint32."""
    import rensa

    if not documents:
        return np.empty((0, N_HASHES), dtype=np.uint32)
    runs = [run_hashes(tokens) for tokens in documents]  # one that comes twice changes no minimum
    offsets = np.cumsum([0, *map(len, runs)]).astype(np.uint64)
    matrix = rensa.RMinHash.digest_matrix_from_flat_token_hashes(
        np.concatenate(runs), offsets, N_HASHES, SEED
    )
    return np.array(matrix.to_rows(), dtype=np.uint32)


def run_hashes(tokens: np.ndarray) -> np.ndarray:
    """A hash of every run of five tokens, uint64; of a shorter document, of all of it."""
    width = min(RUN, len(tokens))
    n = len(tokens) - width + 1
    hashes = np.zeros(n, dtype=np.uint64)
    for i in range(width):
        hashes = mixed(hashes * MIX[0] + tokens[i : i + n].astype(np.uint64))
    return hashes


def mixed(x: np.ndarray) -> np.ndarray:
    """Every bit of the result depends on every bit of x (splitmix64, Steele et al., 2014)."""
    x = x + MIX[0]
    x = (x ^ (x >> np.uint64(30))) * MIX[1]
    x = (x ^ (x >> np.uint64(27))) * MIX[2]
    return x ^ (x >> np.uint64(31))


def bands(found: np.ndarray) -> np.ndarray:
    """(N, 128) signatures -> (N_BANDS, N) uint64, a hash of each band."""
    parts = found[:, : N_BANDS * BAND].reshape(-1, N_BANDS, BAND).astype(np.uint64)  # (N, 25, 5)
    hashes = np.zeros(parts.shape[:2], dtype=np.uint64)
    for i in range(BAND):
        hashes = mixed(hashes * MIX[0] + parts[:, :, i])
    return hashes.T


def similarity(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The estimated share of runs that documents have in common; (N, 128) each -> (N,)."""
    return (a == b).mean(axis=-1)


def twins(
    count: int,
    band: Callable[[int], np.ndarray],
    rows: Callable[[np.ndarray], np.ndarray],
) -> np.ndarray:
    """For each of N documents, the one that is kept in its stead: int64 (N,), itself if it stays.

    Who is similar to somebody who is similar to the first goes too: one of a cluster is kept, the
    first.

    Args:
        count: N.
        band: the hashes of a band, (N,) uint64.
        rows: the signatures of some documents, (n,) -> (n, 128).
    """
    parents = np.arange(count)
    for i in range(N_BANDS):
        for first, second in candidates(band(i)):
            known = roots(parents, first) == roots(parents, second)
            first, second = first[~known], second[~known]
            if len(first):
                alike = similarity(rows(first), rows(second)) >= THRESHOLD
                for a, b in zip(first[alike].tolist(), second[alike].tolist()):
                    join(parents, a, b)
    return roots(parents, np.arange(count))


def candidates(hashes: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs that share a band, PAIRS at a time: each document with the first that has its hash, and
    with the one before it."""
    order = np.argsort(hashes, kind="stable")
    same = hashes[order[1:]] == hashes[order[:-1]]
    new_group = np.concatenate(([True], ~same))
    head = order[np.maximum.accumulate(np.where(new_group, np.arange(len(order)), 0))]
    member = np.flatnonzero(~new_group)
    to_first, to_previous = head[member], order[member - 1]
    other = to_first != to_previous
    first = np.concatenate((to_first, to_previous[other]))
    second = np.concatenate((order[member], order[member][other]))
    for start in range(0, len(first), PAIRS):
        yield first[start : start + PAIRS], second[start : start + PAIRS]


def roots(parents: np.ndarray, members: np.ndarray) -> np.ndarray:
    """The first of each member's cluster."""
    while True:
        above = parents[members]
        if np.array_equal(above, members):
            return members
        members = above


def join(parents: np.ndarray, a: int, b: int) -> None:
    """Put the clusters of a and b together under the earlier first."""
    while parents[a] != a:
        a = int(parents[a])
    while parents[b] != b:
        b = int(parents[b])
    parents[max(a, b)] = min(a, b)
