"""The status server: Starlette on Hypercorn's trio worker, one of the node's supervised services."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, cast

import msgspec
import structlog
import trio
from hypercorn.config import Config as ServerConfig
from hypercorn.trio import serve
from hypercorn.typing import Framework

from node.config import HttpSettings
from node.files.atomic import replace_file
from node.http.host_names import OwnNames, is_loopback
from node.http.metrics import Counters
from node.http.routes import build
from node.machine.status import Status
from node.ports.service import Report
from node.runtime.server_config import server_config

if TYPE_CHECKING:
    from trio_typing import TaskStatus  # the stubs that libp2p installs lack trio.TaskStatus

log = structlog.get_logger()

FILE = "http.json"
"""In the data directory: where the running node serves its status."""

BACKLOG = 100


class StatusEndpoint(msgspec.Struct, frozen=True):
    """The content of http.json: base URL without a trailing slash, process id, start in Unix seconds."""

    url: str
    pid: int
    since: float


class HttpListenError(Exception):
    """The configured address can't be listened on; the text is one line that names the key to change."""


class HttpService:
    """Serves status, metrics, health and the page until cancelled; takes no commands."""

    name = "http"

    def __init__(
        self, settings: HttpSettings, home: Path, status: Callable[[], Status], counters: Counters = dict
    ) -> None:
        self._settings = settings
        self._file = home / FILE
        app = build(status, counters)
        guarded = OwnNames(app, settings.names) if is_loopback(settings.host) else app
        self._app = cast("Framework", guarded)

    async def run(
        self, report: Report | None = None, *, task_status: TaskStatus[str] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Serve until cancelled; `task_status` gets the URL. Raises `HttpListenError` if it can't listen."""
        listening = await listen(self._settings.host, self._settings.port)
        url = url_of(listening)
        try:
            content = msgspec.json.encode(StatusEndpoint(url, os.getpid(), time.time()))
            replace_file(self._file, content, mode=0o600, durable=False)
            log.info("http.listening", url=url)
            task_status.started(url)
            await serve(self._app, _server_config(listening.detach()), shutdown_trigger=trio.sleep_forever)
        finally:
            self._file.unlink(missing_ok=True)
            listening.close()

    async def execute(self, command: object) -> None:
        """Raise TypeError: the status server takes no commands."""
        raise TypeError(f"the http service takes no commands, got {type(command).__name__}")


async def listen(host: str, port: int) -> socket.socket:
    """Return a TCP socket that already listens: readers of http.json may connect at once. Raises `HttpListenError`."""
    try:
        found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        bound = socket.socket(family, kind, protocol)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            bound.bind(address)
            bound.listen(BACKLOG)
        except OSError:
            bound.close()
            raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise HttpListenError(
            f"cannot listen on {host}:{port}: {reason}; set http.host and http.port (0 for a free port)"
        ) from error
    return bound


def url_of(bound: socket.socket) -> str:
    """Return the URL of a bound socket, as reached from this machine."""
    host, port = bound.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared with, not bound to
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _server_config(descriptor: int) -> ServerConfig:
    config = server_config(descriptor)
    config.keep_alive_timeout = 15.0
    config.h2_max_concurrent_streams = 16
    return config
