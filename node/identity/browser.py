"""A page on this machine where the owner's browser wallet signs an order (EIP-1193, EIP-6963, eth_signTypedData_v4).

Served on 127.0.0.1 only, until the order is signed. The page loads nothing from anywhere else. Its requests carry a
token from the URL's fragment, which browsers never send to a server: other pages and programs that find the port get
nothing. The Host header is checked against DNS rebinding.
"""

from __future__ import annotations

import secrets
import socket
from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import Annotated, cast

import msgspec
import trio
from hypercorn.trio import serve
from hypercorn.typing import Framework
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from node.exits import Refusal
from node.identity.owner_orders import OwnerOrder, answered, domain_of, message_of
from node.runtime.server_config import server_config
from protocols.identifiers import Address
from protocols.typed_data import typed_data

ADDRESS = "127.0.0.1"
TOKEN_HEADER = "x-swarm-token"  # noqa: S105 - the name of a header
BODY_LIMIT = 16 << 10

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
}

AddressText = Annotated[str, msgspec.Meta(pattern="^0x[0-9a-fA-F]{40}$")]
SignatureText = Annotated[str, msgspec.Meta(pattern="^(0x([0-9a-fA-F]{2}){1,2048})?$")]

CheckOrder = Callable[[OwnerOrder], Awaitable[str]]
"""Returns what is wrong with a signed order, in one line; empty if it is accepted."""


class WalletAnswer(msgspec.Struct, frozen=True):
    """What the page sends: the wallet's account, and its signature."""

    account: AddressText
    signature: SignatureText = ""


class WalletPage:
    """The page's server side for one order. `signed` is set when the order is accepted; `order` is then the answer."""

    def __init__(self, order: OwnerOrder, check: CheckOrder, host: str, about: str) -> None:
        self.order = order
        self.token = secrets.token_urlsafe(32)
        self.signed = trio.Event()
        self._check, self._host, self._about = check, host, about
        self._page = files("node.identity").joinpath("wallet.html").read_text(encoding="utf-8")

    @property
    def url(self) -> str:
        """The link that the operator opens."""
        return f"http://{self._host}/#{self.token}"

    def app(self) -> Starlette:
        """Return the application: the page, the data to sign, and the endpoint for the signature."""
        return Starlette(
            routes=[
                Route("/", self._index),
                Route("/order", self._show, methods=["POST"]),
                Route("/typed-data", self._typed_data, methods=["POST"]),
                Route("/answer", self._answer, methods=["POST"]),
            ]
        )

    async def _index(self, request: Request) -> Response:
        if request.headers.get("host") != self._host:
            return _refused("this page is served under its own address only", 421)
        return HTMLResponse(self._page, headers=HEADERS)

    async def _show(self, request: Request) -> Response:
        if problem := self._forbidden(request):
            return problem
        return _json({"about": self._about, "chain_id": self.order.chain_id, "owner": self.order.owner})

    async def _typed_data(self, request: Request) -> Response:
        if problem := self._forbidden(request):
            return problem
        answer = await _answer_in(request)
        if answer is None:
            return _refused("no account was given", 400)
        return _json(self._typed(answer.account.lower()))

    def _typed(self, owner: Address) -> object:
        order = msgspec.structs.replace(self.order, owner=owner)
        return typed_data(domain_of(order), message_of(order))

    async def _answer(self, request: Request) -> Response:
        if problem := self._forbidden(request):
            return problem
        answer = await _answer_in(request)
        if answer is None or not answer.signature:
            return _refused("account or signature is missing", 400)
        try:
            order = answered(self.order, answer.account.lower(), bytes.fromhex(answer.signature[2:]))
            wrong = await self._check(order)
        except (Refusal, ValueError) as error:  # the page shows it, and the owner may sign again
            wrong = str(error)
        if wrong:
            return _refused(wrong, 422)
        self.order = order
        self.signed.set()
        return _json({"ok": True})

    def _forbidden(self, request: Request) -> Response | None:
        """Return the refusal of a request that is not from this page in the operator's browser, or comes too late."""
        given = request.headers.get(TOKEN_HEADER, "")
        origin = request.headers.get("origin")
        if request.headers.get("host") != self._host or origin != f"http://{self._host}":
            return _refused("this page is served under its own address only", 421)
        if self.signed.is_set() or not secrets.compare_digest(given.encode(), self.token.encode()):
            return _refused("the link was used already, or is incomplete; run the command again", 403)
        return None


async def ask_wallet(order: OwnerOrder, check: CheckOrder, about: str, opened: Callable[[str], None]) -> OwnerOrder:
    """Serve the page until the order is signed; return the signed order. `opened` gets the URL once it can be opened.

    Raises OSError if no port is available.
    """
    with socket.socket() as listening:
        listening.bind((ADDRESS, 0))
        listening.listen()
        page = WalletPage(order, check, f"{ADDRESS}:{listening.getsockname()[1]}", about)
        opened(page.url)
        config = server_config(listening.detach())
        await serve(cast("Framework", page.app()), config, shutdown_trigger=page.signed.wait)
    return page.order


async def _answer_in(request: Request) -> WalletAnswer | None:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > BODY_LIMIT:
            return None
    try:
        return msgspec.json.decode(bytes(body), type=WalletAnswer)
    except ValueError:
        return None


def _json(value: object, code: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status_code=code, media_type="application/json", headers=HEADERS)


def _refused(why: str, code: int) -> Response:
    return _json({"error": why}, code)
