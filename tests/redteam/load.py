"""Attackers that only press: the flood of messages and frames, and the twenty that want to be a node's only peers.

`python -m tests.redteam.load flood|eclipse HOME...`: each directory is a victim's. The flood waits until a file `flood`
stands beside the first of them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path

import msgspec
import structlog
import trio
from libp2p.peer.id import ID
from libp2p.pubsub.pb import rpc_pb2
from libp2p.pubsub.validators import PUBSUB_SIGNING_PREFIX
from libp2p.utils.varint import encode_uvarint

from node.identity import new_key
from node.network.host import Host, open_host
from node.network.pubsub.router import FRAME_LIMIT
from node.network.pubsub.topic import Topic, TopicSettings, join
from protocols.admission import MessageAcceptance
from protocols.deployment import CoordinatorFacts
from protocols.identifiers import body_digest, swarm_id
from protocols.manifest import Limits
from protocols.wire import Announcement, Envelope, announcements_topic, encode, signing_hash
from tests.redteam.hostile_node import speak_from, stand_back

log = structlog.get_logger()

IDENTITIES = 20
NOBODY = new_key()
FLOOD_FROM, ECLIPSE_FROM = "127.0.0.77", "127.0.0.88"


class Victim(msgspec.Struct, frozen=True):
    """Where a node listens, who it is, and the swarm that it plays in."""

    transport: str
    peer: str
    swarm: bytes
    manifest_digest: bytes


async def victim_at(home: Path) -> Victim:
    """Wait until a node listens; return where."""
    while True:
        for line in (home / "log").read_bytes().splitlines() if (home / "log").exists() else ():
            if b'"gossip.started"' in line and (home / "coordinator.json").exists():
                told = msgspec.json.decode(line)
                facts = msgspec.json.decode((home / "coordinator.json").read_bytes(), type=CoordinatorFacts)
                transport = told["addresses"][0].rpartition("/p2p/")[0]
                swarm = swarm_id(facts.chain_id, facts.contract, facts.deployment_block_hash)
                return Victim(transport, told["peer_id"], swarm, facts.manifest_digest)
        await trio.sleep(0.1)


@asynccontextmanager
async def stranger(victim: Victim) -> AsyncIterator[tuple[Host, Topic] | None]:
    """Join the swarm's topic under a fresh peer id, connected to the victim alone; None where that does not accept."""
    name = announcements_topic(victim.swarm, victim.manifest_digest)
    topics = {name: TopicSettings(Limits().announcement, lambda *_: MessageAcceptance.IGNORE)}
    async with open_host(new_key(), (), 64) as host, join(host, topics) as joined:
        yield (host, joined[name]) if await host.connect(victim.transport, victim.peer) else None


# --- flood ------------------------------------------------------------------------------------------------------------


async def flood(victim: Victim) -> None:
    """Press a node without end: each name sends as much as it can, then comes under a new one."""
    for turn in count(1):
        try:
            async with stranger(victim) as joined:
                if joined is None:
                    await trio.sleep(0.1)
                    continue
                with trio.move_on_after(10.0):
                    await (too_large if turn % 3 == 2 else too_many)(*joined, victim)
        except Exception as error:  # noqa: BLE001 - whatever cuts it off, it comes back
            log.info("cut off", turn=turn, by=repr(root(error)))


def root(error: BaseException) -> BaseException:
    """Return the first fault in a group."""
    return root(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error


async def too_many(host: Host, topic: Topic, victim: Victim) -> None:
    """Send well-formed, well-signed announcements of nobody, each another one, past the router, fifty at a time."""
    while not topic.pubsub.peers:  # noqa: ASYNC110 - the library has no event for it
        await trio.sleep(0.05)
    said = Announcement(1, victim.swarm, 0, 0, bytes(32), body_digest(b"x"), 1, b"x")
    while victim.peer in host.connected():
        rpc = rpc_pb2.RPC(publish=[published(topic, said) for _ in range(50)])
        await topic.pubsub.write_msg(next(iter(topic.pubsub.peers.values())), rpc)


def published(topic: Topic, said: Announcement) -> rpc_pb2.Message:
    """Return an announcement under a key that nobody knows, as a message of this host."""
    payload = encode(msgspec.structs.replace(said, seed=os.urandom(32)))
    data = encode(Envelope(payload, NOBODY.sign(signing_hash(payload))))
    me = topic.pubsub.my_id.to_bytes()
    message = rpc_pb2.Message(from_id=me, data=data, topicIDs=[topic.name], seqno=os.urandom(8))
    key = topic.pubsub.host.get_private_key()
    message.signature = key.sign(PUBSUB_SIGNING_PREFIX.encode() + message.SerializeToString())
    message.key = topic.pubsub.host.get_public_key().serialize()
    return message


async def too_large(host: Host, topic: Topic, victim: Victim) -> None:
    """Send a frame above every limit, and requests that promise more."""
    while not topic.pubsub.peers:  # noqa: ASYNC110 - the library has no event for it
        await trio.sleep(0.05)
    stream = next(iter(topic.pubsub.peers.values()))
    await stream.write(encode_uvarint(8 * FRAME_LIMIT))
    for _ in range(8):
        await stream.write(os.urandom(FRAME_LIMIT))


# --- eclipse ----------------------------------------------------------------------------------------------------------


async def crowd(victim: Victim) -> None:
    """Be one of many connections of a node that bring nothing; come back at once when cut."""
    while True:
        async with stranger(victim) as joined:
            while joined and joined[0].inner.get_network().get_connections(ID.from_string(victim.peer)):  # noqa: ASYNC110
                await trio.sleep(0.5)
        await trio.sleep(0.2)


async def press(kind: str, homes: list[Path]) -> None:
    """Find the victims, then press them until killed."""
    victims = [await victim_at(home) for home in homes]
    while kind == "flood" and not (homes[0].parent / "flood").exists():  # noqa: ASYNC110 - a file
        await trio.sleep(0.2)
    async with trio.open_nursery() as nursery:
        for victim in victims:
            for _ in range(IDENTITIES if kind == "eclipse" else 1):
                nursery.start_soon(flood if kind == "flood" else crowd, victim)


def main(kind: str, homes: list[str]) -> None:
    """Press as told, from an address of its own."""
    stand_back()
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    speak_from(FLOOD_FROM if kind == "flood" else ECLIPSE_FROM)
    trio.run(press, kind, [Path(home) for home in homes])


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
