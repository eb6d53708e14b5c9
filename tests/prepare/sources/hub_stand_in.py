"""A Hub that holds one dataset: enough of its HTTP interface for `datasets` to stream from it."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """What it answers.

    Attributes:
        dataset: the name it knows.
        files: their contents by path.
        status: given instead of an answer to every question about the dataset; 0 answers.
        gated: whether the files, but not their list, are refused, as of a gated dataset.
        headers: sent with such a status.
        truncated: how many times yet a file's body ends in its middle.
        asked: every path that was asked for.
    """

    dataset: str
    files: dict[str, bytes]
    status: int = 0
    gated: bool = False
    headers: dict[str, str] = field(default_factory=dict)
    truncated: int = 0
    asked: list[str] = field(default_factory=list)
    url: str = ""


@contextmanager
def serving(hub: Hub, answers: type[Answers] | None = None) -> Iterator[Hub]:
    """hub: answers to its own class of questions. answers: how, if not as below."""

    class Handler(answers or Answers):  # type: ignore[misc]
        pass

    Handler.hub = hub
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


class Answers(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self.answer(body=True)

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        asked = self.rfile.read(length).decode()
        try:
            wanted = json.loads(asked).get("paths", [])
        except ValueError:
            wanted = [unquote(p.partition("=")[2]) for p in asked.split("&")]
        self.send_json([entry(p, self.hub.files[p]) for p in wanted if p in self.hub.files])

    def answer(self, body: bool) -> None:
        hub, path = self.hub, unquote(self.path.partition("?")[0])
        hub.asked.append(path)
        api = f"/api/datasets/{hub.dataset}"
        if hub.status:
            self.send_json({"error": "no"}, hub.status, hub.headers)
        elif path in (api, f"{api}/revision/{COMMIT}", f"{api}/revision/main"):
            siblings = [{"rfilename": p, "size": len(c)} for p, c in hub.files.items()]
            self.send_json({"id": hub.dataset, "sha": COMMIT, "siblings": siblings, "tags": []})
        elif path.startswith(f"{api}/tree/"):
            folder = path.removeprefix(f"{api}/tree/").partition("/")[2]
            inside = {p: c for p, c in hub.files.items() if p.startswith(folder)}
            self.send_json([entry(p, c) for p, c in inside.items()])
        elif hub.gated:
            self.send_json({"error": "gated"}, 403, {"X-Error-Code": "GatedRepo"})
        elif (name := path.partition("/resolve/")[2].partition("/")[2]) in hub.files:
            self.send_file(hub.files[name], body)
        else:
            self.send_json({"error": "not found"}, 404, {"X-Error-Code": "EntryNotFound"})

    def send_json(
        self, content: object, status: int = 200, headers: dict[str, str] | None = None
    ) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def send_file(self, content: bytes, body: bool, commit: str = COMMIT) -> None:
        start, stop = 0, len(content)
        if wanted := self.headers.get("Range"):
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            start, stop = int(first), min(int(last) + 1 if last else stop, stop)
        part = content[start:stop]
        self.send_response(206 if wanted else 200)
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(content)}")
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", commit)
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        if body and self.hub.truncated > 0 and len(part) > 1:
            self.hub.truncated -= 1
            self.wfile.write(part[: len(part) // 2])
            self.close_connection = True
        elif body:
            self.wfile.write(part)


def entry(path: str, content: bytes) -> dict[str, object]:
    return {"type": "file", "path": path, "size": len(content), "oid": "0" * 40}
