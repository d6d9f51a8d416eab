"""The routes of the status server."""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files

import msgspec
from prometheus_client.exposition import choose_encoder
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from node.http.metrics import Counters, registry_of
from node.machine.status import Status

PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
"""The page loads nothing from any other server, and no page may frame it."""

DATA_HEADERS = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}


def reasons_not_ready(status: Status) -> list[str]:
    """Return why the node can't take part right now, empty if it can.

    Peers are not required: the first node of a swarm is ready without any.
    """
    problems = (
        (status.phase in ("starting", "syncing"), f"phase: {status.phase}, the current round is not known yet"),
        (
            status.phase == "doppelganger-protection",
            f"phase: {status.phase}, a restored or copied identity acts after a whole round",
        ),
        (status.phase == "draining", "phase: draining, the node stops after this stage"),
        (status.chain != "present", f"chain: {status.chain}"),
        (status.trainer != "present", f"trainer: {status.trainer}"),
        (not status.registered, "registration: the contract does not know this node yet"),
    )
    return [text for holds, text in problems if holds]


def build(status: Callable[[], Status], counters: Counters) -> Starlette:
    """Return the application: /, /livez, /readyz, /metrics, /status.json, /peers. All routes are read-only."""
    registry = registry_of(status, counters)
    page = files("node.http").joinpath("page.html").read_text(encoding="utf-8")

    async def index(_: Request) -> Response:
        return HTMLResponse(page, headers=PAGE_HEADERS)

    async def live(_: Request) -> Response:
        return Response("ok\n", media_type="text/plain")

    async def ready(_: Request) -> Response:
        reasons = reasons_not_ready(status())
        return _json({"ready": not reasons, "reasons": reasons}, 503 if reasons else 200)

    async def metrics(request: Request) -> Response:
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(registry), headers={"Content-Type": content_type, **DATA_HEADERS})

    async def status_json(_: Request) -> Response:
        return _json(status())

    async def peers(_: Request) -> Response:
        now = status()
        return _json({"round": now.round, "connected": now.connected, "peers": now.peers})

    return Starlette(
        routes=[
            Route("/", index),
            Route("/livez", live),
            Route("/readyz", ready),
            Route("/metrics", metrics),
            Route("/status.json", status_json),
            Route("/peers", peers),
        ]
    )


def _json(value: object, code: int = 200) -> Response:
    body = msgspec.json.encode(value)
    return Response(body, status_code=code, media_type="application/json", headers=DATA_HEADERS)
