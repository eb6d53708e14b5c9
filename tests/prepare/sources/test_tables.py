"""Parquet and JSON-lines files: every row once, whatever the shards."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prepare.sources import Document, Source, tables
from prepare.sources.columns import document, encoded
from ptx.errors import UserError

ROWS = [
    {"repo_name": f"r{i % 5}", "path": f"{i}.py", "content": f"x = {i}\n" * (i % 7)}
    for i in range(200)
]


PACKED = gzip.compress("\n".join(map(json.dumps, ROWS)).encode())


def flipped(data: bytes, at: int) -> bytes:
    """One byte is another."""
    return data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]


def read(source: Source) -> list[Document]:
    return [document for shard in source.shards for document in shard.documents()]


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "SHARD", 1_000)


def assert_all(source: Source) -> None:
    found = [(d.project, d.path, d.content) for d in read(source)]
    assert found == [(r["repo_name"], r["path"], r["content"].encode()) for r in ROWS]


def test_parquet_is_read_by_row_groups(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(ROWS[:150]), tmp_path / "a.parquet", row_group_size=20)
    pq.write_table(pa.Table.from_pylist(ROWS[150:]), tmp_path / "b.parquet")
    source = tables.parquet([tmp_path])
    assert len(source.shards) > 3
    assert_all(source)


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\n\n"])
def test_json_lines_are_read_from_any_byte(tmp_path: Path, ending: str) -> None:
    (tmp_path / "a.jsonl").write_bytes(ending.join(map(json.dumps, ROWS)).encode())
    source = tables.jsonl([tmp_path / "a.jsonl"])
    assert len(source.shards) > 3
    assert_all(source)


@given(st.lists(st.integers(0, 60), min_size=1, max_size=30), st.integers(1, 80))
def test_shards_of_any_size_hold_each_line_once(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], size: int
) -> None:
    path = tmp_path_factory.mktemp("lines") / "a.jsonl"
    path.write_text("".join(json.dumps({"content": "x" * n}) + "\n" for n in lengths))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(tables, "SHARD", size)
        found = [len(d.content) for d in read(tables.jsonl([path]))]
    assert found == lengths


def test_compressed_lines_are_read(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "a.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in ROWS)
    assert_all(tables.jsonl([tmp_path]))


def test_a_row_without_a_project_is_one_of_its_own() -> None:
    first, second, third = (
        document({}, b"x = 1\n"),
        document({}, b"x = 2\n"),
        document({"path": "pkg/mod.py"}, b"x = 3\n"),
    )
    assert first.project != second.project
    assert third.project == "pkg"


def test_several_licences_all_apply_and_a_missing_one_is_unknown() -> None:
    rows = [{"licenses": ["MIT", "GPL-3.0"]}, {"license": ""}, {"license": None}, {}]
    assert [document(row, b"x").licence for row in rows] == [
        "MIT AND GPL-3.0",
        "unknown",
        "unknown",
        "",
    ]


@pytest.mark.parametrize("value", [None, 3, ["x"], {"a": 1}])
def test_a_cell_that_is_no_text_is_not_delivered(value: object) -> None:
    assert encoded(value) is None


def test_a_lone_surrogate_passes_and_is_not_utf_8() -> None:
    assert encoded("\ud800") == b"\xed\xa0\x80"


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.parquet", b"PAR1 no", "a.parquet cannot be read"),
        ("b.txt", b"", "is not there"),
        ("c.jsonl", b'{"content": "x"}\n{broken\n', "c.jsonl, byte 17: not a line of JSON"),
        ("d.jsonl", b"[1]\n", "not an object"),
        ("deep.jsonl", b"[" * 200_000, "deep.jsonl, byte 0: not a line of JSON"),
        ("plain.jsonl.gz", b'{"content": "x"}\n', r"plain.jsonl.gz cannot be read \(Not a gzipped"),
        ("cut.jsonl.gz", PACKED[:-20], "cut.jsonl.gz cannot be read"),
        ("block.jsonl.gz", flipped(PACKED, 10), "block.jsonl.gz cannot be read"),
        ("sum.jsonl.gz", flipped(PACKED, len(PACKED) - 8), "sum.jsonl.gz cannot be read"),
        ("e.jsonl", b'{"a": "x", "b": 1}\n', "name one of a, b"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, name: str, content: bytes, sentence: str) -> None:
    path = tmp_path / name
    if content:
        path.write_bytes(content)
    with pytest.raises(UserError, match=sentence):
        read((tables.parquet if name.endswith("parquet") else tables.jsonl)([path]))


def test_a_damaged_page_of_parquet_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    rows = [{"content": f"x = {i}\n"} for i in range(5_000)]
    pq.write_table(pa.Table.from_pylist(rows), path, compression="gzip", use_dictionary=False)
    path.write_bytes(flipped(path.read_bytes(), path.stat().st_size // 2))
    with pytest.raises(UserError, match=r"a\.parquet cannot be read"):
        read(tables.parquet([path]))


def test_a_column_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist([{"a": "x"}]), tmp_path / "a.parquet")
    with pytest.raises(UserError, match="no column 'code': name one of a"):
        tables.parquet([tmp_path], "code")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"holds no file that ends in \.parquet"):
        tables.parquet([tmp_path / "empty"])
