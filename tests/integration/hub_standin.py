"""A stand-in for the Hugging Face hub's HTTP interface on loopback: what huggingface_hub uses to push and fetch."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_standin_0123456789abcdef"


class Hub(ThreadingHTTPServer):
    """Repositories in memory: files by path, one commit after the other."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repos: dict[str, dict[str, bytes]] = {}
        self.private: set[str] = set()
        self.commits: list[tuple[str, str]] = []
        self.objects: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.token = TOKEN

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_POST(self) -> None:
        body = self._begin()
        if self.headers.get("Authorization") != f"Bearer {self.server.token}":
            self._json({"error": "Invalid username or password."}, 401)
        elif self.path == "/api/repos/create":
            self._create(json.loads(body))
        elif self.path == "/api/validate-yaml":
            self._json({"errors": [], "warnings": []})
        elif found := re.fullmatch(r"/api/models/(.+)/preupload/main", self.path):
            self._preupload(self.server.repos[found[1]], json.loads(body))
        elif re.fullmatch(r"/(.+)\.git/info/lfs/objects/batch", self.path):
            self._batch(json.loads(body))
        elif found := re.fullmatch(r"/api/models/(.+)/commit/main", self.path):
            self._commit(found[1], body)
        else:
            self._json({"error": self.path}, 404)

    def do_PUT(self) -> None:
        body = self._begin()
        self.server.objects[self.path.removeprefix("/upload/")] = body
        self._json({})

    def do_HEAD(self) -> None:
        self._begin()
        self._file(with_body=False)

    def do_GET(self) -> None:
        self._begin()
        if found := re.fullmatch(r"/api/models/(.+?)(/revision/[^/]+|/tree/[^/]+)?", self.path.partition("?")[0]):
            self._listing(found[1], tree="/tree/" in (found[2] or ""))
        else:
            self._file(with_body=True)

    def _listing(self, repo: str, *, tree: bool) -> None:
        files = self.server.repos.get(repo)
        if files is None:
            self._json({"error": "Repository not found"}, 404)
        elif tree:
            self._json([{"type": "file", "oid": oid(f, ""), "size": len(f), "path": path} for path, f in files.items()])
        else:
            siblings = [{"rfilename": name} for name in files]
            self._json({"id": repo, "sha": "c" * 40, "siblings": siblings, "private": False, "tags": []})

    def _begin(self) -> bytes:
        self.server.requests.append(f"{self.command} {self.path}")
        if self.headers.get("Transfer-Encoding") == "chunked":
            return self._chunks()
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _chunks(self) -> bytes:
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _create(self, wanted: dict[str, Any]) -> None:
        name = "/".join(part for part in (wanted.get("organization"), wanted["name"]) if part)
        if name in self.server.repos:
            self._json({"error": "You already created this model repo", "url": f"{self.server.url}/{name}"}, 409)
            return
        self.server.repos[name] = {}
        if wanted.get("private") or wanted.get("visibility") == "private":
            self.server.private.add(name)
        self._json({"url": f"{self.server.url}/{name}", "name": name})

    def _preupload(self, files: dict[str, bytes], wanted: dict[str, Any]) -> None:
        def answer(path: str) -> dict[str, Any]:
            mode = "lfs" if path.endswith(".safetensors") else "regular"
            return {"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid(files.get(path), mode)}

        self._json({"files": [answer(each["path"]) for each in wanted["files"]]})

    def _batch(self, wanted: dict[str, Any]) -> None:
        self._json({"transfer": "basic", "objects": [self._upload(each) for each in wanted["objects"]]})

    def _upload(self, wanted: dict[str, Any]) -> dict[str, Any]:
        if wanted["oid"] in self.server.objects:
            return wanted
        return {**wanted, "actions": {"upload": {"href": f"{self.server.url}/upload/{wanted['oid']}"}}}

    def _commit(self, repo: str, body: bytes) -> None:
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "header":
                self.server.commits.append((repo, value["summary"]))
            elif line["key"] == "file":
                self.server.repos[repo][value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                self.server.repos[repo][value["path"]] = self.server.objects[value["oid"]]
        url = f"{self.server.url}/{repo}/commit/{'c' * 40}"
        self._json({"success": True, "commitOid": "c" * 40, "commitUrl": url, "hookOutput": ""})

    def _file(self, *, with_body: bool) -> None:
        found = re.fullmatch(r"/(.+)/resolve/[^/]+/(.+)", self.path)
        content = self.server.repos.get(found[1], {}).get(found[2]) if found else None
        if content is None:
            self._json({"error": "Entry not found"}, 404)
            return
        self.send_response(200)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", "c" * 40)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if with_body:
            self.wfile.write(content)

    def _json(self, answer: Any, status: int = 200) -> None:
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def oid(content: bytes | None, mode: str) -> str | None:
    """Return the id under which git knows a file: of the content in LFS, of the blob else."""
    if content is None:
        return None
    if mode == "lfs":
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@contextmanager
def standin() -> Iterator[Hub]:
    """Run one until the block ends."""
    hub = Hub()
    thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()
