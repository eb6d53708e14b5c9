"""One document through all steps: bytes in, bytes and tokens out, or the reason why not."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from prepare.cleaning import rules, secrets, text
from prepare.cleaning.benchmarks import Benchmarks
from prepare.cleaning.licences import is_permissive
from prepare.cleaning.rules import Rules
from prepare.cleaning.syntax import comment_fault, quoted, syntax_fault
from prepare.sources import Document
from ptx.tokenizer import Tokenizer

LEAST_DENSITY, MOST_DENSITY = 1.5, 20.0  # bytes per token
DENSE_FROM = 200  # bytes; the ratio of a shorter document is chance

NO_TOKENS = np.empty(0, dtype=np.uint32)


@dataclass(frozen=True)
class Cleaned:
    """What became of a document.

    Attributes:
        size: of the document as it came, in bytes.
        fault: one of `rules.REASONS`, or None if it is kept.
        content: the bytes that are kept, with placeholders in them; b"" otherwise.
        tokens: (n,) uint32; they decode to `content`.
        replaced: how many placeholders of each kind.
    """

    size: int
    fault: str | None
    content: bytes = b""
    tokens: np.ndarray = field(default_factory=lambda: NO_TOKENS)
    replaced: Counter[str] = field(default_factory=Counter)


class Cleaner:
    """The steps that need nothing but the document itself."""

    def __init__(self, steps: Rules, tokenizer: Tokenizer) -> None:
        self.steps, self.tokenizer = steps, tokenizer
        self.benchmarks = Benchmarks(steps.benchmarks)

    def clean(self, document: Document) -> Cleaned:
        data = document.content or b""
        size = len(data)
        if fault := self._source_fault(document) or text.fault(data, self.steps):
            return Cleaned(size, fault)
        if not is_utf8(data):  # the encoding step is off
            data = data.decode("latin-1").encode("utf-8")
        spans = quoted(data)
        if self.steps.comments and (fault := comment_fault(data, spans)):
            return Cleaned(size, fault)
        if self.steps.parses and (fault := syntax_fault(data, spans)):
            return Cleaned(size, fault)
        if self.benchmarks.occur_in(data):
            return Cleaned(size, rules.BENCHMARK)
        replaced: Counter[str] = Counter()
        if self.steps.secrets:
            data, replaced = secrets.cleaned(data, spans)
        tokens = self.tokenizer.encode_array(data)
        if self.steps.density and not is_dense(len(data), len(tokens)):
            return Cleaned(size, rules.DENSITY)
        return Cleaned(size, None, data, tokens, replaced)

    def _source_fault(self, document: Document) -> str | None:
        if document.content is None:
            return rules.MISSING
        if document.language and not document.language.lower().startswith("python"):
            return rules.LANGUAGE
        if self.steps.licence and document.licence and not is_permissive(document.licence):
            return rules.LICENCE
        return None


def is_utf8(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def is_dense(size: int, tokens: int) -> bool:
    return size < DENSE_FROM or LEAST_DENSITY <= size / tokens <= MOST_DENSITY
