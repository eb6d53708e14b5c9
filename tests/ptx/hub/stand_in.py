"""A Hub of repositories: as much of its HTTP interface as creating, uploading, committing,
downloading and Spaces need. It proves what the client does, not what the Hub is."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from tests.prepare.sources.hub_stand_in import Answers, Hub

LFS_FROM = 10_000
"""Bytes from which on a file is uploaded by itself."""


@dataclass
class Repository:
    """kind: models or spaces. commits: the files of each; branches: the commit each is at."""

    kind: str = "models"
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    private: bool = False
    settings: dict[str, Any] = field(default_factory=dict)

    def commit(self, files: dict[str, bytes], branch: str = "main") -> str:
        said = json.dumps([branch, len(self.commits)]).encode()
        sha = hashlib.sha1(said + b"".join(files.values())).hexdigest()
        self.commits[sha], self.branches[branch] = files, sha
        return sha

    def files(self, revision: str = "main") -> dict[str, bytes]:
        return self.commits[self.branches.get(revision, revision)]


@dataclass
class Fault:
    """An answer instead of the usual one, so many times."""

    method: str
    path: str
    """Regular expression, found anywhere in the path."""
    status: int
    code: str = ""
    times: int = 1


@dataclass
class Repositories(Hub):
    """token: what it takes for writing and for private repositories."""

    dataset: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    repositories: dict[str, Repository] = field(default_factory=dict)
    token: str = "hf_right"
    stored: dict[str, bytes] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    """METHOD path of everything that was asked."""

    def add(self, name: str, files: dict[str, bytes], **options: Any) -> Repository:
        repository = Repository(**options)
        repository.commit(files)
        self.repositories[name] = repository
        return repository


class RepositoryAnswers(Answers):
    hub: Repositories

    def do_GET(self) -> None:
        self.route()

    def do_HEAD(self) -> None:
        self.route()

    def do_PUT(self) -> None:
        self.route()

    def do_POST(self) -> None:
        self.route()

    def route(self) -> None:
        path = unquote(self.path.partition("?")[0])
        self.hub.calls.append(f"{self.command} {path}")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        for fault in self.hub.faults:
            if fault.times and fault.method == self.command and re.search(fault.path, path):
                fault.times -= 1
                self.refuse(fault.status, fault.code)
                return
        writes = self.command in ("POST", "PUT")
        if writes and not self.allowed() and not path.startswith("/lfs"):
            self.refuse(401)
        elif path == "/api/repos/create":
            self.create(json.loads(body))
        elif path == "/api/validate-yaml":
            self.send_json({"errors": [], "warnings": []})
        elif match := re.fullmatch(r"/api/(models|spaces)/([^/]+/[^/]+)(/.*)?", path):
            self.api(match[1], match[2], match[3] or "", body)
        elif match := re.fullmatch(r"/(spaces/)?([^/]+/[^/]+)\.git/info/lfs/objects/batch", path):
            self.batch(json.loads(body))
        elif path.startswith("/lfs/"):
            if self.command == "PUT":
                assert hashlib.sha256(body).hexdigest() == path[5:]
                self.hub.stored[path[5:]] = body
            self.send_json({})
        elif match := re.fullmatch(r"/(spaces/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self.resolve(match[2], match[3], match[4])
        else:
            self.refuse(404)

    def allowed(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {self.hub.token}"

    def refuse(self, status: int, code: str = "") -> None:
        headers = {"X-Error-Code": code} if code else {}
        self.send_json({"error": f"refused with {status}"}, status, headers)

    def found(self, name: str) -> Repository | None:
        repository = self.hub.repositories.get(name)
        if repository is None or (repository.private and not self.allowed()):
            self.refuse(401, "RepoNotFound")  # as the Hub says it to strangers
            return None
        return repository

    def create(self, asked: dict[str, Any]) -> None:
        name = f"{asked.get('organization') or 'me'}/{asked['name']}"
        kind = "spaces" if asked.get("type") == "space" else "models"
        url = {"url": f"{self.hub.url}/{'spaces/' * (kind == 'spaces')}{name}"}
        if name in self.hub.repositories:
            self.send_json(url | {"error": "You already created this repo"}, 409)
            return
        private = asked.get("visibility") == "private"
        made = self.hub.add(name, {".gitattributes": b""}, kind=kind, private=private)
        made.settings["created"] = asked
        self.send_json(url)

    def api(self, kind: str, name: str, rest: str, body: bytes) -> None:
        repository = self.found(name)
        if repository is None:
            return
        if repository.kind != kind:
            self.refuse(404, "RepoNotFound")
        elif rest.startswith("/preupload/"):
            self.send_json({"files": [
                {"path": f["path"], "shouldIgnore": False,
                 "uploadMode": "lfs" if f["size"] >= LFS_FROM else "regular"}
                for f in json.loads(body)["files"]
            ]})  # fmt: skip
        elif rest.startswith("/commit/"):
            self.commit(repository, f"{kind}/{name}", rest.removeprefix("/commit/"), body)
        elif rest.startswith("/branch/"):
            repository.branches[rest.removeprefix("/branch/")] = repository.branches["main"]
            self.send_json({})
        elif rest in ("/secrets", "/hardware", "/variables"):
            repository.settings.setdefault(rest[1:], []).append(json.loads(body))
            self.send_json({"stage": "BUILDING", "hardware": {"current": None}})
        else:
            self.tell(repository, kind, name, rest)

    def tell(self, repository: Repository, kind: str, name: str, rest: str) -> None:
        what, _, revision = rest[1:].partition("/")
        revision = revision.partition("/")[0] or "main"
        sha = repository.branches.get(revision, revision)
        if sha not in repository.commits:
            self.refuse(404, "RevisionNotFound")
            return
        files = repository.commits[sha]
        if what == "tree":
            self.send_json([
                {"type": "file", "path": p, "size": len(c),
                 "oid": hashlib.sha1(c).hexdigest()} for p, c in files.items()
            ])  # fmt: skip
            return
        siblings = [{"rfilename": p, "size": len(c)} for p, c in files.items()]
        known = {"id": name, "sha": sha, "siblings": siblings, "tags": [], "private": False}
        self.send_json(known | ({"sdk": "gradio"} if kind == "spaces" else {}))

    def batch(self, asked: dict[str, Any]) -> None:
        self.send_json({"transfer": "basic", "objects": [
            {"oid": o["oid"], "size": o["size"],
             "actions": {"upload": {"href": f"{self.hub.url}/lfs/{o['oid']}"}}}
            for o in asked["objects"]
        ]})  # fmt: skip

    def commit(self, repository: Repository, at: str, branch: str, body: bytes) -> None:
        files = dict(repository.files(branch))
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.stored[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        sha = repository.commit(files, branch)
        url = f"{self.hub.url}/{at.removeprefix('models/')}/commit/{sha}"
        self.send_json({"success": True, "commitOid": sha, "commitUrl": url})

    def resolve(self, name: str, revision: str, path: str) -> None:
        repository = self.found(name)
        if repository is None:
            return
        sha = repository.branches.get(revision, revision)
        if sha not in repository.commits:
            self.refuse(404, "RevisionNotFound")
        elif path not in repository.commits[sha]:
            self.refuse(404, "EntryNotFound")
        else:
            content = repository.commits[sha][path]
            self.send_file(content, body=self.command == "GET", commit=sha)
