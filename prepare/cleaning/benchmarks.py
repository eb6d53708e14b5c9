"""Documents that hold a task or a solution of a benchmark would make its score a lie.

As BigCode does for StarCoder (Li et al., 2023, section 3): docstrings and solutions of HumanEval
and MBPP, found as text. White space is ignored.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from ahocorasick_rs import BytesAhoCorasick

from prepare.cleaning.syntax import QUOTED
from prepare.sources.tables import found, rows_of
from ptx.errors import UserError

SHORTEST = 40
"""Characters without white space: anything shorter, as `return a + b`, is everybody's."""
ENDINGS = (".parquet", ".jsonl", ".jsonl.gz")
PROMPTS = ("prompt", "text")
SOLUTIONS = ("canonical_solution", "code")


class Benchmarks:
    """Finds texts of benchmark files inside documents.

    Raises UserError for a file that is no such benchmark.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        needles = sorted({needle for file in files_of(paths) for needle in needles_of(file)})
        self._automaton = BytesAhoCorasick(needles) if needles else None

    def occur_in(self, data: bytes) -> bool:
        return self._automaton is not None and bool(
            self._automaton.find_matches_as_indexes(squeezed(data))
        )


def files_of(paths: Sequence[Path]) -> list[Path]:
    """The files named, and those in the folders named."""
    return found(paths, ENDINGS) if paths else []


def squeezed(data: bytes) -> bytes:
    return data.translate(None, b" \t\r\n\f")


def needles_of(path: Path) -> Iterator[bytes]:
    """What to look for, squeezed: each task's docstring or text, and its solution."""
    has_tasks = False
    for row in rows_of(path):
        for column in PROMPTS + SOLUTIONS:
            value = row.get(column)
            if not isinstance(value, str):
                continue
            has_tasks = True
            texts = [value] if column in SOLUTIONS else task_texts(value)
            squeezed_texts = (squeezed(t.encode("utf-8", "surrogatepass")) for t in texts)
            yield from (text for text in squeezed_texts if len(text) >= SHORTEST)
    if not has_tasks:
        columns = ", ".join(PROMPTS + SOLUTIONS)
        raise UserError(f"{path} is not HumanEval or MBPP: its rows have none of {columns}.")


def task_texts(prompt: str) -> list[str]:
    """The docstrings of a prompt that is code, whole and up to their first example; or all."""
    data = prompt.encode("utf-8", "surrogatepass")
    docstrings = [m[0][3:-3] for m in QUOTED.finditer(data) if m[0][:3] in (b'"""', b"'''")]
    if not docstrings:
        return [prompt]
    texts = [d.decode("utf-8", "surrogatepass") for d in docstrings]
    return texts + [text.split(">>>")[0] for text in texts]
