"""Data sets of the hub, from a stand-in of its HTTP interface on the loopback."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

pytestmark = pytest.mark.integration

COMMIT = "c" * 40
NAME = "acme/sums"
FILES = {
    "README.md": b"# Sums",
    "en/train-00000-of-00001.jsonl": b"".join(
        json.dumps({"q": f"how much is {n}?", "a": str(n)}).encode() + b"\n" for n in range(30)
    ),
    "en/test-00000-of-00001.jsonl": b'{"q": "held out?", "a": "1"}\n',
    "cn/train-00000-of-00001.jsonl": b"not to be downloaded",
}
LOAD = """
import sys
from node.data.load import load_questions
from protocols.manifest import DataSpec
named = {"source": "hub:" + sys.argv[1], "revision": sys.argv[2], "config": "en", "split": sys.argv[3]}
spec = DataSpec(**named, question="q", answer="a")
try:
    questions = load_questions(spec, sys.argv[4])
except ValueError as error:
    print("refused:", error)
else:
    print(len(questions), len(questions.held_out(99)), questions.digest.hex())
"""


class Hub(BaseHTTPRequestHandler):
    """As much of the hub as a snapshot needs: what a revision is, its tree, its files."""

    protocol_version = "HTTP/1.1"
    asked: list[str] = []  # noqa: RUF012 - the class is made anew for each server

    def do_GET(self) -> None:
        """Answer."""
        path = self.path.split("?")[0]
        self.asked.append(path)
        api, resolve = f"/api/datasets/{NAME}", f"/datasets/{NAME}/resolve/{COMMIT}/"
        if path in (f"{api}/revision/v1", f"{api}/revision/{COMMIT}"):
            self._json({"id": NAME, "sha": COMMIT, "siblings": [{"rfilename": name} for name in FILES]})
        elif path.startswith(f"{api}/tree/"):
            self._json([{"type": "file", "path": each, "size": len(FILES[each]), "oid": "0"} for each in FILES])
        elif path.startswith(resolve) and path.removeprefix(resolve) in FILES:
            self._send(FILES[path.removeprefix(resolve)], 200)
        elif path.startswith(api):
            self._send(b"{}", 404, {"X-Error-Code": "RevisionNotFound"})
        else:
            self._send(b"{}", 404, {"X-Error-Code": "RepoNotFound"})

    do_HEAD = do_GET  # noqa: N815

    def _json(self, body: object) -> None:
        self._send(json.dumps(body).encode(), 200)

    def _send(self, body: bytes, status: int, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        fixed = {"Content-Length": str(len(body)), "ETag": f'"{_etag(body)}"', "X-Repo-Commit": COMMIT}
        for name, value in {**fixed, **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def _etag(body: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(body) + body).hexdigest()


@pytest.fixture
def hub() -> Iterator[tuple[str, list[str]]]:
    """Return the stand-in's address, and what it was asked."""

    class Fresh(Hub):
        asked: ClassVar[list[str]] = []  # type: ignore[misc]

    with ThreadingHTTPServer(("127.0.0.1", 0), Fresh) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", Fresh.asked
        server.shutdown()


def load(
    endpoint: str, home: Path, name: str = NAME, revision: str = "v1", split: str = "train", copy: str = "",
) -> str:  # fmt: skip
    """Load in a process of its own, for the hub's library reads its environment once."""
    environment = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    environment |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    done = subprocess.run(
        [sys.executable, "-c", LOAD, name, revision, split, copy],
        capture_output=True, text=True, env=environment, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1]


def test_a_revision_is_downloaded_once_and_then_needs_no_network(hub: tuple[str, list[str]], tmp_path: Path) -> None:
    """Only the files of the config's two splits travel; the cache serves the next start, with the hub gone."""
    endpoint, asked = hub
    home = tmp_path / "home"

    first = load(endpoint, home)
    travelled = {path.rpartition("/resolve/")[2] for path in asked if "/resolve/" in path}
    second = load("http://127.0.0.1:9", home)

    assert first.startswith("30 1 ")
    assert travelled == {f"{COMMIT}/en/{split}-00000-of-00001.jsonl" for split in ("train", "test")}
    assert first == second


def test_what_the_hub_does_not_have_is_one_line_and_an_own_copy_goes_without_it(
    hub: tuple[str, list[str]], tmp_path: Path
) -> None:
    """No such data set, no such revision, no such split; and with trainer.data the hub isn't asked at all."""
    endpoint, asked = hub
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "train.jsonl").write_bytes(FILES["en/train-00000-of-00001.jsonl"])

    assert "no data set 'acme/other' at revision 'v1'" in load(endpoint, tmp_path, name="acme/other")
    assert f"no data set {NAME!r} at revision 'v9'" in load(endpoint, tmp_path, revision="v9")
    assert "has no file like en/validation*.jsonl" in load(endpoint, tmp_path, split="validation")
    asked.clear()
    assert load(endpoint, tmp_path, copy=str(tmp_path / "copy")).startswith("26 4 ")
    assert asked == []


def test_without_network_the_line_says_which_copy_to_use(tmp_path: Path) -> None:
    """An operator without network learns what trainer.data has to hold."""
    said = load("http://127.0.0.1:9", tmp_path)

    assert said.startswith(f"refused: the hub can't be reached for {NAME!r}")
    assert "set trainer.data to a directory with train.jsonl or train.parquet" in said
