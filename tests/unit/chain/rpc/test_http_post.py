"""Answers over real HTTP that are too long, too slow, compressed or refused."""

from __future__ import annotations

import gzip
import resource
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

import httpx
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from node.chain.rpc import http_post
from node.chain.rpc.client import ConnectionLostError, HttpEndpoint, RpcError
from node.chain.rpc.http_post import (
    MAX_ANSWER,
    MAX_RETRY_SECONDS,
    AnswerTooLargeError,
    RateLimitedError,
    post,
    retry_seconds,
)

NOW = 1_800_000_000.0
MIB = 1 << 20
Serve = Callable[[trio.SocketStream], Awaitable[None]]


@asynccontextmanager
async def server(serve: Serve) -> AsyncIterator[str]:
    """A server on loopback that reads a request and then does what it is told; yields its URL."""

    async def handle(stream: trio.SocketStream) -> None:
        try:
            await stream.receive_some(65536)
            await serve(stream)
        except trio.BrokenResourceError:
            return  # the client has had enough

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, handle, [listener])
        yield f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


def head(status: str = "200 OK", **fields: object) -> bytes:
    """Return the head of an answer that ends with the connection, or after `content_length` bytes."""
    lines = [f"HTTP/1.1 {status}", *(f"{name.replace('_', '-')}: {value}" for name, value in fields.items())]
    return "\r\n".join([*lines, "", ""]).encode()


async def asked(serve: Serve) -> bytes:
    """Post to such a server; return what comes back, or raise outside of any nursery what `post` raises."""
    failure: Exception
    async with server(serve) as url, httpx.AsyncClient(timeout=None, trust_env=False) as http:
        try:
            return await post(http, url, b"{}", NOW)
        except (httpx.HTTPError, ValueError, trio.TooSlowError) as error:
            failure = error
    raise failure


async def of_size(size: int, stream: trio.SocketStream) -> None:
    """Answer with so many bytes."""
    await stream.send_all(head(content_length=size))
    for _ in range(size // MIB):
        await stream.send_all(bytes(MIB))
    await stream.send_all(bytes(size % MIB))


async def endless(stream: trio.SocketStream) -> None:
    """Answer without end."""
    await stream.send_all(head(connection="close"))
    while True:
        await stream.send_all(bytes(MIB))


async def test_an_answer_at_the_limit_is_read_whole() -> None:
    """Not one byte less, and the next request is answered as well."""
    assert len(await asked(partial(of_size, MAX_ANSWER))) == MAX_ANSWER


@pytest.mark.parametrize("serve", [partial(of_size, MAX_ANSWER + 1), partial(of_size, 10 * MAX_ANSWER), endless])
async def test_a_longer_answer_is_refused_before_it_is_read(serve: Serve) -> None:
    """One byte more, ten times as much, or no end: memory does not grow by more than the limit."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(AnswerTooLargeError, match="more than 16 MiB"):
        await asked(serve)
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < 3 * MAX_ANSWER


async def test_a_compressed_answer_is_refused() -> None:
    """A megabyte may unpack to a gigabyte; it was not asked for, and is not unpacked."""
    bomb = gzip.compress(bytes(100 * MIB), 1)

    async def serve(stream: trio.SocketStream) -> None:
        await stream.send_all(head(content_length=len(bomb), content_encoding="gzip") + bomb)

    with pytest.raises(ValueError, match="compressed"):
        await asked(serve)


async def test_no_compression_is_asked_for() -> None:
    """The request says so: a server that compresses anyway breaks HTTP."""
    seen: list[bytes] = []

    async def handle(stream: trio.SocketStream) -> None:
        seen.append(bytes(await stream.receive_some(65536)))
        await stream.send_all(head(content_length=2) + b"{}")

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, handle, [listener])
        async with httpx.AsyncClient(trust_env=False) as http:
            await post(http, f"http://127.0.0.1:{listener.socket.getsockname()[1]}", b"{}", NOW)
        nursery.cancel_scope.cancel()
    assert b"accept-encoding: identity" in seen[0].lower()


async def test_an_answer_that_trickles_ends_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte now and then is progress for a socket's time-out, and none here."""
    monkeypatch.setattr(http_post, "REQUEST_SECONDS", 0.3)

    async def trickle(stream: trio.SocketStream) -> None:
        await stream.send_all(head(content_length=1_000_000))
        while True:
            await stream.send_all(b" ")
            await trio.sleep(0.05)

    with pytest.raises(trio.TooSlowError):
        await asked(trickle)


@pytest.mark.parametrize(
    ("status", "fields", "seconds"),
    [
        ("429 Too Many Requests", {"retry_after": "17"}, 17.0),
        ("429 Too Many Requests", {}, 0.0),
        ("429 Too Many Requests", {"retry_after": "1000000"}, MAX_RETRY_SECONDS),
        ("503 Service Unavailable", {"retry_after": "3"}, 3.0),
    ],
)
async def test_a_server_that_wants_a_pause_says_how_long(status: str, fields: dict[str, str], seconds: float) -> None:
    """Its Retry-After is taken, within bounds."""

    async def serve(stream: trio.SocketStream) -> None:
        await stream.send_all(head(status, content_length=0, **fields))

    with pytest.raises(RateLimitedError) as refused:
        await asked(serve)
    assert refused.value.seconds == seconds


async def test_a_rate_limited_request_is_made_once() -> None:
    """Trying again at once is what the server asks not to do; the connection says for how long it is to be left."""
    count = 0

    async def serve(stream: trio.SocketStream) -> None:
        nonlocal count
        count += 1
        await stream.send_all(head("429 Too Many Requests", content_length=0, retry_after=9))

    async with server(serve) as url, httpx.AsyncClient(trust_env=False) as http:
        endpoint = HttpEndpoint(url, http, trio.open_memory_channel[dict[str, object]](1)[1])
        with pytest.raises(ConnectionLostError) as lost:
            await endpoint.request("eth_chainId")
    assert (count, lost.value.retry_after) == (1, 9.0)


async def test_too_long_an_answer_asks_for_a_shorter_range() -> None:
    """It reaches the caller as a provider's own refusal of a long answer would."""
    async with server(partial(of_size, MAX_ANSWER + 1)) as url, httpx.AsyncClient(trust_env=False) as http:
        endpoint = HttpEndpoint(url, http, trio.open_memory_channel[dict[str, object]](1)[1])
        with pytest.raises(RpcError, match="more than 16 MiB"):
            await endpoint.request("eth_getLogs", {})


def test_a_date_to_retry_after_is_a_pause_from_now() -> None:
    """HTTP allows both forms; a date that has passed is no pause, nonsense neither."""
    assert retry_seconds("Fri, 15 Jan 2027 08:00:30 GMT", NOW) == 30.0
    assert retry_seconds("Fri, 15 Jan 2027 07:00:00 GMT", NOW) == 0.0
    assert retry_seconds("soon", NOW) == 0.0


@given(st.text(max_size=40))
def test_any_retry_after_is_a_bounded_pause(text: str) -> None:
    """Whatever a server writes there, the node neither fails nor waits for ever."""
    assert 0.0 <= retry_seconds(text, NOW) <= MAX_RETRY_SECONDS
