"""Attacks on GossipSub: control messages, peer exchange, and announcements of registered keys."""

from __future__ import annotations

import os
from contextlib import AsyncExitStack, suppress

import trio
from libp2p.peer.peerstore import create_signed_peer_record
from libp2p.pubsub.pb import rpc_pb2
from libp2p.pubsub.validators import PUBSUB_SIGNING_PREFIX
from multiaddr import Multiaddr

from node.identity import NodeKey, new_key
from node.network.host import open_host
from node.network.pubsub.router import FRAME_LIMIT
from protocols.identifiers import body_digest
from protocols.wire import Announcement, Envelope, encode, signing_hash
from tests.integration.gossip_processes import SWARM, peer_key, seed
from tests.redteam.network.attacks import Attack, Battlefield, again_and_again
from tests.redteam.network.stranger import ROOM, Stranger, read_facts, stranger

REGISTERED = range(101, 251)
"""Numbers of the registered keys that attackers own (`gossip_processes.peer_key`)."""
RINGLEADERS = 35
"""Keys whose pairs of bodies are told to each honest node in another way."""
PAUSE = 0.2


async def made_up_prunes(field: Battlefield) -> None:
    """PRUNE for topics that nobody knows: a router that keeps a back-off for each fills its memory."""

    async def prune(peer: Stranger, turn: int) -> None:
        rpc = rpc_pb2.RPC()
        for k in range(20_000):
            rpc.control.prune.add(topicID=f"{turn:x}.{k:x}")
        field.done["bytes"] += await peer.rpc(rpc)
        await trio.sleep(PAUSE)

    await again_and_again(field, prune)


async def made_up_ihaves(field: Battlefield) -> None:
    """IHAVE of ids that do not exist, each under a topic of its own, then all under the swarm's."""

    async def ihave(peer: Stranger, turn: int) -> None:
        rpc = rpc_pb2.RPC()
        for k in range(2_000):
            name = peer.victim.topic if turn % 2 else f"{turn:x}.{k:x}"
            rpc.control.ihave.add(topicID=name, messageIDs=[os.urandom(20) for _ in range(20)])
        field.done["bytes"] += await peer.rpc(rpc)
        await trio.sleep(PAUSE)

    await again_and_again(field, ihave)


async def endless_iwants(field: Battlefield) -> None:
    """IWANT of thousands of ids a frame, and IDONTWANT of as many."""

    async def iwant(peer: Stranger, _: int) -> None:
        rpc = rpc_pb2.RPC()
        rpc.control.iwant.add(messageIDs=[os.urandom(20) for _ in range(8_000)])
        rpc.control.idontwant.add(messageIDs=[os.urandom(20) for _ in range(8_000)])
        field.done["bytes"] += await peer.rpc(rpc)
        await trio.sleep(PAUSE)

    await again_and_again(field, iwant)


async def grafts_and_prunes(field: Battlefield) -> None:
    """GRAFT and PRUNE of the swarm's topic in turn, a thousand of each in a frame."""

    async def churn(peer: Stranger, _: int) -> None:
        rpc = rpc_pb2.RPC()
        for _ in range(1_000):
            rpc.control.graft.add(topicID=peer.victim.topic)
            rpc.control.prune.add(topicID=peer.victim.topic, backoff=1)
        field.done["bytes"] += await peer.rpc(rpc)
        await trio.sleep(PAUSE / 4)

    await again_and_again(field, churn)


async def subscriptions(field: Battlefield) -> None:
    """Subscribe to thousands of topics that nobody has, and leave and join the swarm's."""

    async def subscribe(peer: Stranger, turn: int) -> None:
        rpc = rpc_pb2.RPC()
        for k in range(5_000):
            rpc.subscriptions.add(subscribe=True, topicid=f"{turn:x}.{k:x}")
        for k in range(500):
            rpc.subscriptions.add(subscribe=bool(k % 2), topicid=peer.victim.topic)
        field.done["bytes"] += await peer.rpc(rpc)
        await trio.sleep(PAUSE)

    await again_and_again(field, subscribe)


async def large_frames(field: Battlefield) -> None:
    """Frames just below the limit, and frames that claim more."""

    async def send(peer: Stranger, turn: int) -> None:
        assert peer.topic is not None
        if turn % 5 == 0:
            for stream in peer.topic.pubsub.peers.values():
                await stream.write(b"\xff\xff\xff\xff\x7f" + os.urandom(1 << 16))
        rpc = rpc_pb2.RPC(publish=[rpc_pb2.Message(data=os.urandom(FRAME_LIMIT - 1024), topicIDs=["x"])])
        field.done["bytes"] += await peer.rpc(rpc)

    await again_and_again(field, send)


async def peer_exchange(field: Battlefield) -> None:
    """Name hosts and a bare port in PRUNE and count who comes: nobody may."""
    async with AsyncExitStack() as stack, trio.open_nursery() as nursery:
        others = [await stack.enter_async_context(open_host(new_key(), (), ROOM)) for _ in range(3)]
        for other in others:
            await other.listen(("/ip4/127.0.0.1/tcp/0",))

        async def knocked(stream: trio.SocketStream) -> None:
            field.done["knocks"] += 1
            await stream.aclose()

        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, knocked, [listener])
        bare = Multiaddr(f"/ip4/127.0.0.1/tcp/{listener.socket.getsockname()[1]}")
        records = [_record(other, other.inner.get_transport_addrs()) for other in others]
        records.append(_record(others[0], [bare]))

        async def prune(peer: Stranger, _: int) -> None:
            rpc = rpc_pb2.RPC()
            for topic in ("x", peer.victim.topic):
                told = rpc.control.prune.add(topicID=topic)
                for peer_id, record in records:
                    told.peers.add(peerID=peer_id, signedPeerRecord=record)
            await peer.rpc(rpc)
            field.done["dialled"] = max(
                field.done["dialled"], sum(peer.victim.peer in other.connected() for other in others)
            )
            await trio.sleep(PAUSE)

        await again_and_again(field, prune)


def _record(host: object, addresses: list[Multiaddr]) -> tuple[bytes, bytes]:
    inner = host.inner  # type: ignore[attr-defined]
    envelope = create_signed_peer_record(inner.get_id(), addresses, inner.get_private_key())
    return inner.get_id().to_bytes(), envelope.marshal_envelope()


# --- announcements of registered keys ---------------------------------------------------------------------------------


async def two_bodies_for_a_slot(field: Battlefield) -> None:
    """Tell each honest node two bodies of its own for every slot of some keys: what one passes on, others drop."""
    async with AsyncExitStack() as stack:
        peers = [await stack.enter_async_context(stranger(victim)) for victim in field.victims]
        told = 0
        while True:
            if (number := read_facts(field.facts).round) != told:
                told = number
                async with trio.open_nursery() as nursery:
                    for which, peer in enumerate(peers):
                        nursery.start_soon(_tell, field, peer, _pairs(which, number))
            await trio.sleep(PAUSE)


async def valid_announcements(field: Battlefield) -> None:
    """Tell one honest node everything that all the keys may say, so that its neighbours hear it from that node."""
    async with AsyncExitStack() as stack:
        peers = [await stack.enter_async_context(stranger(field.victim)) for _ in range(4)]
        told = 0
        while True:
            if (number := read_facts(field.facts).round) != told:
                told = number
                every = [one for key in REGISTERED for one in _slots(peer_key(key), number, b"x")]
                async with trio.open_nursery() as nursery:
                    for which, peer in enumerate(peers):
                        nursery.start_soon(_tell, field, peer, every[which :: len(peers)])
            await trio.sleep(PAUSE)


def _pairs(which: int, number: int) -> list[bytes]:
    keys = [peer_key(key) for key in REGISTERED[:RINGLEADERS]]
    return [one for key in keys for body in (0, 1) for one in _slots(key, number, bytes([which, body]))]


def _slots(key: NodeKey, number: int, body: bytes) -> list[bytes]:
    """Return a key's announcements of one body for both stages of two rounds."""
    made = []
    for round_number in (number - 1, number):
        for stage in (0, 1):
            told = Announcement(1, SWARM, round_number, stage, seed(round_number), body_digest(body), len(body), body)
            payload = encode(told)
            made.append(encode(Envelope(payload, key.sign(signing_hash(payload)))))
    return made


async def _tell(field: Battlefield, peer: Stranger, every: list[bytes]) -> None:
    with suppress(Exception):  # whoever is cut off says nothing more in this round
        for at in range(0, len(every), 20):
            rpc = rpc_pb2.RPC(publish=[_message(peer, data) for data in every[at : at + 20]])
            await peer.rpc(rpc)
            field.done["announcements"] += len(rpc.publish)
            await trio.sleep(PAUSE / 2)


def _message(peer: Stranger, data: bytes) -> rpc_pb2.Message:
    assert peer.topic is not None
    pubsub = peer.topic.pubsub
    message = rpc_pb2.Message(
        from_id=pubsub.my_id.to_bytes(), data=data, topicIDs=[peer.victim.topic], seqno=os.urandom(8)
    )
    assert pubsub.sign_key is not None
    message.signature = pubsub.sign_key.sign(PUBSUB_SIGNING_PREFIX.encode() + message.SerializeToString())
    message.key = pubsub.host.get_public_key().serialize()
    return message


ATTACKS: tuple[Attack, ...] = (
    made_up_prunes,
    made_up_ihaves,
    endless_iwants,
    grafts_and_prunes,
    subscriptions,
    large_frames,
    peer_exchange,
    two_bodies_for_a_slot,
    valid_announcements,
)
