"""The text that a model is measured on, as bytes: any tokenizer can read it."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ptx.corpus import Corpus
from ptx.errors import UserError
from ptx.tokenizer import Tokenizer


@dataclass(frozen=True)
class Text:
    """Documents of one project, in order."""

    project: str
    documents: tuple[bytes, ...]
    closed: bool = True
    """Whether the last document is whole: then an end-of-text token follows it too."""

    @property
    def bytes(self) -> int:
        return sum(map(len, self.documents))

    def ids(self, tokenizer: Tokenizer) -> np.ndarray:
        """Its tokens, (N,): an end-of-text token after every whole document."""
        parts: list[np.ndarray] = []
        for document in self.documents:
            parts += [tokenizer.encode_array(document), np.array([tokenizer.eot])]
        return np.concatenate(parts if self.closed else parts[:-1]).astype(np.int64)


def held_out(corpus: Corpus, split: str = "val", per_project: int = 0) -> list[Text]:
    """The first `per_project` tokens (0: all) of each project that did not train."""
    if per_project < 0:
        raise UserError(f"--tokens must be 0 (all) or more, not {per_project}")
    if split not in corpus.splits:
        raise UserError(
            f"{corpus.path} has no {split} split: prepare it again with --test-fraction 0.05"
        )
    tokens, start, texts = getattr(corpus, split), 0, []
    for project in corpus.manifest["sources"][split]:
        n = min(per_project or project["tokens"], project["tokens"])
        texts.append(_text(project["name"], np.asarray(tokens[start : start + n]), corpus))
        start += project["tokens"]
    return texts


def _text(name: str, tokens: np.ndarray, corpus: Corpus) -> Text:
    eot, decode = corpus.tokenizer.eot, corpus.tokenizer.decode
    closed = int(tokens[-1]) == eot
    parts = np.split(tokens, np.flatnonzero(tokens == eot) + 1)
    documents = (decode(part[part != eot].tolist()) for part in parts if len(part))
    return Text(name, tuple(documents), closed)


def files(path: Path) -> list[Text]:
    """A file, or a folder's Python files: those of each direct subfolder are a project."""
    if not path.exists():
        raise UserError(f"there is nothing at {path}: name a Python file, or a folder of them")
    found = [path] if path.is_file() else sorted(path.rglob("*.py"))
    projects: dict[str, list[bytes]] = defaultdict(list)
    for file in found:
        parts = file.relative_to(path).parts
        if parts and (file.is_symlink() or not file.is_file()):  # an editor's lock, a folder x.py
            continue
        if content := file.read_bytes():
            projects[parts[0] if len(parts) > 1 else path.name].append(content)
    if not projects:
        raise UserError(f"{path} holds no Python: name a file with text, or a folder of .py files")
    return [Text(name, tuple(documents)) for name, documents in sorted(projects.items())]
