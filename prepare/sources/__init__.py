"""Where the text comes from: a source is a list of shards, and each shard streams documents."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True)
class Document:
    """One file of Python, with where it comes from.

    Attributes:
        content: its bytes, or None if the source names it but could not deliver it.
        path: inside its project.
        project: the package or repository: the unit of the split.
        licence: what its source says; "unknown" if it should say but does not, and "" if sources
            of this kind say nothing, as a folder of one's own.
        language: what its source says, or "".
    """

    content: bytes | None
    path: str
    project: str
    version: str = ""
    licence: str = ""
    language: str = ""


class Shard(Protocol):
    """A part of a source that one worker reads at a time: picklable, and always the same documents
    for the same `repr`, which names its content (a file's size and time, a commit)."""

    @property
    def size(self) -> int:
        """About how many bytes it reads, for the progress bar."""

    def documents(self) -> Iterator[Document]: ...


@dataclass(frozen=True)
class Source:
    """Shards in a fixed order.

    Attributes:
        name: what the manifest calls it.
        continuous: the documents are consecutive parts of one text, split by position.
        provenance: further facts for the manifest, such as a dataset's commit.
    """

    name: str
    shards: Sequence[Shard]
    continuous: bool = False
    provenance: dict[str, str] = field(default_factory=dict)
