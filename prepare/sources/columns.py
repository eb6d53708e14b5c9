"""Rows of a table as documents: which columns hold the text, its place and its licence."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

from prepare.sources import Document
from ptx.errors import UserError

# The names that datasets of code use, the first one present wins: The Stack v1 and v2, CodeParrot,
# GitHub's BigQuery export, StarCoder's data, nanochat's and plain text sets.
CONTENT = ("content", "code", "text", "whole_func_string")
PROJECT = ("max_stars_repo_name", "repo_name", "repository_name", "repo", "project")
PATH = ("max_stars_repo_path", "path", "file_path", "func_path_in_repository", "filename")
LICENCE = ("max_stars_repo_licenses", "detected_licenses", "license", "licenses", "licence")
LANGUAGE = ("lang", "language", "programming_language")


def content_column(names: Iterable[str], wanted: str | None, where: str) -> str:
    """The column that holds the code. Raises UserError naming those that are there."""
    names = list(names)
    for column in (wanted,) if wanted else CONTENT:
        if column in names:
            return column
    asked = f"no column {wanted!r}" if wanted else f"none of the columns {', '.join(CONTENT)}"
    raise UserError(f"{where} has {asked}: name one of {', '.join(names)}.")


def document(row: Mapping[str, object], content: bytes | None) -> Document:
    """The document of one row, whose text is `content`.

    Rows without a project are projects of their own, so that they can be split.
    """
    path = first(row, PATH)
    project = first(row, PROJECT) or path.split("/")[0]
    if not project:
        project = hashlib.sha256(content or repr(row).encode()).hexdigest()[:16]
    has_licence = any(column in row for column in LICENCE)
    licence = first(row, LICENCE) or ("unknown" if has_licence else "")
    return Document(content, path, project, "", licence, first(row, LANGUAGE))


def first(row: Mapping[str, object], columns: Iterable[str]) -> str:
    """The first of the columns that says something; several licences all apply."""
    for column in columns:
        value = row.get(column)
        if isinstance(value, str) and value:
            return value
        if isinstance(value, list) and value and all(isinstance(v, str) for v in value):
            return " AND ".join(value)
    return ""


def encoded(value: object) -> bytes | None:
    """A cell of text as bytes; a lone surrogate, which no UTF-8 file holds, stays one to be found
    by the cleaning."""
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    return value if isinstance(value, bytes) else None
