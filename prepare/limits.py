"""How much of a source is wanted: a number of bytes, files or tokens."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from ptx.errors import UserError

UNITS = {"": 1, "k": 1_000, "m": 1_000_000, "g": 1_000_000_000}
FORM = re.compile(r"(\d+(?:\.\d+)?)\s*([kmg]?)\s*(b|bytes|files|tokens)", re.IGNORECASE)


@dataclass(frozen=True)
class Limit:
    """At least this much of what is left after cleaning, and less than one document more."""

    amount: int
    of: str  # bytes, files or tokens

    def reached_at(self, sizes: np.ndarray, tokens: np.ndarray) -> int:
        """How many of the documents, whose bytes and tokens are given, are wanted."""
        each = {"bytes": sizes, "tokens": tokens, "files": np.ones(len(sizes), dtype=np.int64)}
        totals = np.cumsum(each[self.of], dtype=np.int64)
        return min(int(np.searchsorted(totals, self.amount)) + 1, len(sizes))


def parse_limit(text: str) -> Limit | None:
    """ "500MB", "10000files", "50Mtokens"; "" is no limit."""
    if not text:
        return None
    match = FORM.fullmatch(text.strip())
    amount = round(float(match[1]) * UNITS[match[2].lower()]) if match else 0
    if not match or not amount:
        raise UserError(
            f"--limit {text!r} is not a number of bytes, files or tokens: write 500MB, "
            "10000files or 50Mtokens."
        )
    of = match[3].lower()
    return Limit(amount, "bytes" if of in ("b", "bytes") else of)
