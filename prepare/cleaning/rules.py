"""The steps, each of which can be turned off, and the reasons for which a document goes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Rules:
    """Cleaning steps; each can be turned off."""

    licence: bool = True
    """Only documents under a permissive licence, where the source tells."""
    size: bool = True
    """At most 1 MiB."""
    encoding: bool = True
    """Only UTF-8; without this step, other bytes are read as Latin-1."""
    lines: bool = True
    """No line over 1,000 characters, and at most 100 on average."""
    alphanumeric: bool = True
    """At least a quarter letters and digits."""
    generated: bool = True
    """No file that says it was generated."""
    minified: bool = True
    """No file squeezed together: less than 5 % white space."""
    comments: bool = True
    """Comments and docstrings make up 1 % to 80 %."""
    parses: bool = True
    """Python 3's parser accepts it; Python 2 is counted apart."""
    secrets: bool = True
    """E-mail addresses, public IPv4 addresses, private keys, keys in their issuers' forms,
    passwords in URLs, and random values of names such as password or token are replaced by <EMAIL>,
    <IP>, <KEY>."""
    density: bool = True
    """At least 1.5 and at most 20 bytes per token: less are tables of data, more is filler."""
    exact: bool = True
    """One of several identical documents."""
    near: bool = True
    """One of several similar ones: 0.7 of the five-token runs shared (MinHash)."""
    benchmarks: tuple[Path, ...] = ()
    """HumanEval and MBPP as JSON lines (.jsonl, .jsonl.gz) or parquet: documents with one of their
    docstrings or solutions go."""


OWN_CODE = Rules(comments=False)
"""For a folder of one's own, where code without comments is wanted, too."""
ONE_TEXT = Rules(comments=False, parses=False, near=False)
"""For the parts of one text, which need not be whole programs."""

# Every reason for which a document goes, in the order in which they are tried.
MISSING = "not delivered"
LANGUAGE = "another language"
EMPTY = "empty"
LICENCE = "licence"
SIZE = "larger than 1 MiB"
ENCODING = "not UTF-8"
LONG_LINE = "line over 1,000"
MEAN_LINE = "mean line over 100"
ALPHANUMERIC = "letters and digits under 25 %"
GENERATED = "generated"
MINIFIED = "minified"
COMMENTS = "comments under 1 % or over 80 %"
PYTHON_2 = "Python 2"
SYNTAX = "does not parse"
BENCHMARK = "in a benchmark"
DENSITY = "bytes per token"
DUPLICATE = "duplicate"
NEAR_DUPLICATE = "near duplicate"

REASONS = (
    MISSING,
    LANGUAGE,
    EMPTY,
    LICENCE,
    SIZE,
    ENCODING,
    LONG_LINE,
    MEAN_LINE,
    ALPHANUMERIC,
    GENERATED,
    MINIFIED,
    COMMENTS,
    PYTHON_2,
    SYNTAX,
    BENCHMARK,
    DENSITY,
    DUPLICATE,
    NEAR_DUPLICATE,
)
