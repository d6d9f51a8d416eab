"""JSON-RPC to an EVM node on trio: over WebSocket with pushed heads, or over HTTP with polled ones."""

from __future__ import annotations

import itertools
import socket
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, Protocol
from urllib.parse import urlsplit

import httpx
import msgspec
import trio
import trio_websocket

from node.chain.rpc.http_post import MAX_ANSWER, REQUEST_SECONDS, AnswerTooLargeError, RateLimitedError, post
from node.chain.rpc.schemas import HEADS, validated
from node.ports.chain import ChainUnavailableError

HTTP_TRIES, HTTP_PAUSE = 3, 0.2
"""How often a request is tried over HTTP before the endpoint counts as lost, and the seconds between."""
CONNECT_SECONDS = 5.0
CLOSE_SECONDS = 0.5
LIMIT_EXCEEDED = -32005
"""JSON-RPC's code for an answer that is too long (EIP-1474): who asked for logs asks for fewer blocks."""
HEAD_QUEUE = 256


class RpcError(ChainUnavailableError):
    """The node answered with a JSON-RPC error; `data` holds revert data where there is any."""

    def __init__(self, code: int, message: str, data: object = None) -> None:
        super().__init__(f"{message} ({code})")
        self.code, self.message, self.data = code, message, data


class ConnectionLostError(ChainUnavailableError):
    """No valid answer: the connection broke, stayed silent, or sent garbage. The request may or may not have been
    carried out. `retry_after` is for how many seconds the endpoint asks to be left alone."""

    retry_after: float = 0.0


class RpcEndpoint(Protocol):
    """A connected RPC endpoint. `heads` yields raw headers; it ends or stays silent when the connection is dead."""

    heads: trio.MemoryReceiveChannel[dict[str, Any]]

    async def request(self, method: str, *parameters: object) -> Any:
        """Return the result, validated (`node.chain.rpc.schemas`).

        Raises `RpcError`, or `ConnectionLostError` after `REQUEST_SECONDS` without an answer.
        """


@asynccontextmanager
async def connect(url: str, poll_seconds: float) -> AsyncGenerator[RpcEndpoint, None]:
    """Connect to ws://, wss://, http:// or https://. Raises `ConnectionLostError`, in a group once inside."""
    kind = _http_endpoint(url, poll_seconds) if url.startswith("http") else _ws_endpoint(url)
    async with kind as endpoint:
        yield endpoint


class RpcMessage(msgspec.Struct):
    """A JSON-RPC answer or notification."""

    id: int | str | None = None
    method: str = ""
    params: Any = None
    result: Any = None
    error: Any = None


class Notification(msgspec.Struct):
    """The parameters of a subscription's notification."""

    subscription: str
    result: Any


def result_of(message: RpcMessage) -> Any:
    """Return an answer's result, or its error as a `RpcError` (not raised)."""
    error = message.error
    if error is None:
        return message.result
    if not isinstance(error, dict):
        return RpcError(0, str(error))
    code = error.get("code")
    return RpcError(code if isinstance(code, int) else 0, str(error.get("message", "")), error.get("data"))


# --- HTTP -----------------------------------------------------------------------------------------------------------


class HttpEndpoint:
    """One pooled HTTP client; heads are polled."""

    def __init__(self, url: str, http: httpx.AsyncClient, heads: trio.MemoryReceiveChannel[dict[str, Any]]) -> None:
        self.heads = heads
        self._url, self._http = url, http
        self._numbers = itertools.count(1)

    async def request(self, method: str, *parameters: object) -> Any:
        """See `RpcEndpoint.request`. A request that fails at once is made again: all of ours are idempotent."""
        body = msgspec.json.encode(
            {"jsonrpc": "2.0", "id": next(self._numbers), "method": method, "params": parameters}
        )
        for left in reversed(range(HTTP_TRIES)):
            try:
                result = await self._once(method, body)
            except trio.TooSlowError as error:
                raise ConnectionLostError(f"{method}: no answer within {REQUEST_SECONDS:.0f} s") from error
            except AnswerTooLargeError as error:
                raise RpcError(LIMIT_EXCEEDED, f"{method}: {error}") from error
            except (httpx.HTTPError, ValueError) as error:
                if not left or isinstance(error, RateLimitedError):
                    raise _lost(method, error) from error
                await trio.sleep(HTTP_PAUSE)
            else:
                break
        if isinstance(result, RpcError):
            raise result
        return result

    async def _once(self, method: str, body: bytes) -> Any:
        answer = await post(self._http, self._url, body, time.time())
        result = result_of(msgspec.json.decode(answer, type=RpcMessage))
        return result if isinstance(result, RpcError) else validated(method, result)


def _lost(method: str, error: Exception) -> ConnectionLostError:
    lost = ConnectionLostError(f"{method}: {error or type(error).__name__}")
    lost.retry_after = error.seconds if isinstance(error, RateLimitedError) else 0.0
    return lost


@asynccontextmanager
async def _http_endpoint(url: str, poll_seconds: float) -> AsyncGenerator[HttpEndpoint, None]:
    send, receive = trio.open_memory_channel[dict[str, Any]](HEAD_QUEUE)
    async with httpx.AsyncClient(timeout=None) as http, trio.open_nursery() as nursery:  # noqa: S113 - `post` has one
        endpoint = HttpEndpoint(url, http, receive)
        await endpoint.request("eth_blockNumber")
        nursery.start_soon(_poll_heads, endpoint, send, min(poll_seconds, 1.0))
        yield endpoint
        nursery.cancel_scope.cancel()


async def _poll_heads(endpoint: RpcEndpoint, send: trio.MemorySendChannel[dict[str, Any]], seconds: float) -> None:
    last = None
    while True:
        head = await endpoint.request("eth_getBlockByNumber", "latest", False)
        if head and head["hash"] != last:
            last = head["hash"]
            await send.send(head)
        await trio.sleep(seconds)


# --- WebSocket ------------------------------------------------------------------------------------------------------


class WsEndpoint:
    """Two WebSockets to one node: heads on one, requests on the other.

    On one connection a notification with an answer behind it may wait 40 ms for a delayed acknowledgement, where the
    server leaves Nagle's algorithm on (anvil does).
    """

    def __init__(self, requests: WsConnection, heads: trio.MemoryReceiveChannel[dict[str, Any]]) -> None:
        self.heads = heads
        self._requests = requests

    async def request(self, method: str, *parameters: object) -> Any:
        """See `RpcEndpoint.request`."""
        return await self._requests.request(method, *parameters)


@asynccontextmanager
async def _ws_endpoint(url: str) -> AsyncGenerator[WsEndpoint, None]:
    async with _ws_connection(url) as pushes, _ws_connection(url) as requests:
        yield WsEndpoint(requests, await pushes.subscribe("newHeads"))


class WsConnection:
    """One WebSocket connection: pipelined requests and subscriptions."""

    def __init__(self, ws: trio_websocket.WebSocketConnection) -> None:
        self._ws = ws
        self._numbers = itertools.count(1)
        self._waiting: dict[int, trio.MemorySendChannel[Any]] = {}
        self._feeds: dict[str, trio.MemorySendChannel[dict[str, Any]]] = {}
        self._early: dict[str, list[dict[str, Any]]] = {}
        self._closed = False

    async def request(self, method: str, *parameters: object) -> Any:
        """See `RpcEndpoint.request`."""
        if self._closed:
            raise ConnectionLostError("the WebSocket is closed")
        number = next(self._numbers)
        send, receive = trio.open_memory_channel[Any](1)
        self._waiting[number] = send
        body = {"jsonrpc": "2.0", "id": number, "method": method, "params": parameters}
        try:
            with trio.fail_after(REQUEST_SECONDS):
                await self._ws.send_message(msgspec.json.encode(body).decode())
                result = await receive.receive()
        except trio.TooSlowError as error:
            raise ConnectionLostError(f"{method}: no answer in {REQUEST_SECONDS:.0f} s") from error
        except (trio_websocket.ConnectionClosed, trio.EndOfChannel) as error:
            raise ConnectionLostError(f"{method}: the WebSocket closed") from error
        finally:
            self._waiting.pop(number, None)
        if isinstance(result, RpcError):
            raise result
        try:
            return validated(method, result)
        except ValueError as error:
            raise ConnectionLostError(f"{method}: {error}") from error

    async def subscribe(self, *parameters: object) -> trio.MemoryReceiveChannel[dict[str, Any]]:
        """Return a subscription's bounded feed. It ends when the connection closes, or when it is read too slowly."""
        name = await self.request("eth_subscribe", *parameters)
        send, receive = trio.open_memory_channel[dict[str, Any]](HEAD_QUEUE)
        self._feeds[name] = send
        for result in self._early.pop(name, []):
            self._push(send, result)
        return receive

    async def read(self) -> None:
        """Dispatch what arrives until the connection closes; then end every wait."""
        try:
            while True:
                message = msgspec.json.decode(await self._ws.get_message(), type=RpcMessage | list[RpcMessage])
                for one in message if isinstance(message, list) else [message]:
                    self._take(one)
        except (trio_websocket.ConnectionClosed, OSError, ValueError):
            return  # the end of its channel tells whoever waits
        finally:
            self._closed = True
            for channel in (*self._waiting.values(), *self._feeds.values()):
                channel.close()

    def _take(self, message: RpcMessage) -> None:
        """Dispatch a message. Raises ValueError for garbage."""
        if message.method == "eth_subscription":
            pushed = msgspec.convert(message.params, Notification)
            head, feed = validated(HEADS, pushed.result), self._feeds.get(pushed.subscription)
            if feed is None:
                self._early.setdefault(pushed.subscription, []).append(head)  # it outran the answer to eth_subscribe
            else:
                self._push(feed, head)
            return
        waiting = self._waiting.pop(int(message.id or 0), None)
        if waiting is not None:
            waiting.send_nowait(result_of(message))

    def _push(self, feed: trio.MemorySendChannel[dict[str, Any]], result: dict[str, Any]) -> None:
        """Push without waiting: a slow reader must not delay answers. It loses the feed, and fills the gap later."""
        try:
            feed.send_nowait(result)
        except trio.WouldBlock:
            feed.close()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return  # nobody reads this feed any more


@asynccontextmanager
async def _ws_connection(url: str) -> AsyncGenerator[WsConnection, None]:
    async with trio.open_nursery() as nursery:
        try:
            with trio.fail_after(CONNECT_SECONDS):
                ws = await _open(nursery, url)
        except (OSError, ValueError, trio.TooSlowError, trio_websocket.HandshakeError) as error:
            raise ConnectionLostError(f"cannot connect: {error or type(error).__name__}") from error
        connection = WsConnection(ws)
        nursery.start_soon(connection.read)
        try:
            yield connection
        finally:
            with trio.move_on_after(CLOSE_SECONDS) as closing:
                closing.shield = True
                await ws.aclose()
            nursery.cancel_scope.cancel()


async def _open(nursery: trio.Nursery, url: str) -> trio_websocket.WebSocketConnection:
    """Open a WebSocket. Raises OSError, ValueError, or the library's `HandshakeError`."""
    parts = urlsplit(url)
    if parts.scheme != "ws":
        return await trio_websocket.connect_websocket_url(nursery, url, max_message_size=MAX_ANSWER)
    stream = PromptStream(await trio.open_tcp_stream(parts.hostname or "", parts.port or 80))
    resource = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    with stream.handshake:
        return await trio_websocket.wrap_client_stream(
            nursery,
            stream,  # type: ignore[arg-type]  # it asks for no more than trio.abc.Stream
            parts.netloc,
            resource,
            max_message_size=MAX_ANSWER,
        )
    raise OSError("the server closed during the handshake")


class PromptStream(trio.abc.Stream):
    """A TCP stream that acknowledges at once (Linux), and ends a handshake when the server closes in it.

    trio-websocket 0.12 waits for ever on an end of file inside the handshake.
    """

    def __init__(self, inner: trio.SocketStream) -> None:
        self._inner = inner
        self.handshake = trio.CancelScope()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """See `trio.abc.ReceiveStream`."""
        if hasattr(socket, "TCP_QUICKACK"):
            self._inner.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        data = bytes(await self._inner.receive_some(max_bytes))
        if not data:
            self.handshake.cancel()
        return data

    async def send_all(self, data: Any) -> None:
        """See `trio.abc.SendStream`."""
        await self._inner.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """See `trio.abc.SendStream`."""
        await self._inner.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        """See `trio.abc.AsyncResource`."""
        await self._inner.aclose()
