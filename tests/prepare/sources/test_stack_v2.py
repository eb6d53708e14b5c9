"""The Stack v2: a table from the Hub's stand-in, contents from a bucket's stand-in."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from prepare.sources import stack_v2
from prepare.verify import problems
from ptx.corpus import Corpus
from ptx.errors import UserError
from tests.prepare.sources.hub_stand_in import Hub
from tests.prepare.sources.test_hub import code, parquet, prepare

LATIN = '"""Größe."""\nx = 1\n'
BLOBS = {f"{i:040x}": code(i).encode() for i in range(30)} | {"latin": LATIN.encode("latin-1")}


class Bucket(BaseHTTPRequestHandler):
    """GET /softwareheritage/content/BLOB, gzipped; every fifth file is cut off when first asked."""

    protocol_version = "HTTP/1.1"
    cut: set[str]

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        blob = self.path.partition("?")[0].removeprefix("/softwareheritage/content/")
        content = BLOBS.get(blob)
        data = (
            b"<Error><Code>NoSuchKey</Code></Error>" if content is None else gzip.compress(content)
        )
        if content is not None and blob.endswith(("0", "5", "a")) and blob not in self.cut:
            self.cut.add(blob)
            data = data[:30]
        self.send_response(404 if content is None else 200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def bucket() -> Iterator[str]:
    handler = type("Handler", (Bucket,), {"cut": set()})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def row(blob: str, i: int, **changes: object) -> dict[str, object]:
    return {
        "blob_id": blob,
        "directory_id": "d",
        "path": f"/src/{i}.py",
        "content_id": "c",
        "detected_licenses": ["MIT"],
        "license_type": "permissive",
        "repo_name": f"repo/{i % 9}",
        "src_encoding": "UTF-8",
        "language": "Python",
        "is_vendor": False,
        "is_generated": False,
        "length_bytes": 10,
        "extension": "py",
    } | changes


def test_files_are_fetched_and_those_that_are_gone_are_counted(tmp_path: Path, bucket: str) -> None:
    rows = [row(blob, i) for i, blob in enumerate(b for b in BLOBS if b != "latin")]
    rows += [row("f" * 40, 30), row("latin", 31, src_encoding="ISO-8859-1")]
    rows += [row(f"{3:040x}", 32, detected_licenses=[], license_type="no_license")]
    hub = Hub(stack_v2.DATASET, {"data/Python/train-00000.parquet": parquet(rows)})
    result = prepare(hub, tmp_path, "stack-v2", AWS_ENDPOINT_URL_S3=bucket)
    assert result.returncode == 0, result.stderr
    assert list(problems(tmp_path / "data")) == []
    opened = Corpus(tmp_path / "data")
    counts = {name: c["files"] for name, c in opened.manifest["filters"].items() if c["files"]}
    assert counts == {"in": 33, "not delivered": 1, "licence": 1, "kept": 31}
    texts = opened.tokenizer.text(opened.train) + opened.tokenizer.text(opened.val)
    assert LATIN in texts


def test_files_come_in_the_order_of_the_table(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", bucket)
    rows = [row(blob, i) for i, blob in enumerate(b for b in BLOBS if b != "latin")]

    class Table:
        size = 0

        def rows(self) -> Iterator[dict[str, object]]:
            return iter(rows)

    monkeypatch.setattr(stack_v2, "IN_FLIGHT", 4)
    found = list(stack_v2.Contents(Table()).documents())
    assert [d.content for d in found] == [code(i).encode() for i in range(30)]
    assert found[0].path == "/src/0.py"


def test_a_bucket_out_of_reach_ends_the_run_with_a_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    monkeypatch.setattr(stack_v2, "ATTEMPTS", 1)
    with pytest.raises(UserError, match="Software Heritage's bucket cannot be read"):
        stack_v2.content("0" * 40, "utf-8", stack_v2.bucket_client())
