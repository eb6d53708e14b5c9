"""Documents with a benchmark's task or solution are found, in the benchmarks' own formats."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from prepare.cleaning.benchmarks import Benchmarks
from ptx.errors import UserError

HUMANEVAL = {
    "task_id": "X/0",
    "prompt": (
        "def count_vowels_between(text: str, start: int) -> int:\n"
        '    """ Count the vowels of text that stand behind the position start.\n'
        "    >>> count_vowels_between('hello', 2)\n    1\n"
        '    """\n'
    ),
    "canonical_solution": "    return sum(c in 'aeiou' for i, c in enumerate(text) if i > start)\n",
    "entry_point": "count_vowels_between",
    "test": "def check(candidate): pass",
}
MBPP = {
    "task_id": 1,
    "text": "Write a function to find the shared numbers of two sorted lists.",
    "code": "def shared(a, b):\r\n  return sorted(set(a) & set(b), key=a.index)\r\n",
}


@pytest.fixture
def benchmarks(tmp_path: Path) -> Benchmarks:
    with gzip.open(tmp_path / "HumanEval.jsonl.gz", "wt") as file:
        file.write(json.dumps(HUMANEVAL) + "\n")
    pq.write_table(pa.Table.from_pylist([MBPP]), tmp_path / "mbpp.parquet")
    return Benchmarks([tmp_path / "HumanEval.jsonl.gz", tmp_path / "mbpp.parquet"])


@pytest.mark.parametrize(
    "code",
    [
        HUMANEVAL["prompt"] + HUMANEVAL["canonical_solution"],
        "def other(text, start):\n\treturn sum(c in 'aeiou' for i, c in enumerate(text)\n"
        "\t\tif i > start)\n",
        "# Count the vowels of text that stand\n".replace("# ", '"""')
        + "behind the position start.",
        "# Write a function to find the shared numbers of two sorted lists.\n",
        "def shared(a, b):\n    return sorted(set(a) & set(b), key=a.index)\n",
    ],
)
def test_a_task_or_solution_is_found_whatever_its_white_space(
    code: str, benchmarks: Benchmarks
) -> None:
    assert benchmarks.occur_in(f"import os\n\n{code}\nx = 1\n".encode())


def test_other_code_is_not(benchmarks: Benchmarks) -> None:
    assert not benchmarks.occur_in(Path(__file__).read_bytes()[:400])
    assert not benchmarks.occur_in(b"return sum(x)\n")
    assert not Benchmarks([]).occur_in(b"x = 1\n")


def test_every_benchmark_of_a_folder_is_looked_for(tmp_path: Path) -> None:
    for name, row in (("a.jsonl", HUMANEVAL), ("b.jsonl", MBPP)):
        (tmp_path / name).write_text(json.dumps(row))
    found = Benchmarks([tmp_path])
    assert found.occur_in(HUMANEVAL["canonical_solution"].encode())
    assert found.occur_in(MBPP["code"].encode())


def test_what_is_no_benchmark_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other.jsonl").write_text('{"a": 1}\n')
    with pytest.raises(UserError, match=r"other\.jsonl is not HumanEval or MBPP"):
        Benchmarks([tmp_path / "other.jsonl"])
    (tmp_path / "damaged.jsonl.gz").write_bytes(b"no gzip")
    with pytest.raises(UserError, match=r"damaged\.jsonl\.gz cannot be read"):
        Benchmarks([tmp_path / "damaged.jsonl.gz"])
    with pytest.raises(UserError, match=r"nowhere\.jsonl is not there"):
        Benchmarks([tmp_path / "nowhere.jsonl"])
