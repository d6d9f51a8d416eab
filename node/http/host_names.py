"""Protection against DNS rebinding: another site's page must not read the status by pointing its own name at this
machine."""

from __future__ import annotations

from collections.abc import Collection
from ipaddress import ip_address

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

HINT = "the Host header does not name this machine; behind a proxy set http.names\n"


def host_of(header: str) -> str:
    """Return the host of a Host header, without port and brackets, in lower case."""
    bracketed, _, rest = header.lower().rpartition("]")
    return bracketed.removeprefix("[") if bracketed else rest.partition(":")[0]


def is_allowed(header: str, names: Collection[str]) -> bool:
    """Return True if a Host header names an address, localhost or one of `names`, or is missing: browsers send one."""
    host = host_of(header)
    return not header or host == "localhost" or host in names or is_address(host)


def is_address(text: str) -> bool:
    """Return True if a text is an IP address."""
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Return True if a server on this host is reachable only from this machine."""
    return host == "localhost" or (is_address(host) and ip_address(host).is_loopback)


class OwnNames:
    """ASGI middleware that answers 421 to requests with another host name."""

    def __init__(self, app: ASGIApp, names: Collection[str]) -> None:
        self._app, self._names = app, frozenset(name.lower() for name in names)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it."""
        header = dict(scope.get("headers", ())).get(b"host", b"").decode("latin-1")
        allowed = scope["type"] != "http" or is_allowed(header, self._names)
        await (self._app if allowed else PlainTextResponse(HINT, status_code=421))(scope, receive, send)
