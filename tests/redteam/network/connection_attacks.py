"""Attacks on sockets, handshakes, yamux frames and stream protocols."""

from __future__ import annotations

import os
import struct
from contextlib import suppress

import trio
from libp2p.identity.identify.pb.identify_pb2 import Identify
from libp2p.utils import encode_varint_prefixed

from node.identity import new_key
from node.network.peers.peer_manager import PEERS_PROTOCOL
from node.network.reqresp.body_exchange import BODY_PROTOCOL
from node.network.reqresp.catch_up import CATCHUP_PROTOCOL
from node.network.reqresp.streams import StreamFault, StreamLostError, read_frame, write_frame
from tests.redteam.network.attacks import Attack, Battlefield, again_and_again, random_bytes, read_to_end, several
from tests.redteam.network.stranger import (
    SYN,
    YAMUX_DATA,
    YAMUX_PING,
    YAMUX_WINDOW_UPDATE,
    RefusedError,
    Stranger,
    read_facts,
    stranger,
)

MULTISTREAM = b"\x13/multistream/1.0.0\n"


async def reconnections(field: Battlefield) -> None:
    """Connect and leave without a pause: every connection must give its place back."""

    async def come_and_go() -> None:
        while True:
            with suppress(RefusedError, OSError, ExceptionGroup):
                async with stranger(field.victim, subscribed=False):
                    field.done["connections"] += 1
                continue
            field.done["refused"] += 1
            await trio.sleep(0.05)

    await several(3, come_and_go)


async def idle_sockets(field: Battlefield) -> None:
    """Eighty sockets that say nothing, opened again when they are closed."""

    async def hold() -> None:
        while True:
            with suppress(OSError):
                async with await trio.open_tcp_stream(*field.victim.socket) as stream:
                    field.done["sockets"] += 1
                    await read_to_end(stream)
            await trio.sleep(0.02)

    await several(80, hold)


async def endless_negotiation(field: Battlefield) -> None:
    """Before the handshake, a multistream-select message of a terabyte, and its bytes (GHSA-hmjq-g7pp-rw3x)."""

    async def pour() -> None:
        while True:
            with suppress(OSError, trio.BrokenResourceError):
                async with await trio.open_tcp_stream(*field.victim.socket) as stream:
                    field.done["sockets"] += 1
                    await stream.send_all(b"\xff\xff\xff\xff\xff\x1f")
                    for _ in range(256):
                        await stream.send_all(bytes(1 << 20))
                        field.done["MiB"] += 1
            await trio.sleep(0.05)

    await several(4, pour)


async def garbage(field: Battlefield) -> None:
    """Random bytes on the socket, some after a proper greeting."""

    async def throw() -> None:
        while True:
            with suppress(OSError, trio.BrokenResourceError):
                async with await trio.open_tcp_stream(*field.victim.socket) as stream:
                    field.done["sockets"] += 1
                    greeting = MULTISTREAM if field.dice.random() < 0.5 else b""
                    await stream.send_all(greeting + random_bytes(field.dice, 4096))
                    with trio.move_on_after(0.5):
                        await read_to_end(stream)
            await trio.sleep(0.01)

    await several(8, throw)


async def beyond_the_window(field: Battlefield) -> None:
    """Megabytes of DATA on a stream whose window is 256 KiB, and which the other side has finished with."""
    data = os.urandom(1 << 20)

    async def pour(peer: Stranger, _: int) -> None:
        async with peer.host.request(peer.victim.peer, BODY_PROTOCOL) as stream:
            await write_frame(stream, bytes(32))
            await read_frame(stream, 8)
            while peer.alive:
                await peer.frame(YAMUX_DATA, 0, stream.muxed_stream.stream_id, len(data), data)
                field.done["MiB"] += 1

    await again_and_again(field, pour, subscribed=False)


async def empty_streams(field: Battlefield) -> None:
    """Streams opened by twelve bytes each and never used."""

    async def open_many(peer: Stranger, turn: int) -> None:
        first = 1001 + 400 * turn
        block = b"".join(struct.pack("!BBHII", 0, YAMUX_WINDOW_UPDATE, SYN, first + 2 * k, 0) for k in range(200))
        await peer.muxed._write_frame(block)
        await trio.lowlevel.checkpoint()

    await again_and_again(field, open_many, subscribed=False)


async def silent_streams(field: Battlefield) -> None:
    """Streams that agree on a protocol of ours and then say nothing."""
    want = BODY_PROTOCOL.encode() + b"\n"
    hello = MULTISTREAM + bytes([len(want)]) + want

    async def open_many(peer: Stranger, turn: int) -> None:
        first = 1001 + 100 * turn
        frames = (struct.pack("!BBHII", 0, YAMUX_DATA, SYN, first + 2 * k, len(hello)) + hello for k in range(50))
        await peer.muxed._write_frame(b"".join(frames))
        await trio.lowlevel.checkpoint()

    await again_and_again(field, open_many, subscribed=False)


async def yamux_pings(field: Battlefield) -> None:
    """Yamux pings without end: each asks for an answer."""

    async def ping(peer: Stranger, turn: int) -> None:
        await peer.muxed._write_frame(struct.pack("!BBHII", 0, YAMUX_PING, SYN, 0, turn) * 200)
        await trio.lowlevel.checkpoint()

    await again_and_again(field, ping, subscribed=False)


async def identify_pushes(field: Battlefield) -> None:
    """Identify pushes with a thousand addresses each."""

    async def push(peer: Stranger, turn: int) -> None:
        said = Identify()
        for k in range(1000):
            number = turn * 1000 + k
            said.listen_addrs.append(b"\x04" + struct.pack(">I", 0x0B000000 + number % 0xFFFFFF) + b"\x06\x10\x00")
        async with peer.host.request(peer.victim.peer, "/ipfs/id/push/1.0.0") as stream:
            await stream.write(encode_varint_prefixed(said.SerializeToString()))
            await trio.sleep(0.02)

    await again_and_again(field, push, subscribed=False)


async def same_body_again(field: Battlefield) -> None:
    """Ask for one large body again and again."""

    async def draw(peer: Stranger, _: int) -> None:
        async with peer.host.request(peer.victim.peer, BODY_PROTOCOL) as stream:
            await write_frame(stream, bytes.fromhex(read_facts(field.facts).body))
            head = await read_frame(stream, 8)
            left = int.from_bytes(head, "big") if len(head) == 8 else 0
            field.done["answers"] += bool(left)
            while left > 0:
                left -= len(part := await read_frame(stream, 1 << 16))
                field.done["bytes"] += len(part)
        if not field.done["answers"]:
            await trio.sleep(0.05)

    await again_and_again(field, draw, subscribed=False)


async def other_questions(field: Battlefield) -> None:
    """Ask for introductions and for the announcements of the round, as often as there is an answer."""

    async def ask(peer: Stranger, turn: int) -> None:
        protocol = PEERS_PROTOCOL if turn % 2 else CATCHUP_PROTOCOL
        async with peer.host.request(peer.victim.peer, protocol) as stream:
            await write_frame(stream, b"\x90" if turn % 4 < 2 else random_bytes(field.dice, 64))
            with suppress(StreamFault, StreamLostError), trio.move_on_after(1.0):
                field.done["bytes"] += len(await read_frame(stream, 1 << 20))

    await again_and_again(field, ask, subscribed=False)


async def banned_redials(field: Battlefield) -> None:
    """Break the protocol under one name until it is banned, and redial under the same name without a pause."""
    key = new_key()
    while True:
        try:
            async with stranger(field.victim, key, subscribed=False) as peer:
                field.done["connections"] += 1
                while peer.alive:
                    async with peer.host.request(peer.victim.peer, BODY_PROTOCOL) as stream:
                        await stream.write(b"\xff\xff\xff\xff\x7f")
                        await trio.sleep(0.01)
        except (RefusedError, OSError, ExceptionGroup, StreamFault, StreamLostError):
            field.done["refused"] += 1
        await trio.sleep(0.01)


ATTACKS: tuple[Attack, ...] = (
    reconnections,
    idle_sockets,
    endless_negotiation,
    garbage,
    beyond_the_window,
    empty_streams,
    silent_streams,
    yamux_pings,
    identify_pushes,
    same_body_again,
    other_questions,
    banned_redials,
)
