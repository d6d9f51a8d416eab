"""A stranger: a libp2p host without a registered key, connected to one victim, that may write raw frames."""

from __future__ import annotations

import json
import struct
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import trio
from libp2p.peer.id import ID
from libp2p.pubsub.pb import rpc_pb2
from libp2p.utils import encode_varint_prefixed

from node.identity import NodeKey, new_key
from node.network.host import Host, open_host
from node.network.pubsub.topic import Topic, TopicSettings, join
from protocols.admission import MessageAcceptance

YAMUX_DATA, YAMUX_WINDOW_UPDATE, YAMUX_PING = 0, 1, 2
SYN = 1
ROOM = 64
"""Connections that a stranger's own host allows."""


class Victim(msgspec.Struct, frozen=True):
    """Where an honest node listens (multiaddr without peer id), its peer id, and its topic."""

    transport: str
    peer: str
    topic: str

    @property
    def socket(self) -> tuple[str, int]:
        """The host and port of its TCP listener."""
        parts = self.transport.split("/")
        return parts[2], int(parts[4])


class Facts(msgspec.Struct, frozen=True):
    """What everybody in the swarm knows: the current round, and the digest of a body that is served."""

    round: int
    body: str


def read_facts(path: Path) -> Facts:
    """Return the facts in a file."""
    return msgspec.json.decode(path.read_bytes(), type=Facts)


def write_facts(path: Path, facts: Facts) -> None:
    """Replace the file of facts."""
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(msgspec.to_builtins(facts)))
    fresh.replace(path)


class RefusedError(Exception):
    """The victim did not take the connection, or did not speak GossipSub over it."""


class Stranger:
    """A connected attacker."""

    def __init__(self, host: Host, topic: Topic | None, victim: Victim) -> None:
        self.host, self.topic, self.victim = host, topic, victim

    @property
    def alive(self) -> bool:
        """Whether the victim still holds the connection."""
        return self.victim.peer in self.host.connected()

    @property
    def muxed(self) -> Any:
        """The library's yamux connection to the victim. Raises `RefusedError` where it is gone."""
        found = self.host.inner.get_network().get_connections(ID.from_string(self.victim.peer))
        if not found:
            raise RefusedError
        return found[0].muxed_conn

    async def frame(self, kind: int, flags: int, stream: int, length: int, data: bytes = b"") -> None:
        """Write one yamux frame: type, flags, stream id, length or window, data."""
        await self.muxed._write_frame(struct.pack("!BBHII", 0, kind, flags, stream, length) + data)

    async def rpc(self, rpc: rpc_pb2.RPC) -> int:
        """Write an RPC on the GossipSub stream; return its size in bytes."""
        assert self.topic is not None
        data = encode_varint_prefixed(rpc.SerializeToString())
        for stream in self.topic.pubsub.peers.values():
            await stream.write(data)
        return len(data)


@asynccontextmanager
async def stranger(victim: Victim, key: NodeKey | None = None, *, subscribed: bool = True) -> AsyncIterator[Stranger]:
    """Connect to a victim under a new peer id (or the given key's), and join its topic.

    Raises `RefusedError` where it does not take the connection.
    """
    topics = {victim.topic: TopicSettings(1 << 22, lambda *_: MessageAcceptance.IGNORE)}
    async with AsyncExitStack() as stack:
        host = await stack.enter_async_context(open_host(key or new_key(), (), ROOM))
        joined = await stack.enter_async_context(join(host, topics)) if subscribed else {}
        if not await host.connect(victim.transport, victim.peer):
            raise RefusedError
        topic = joined.get(victim.topic)
        if topic is not None:
            await _until_it_speaks(topic, victim.peer)
        yield Stranger(host, topic, victim)


async def _until_it_speaks(topic: Topic, peer: str) -> None:
    with trio.move_on_after(10):
        while peer not in topic.subscribers():  # noqa: ASYNC110 - the library has no event for it
            await trio.sleep(0.02)
        return
    raise RefusedError
