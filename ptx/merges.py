"""Byte-pair merging of one token's own bytes, by ranks (tiktoken's: the lowest pair first)."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise


def last_merge(ranks: Mapping[bytes, int], token: bytes) -> tuple[bytes, bytes] | None:
    """The two tokens whose merge makes `token` wherever its bytes stand in a text; None if merging
    by ranks never makes it, and for a single byte."""
    parts, rank = [token[i : i + 1] for i in range(len(token))], ranks[token]
    while len(parts) > 2:
        found = [ranks.get(a + b, rank) for a, b in pairwise(parts)]
        best = min(found)
        if best >= rank:
            return None
        i = found.index(best)
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
    return (parts[0], parts[1]) if len(parts) == 2 else None
