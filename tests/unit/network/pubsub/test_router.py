"""Whom the router keeps in its mesh and whom it tells of messages, without a network."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import msgspec
import pytest
from libp2p.peer.id import ID
from libp2p.pubsub.gossipsub import PROTOCOL_ID_V12
from libp2p.pubsub.pb import rpc_pb2
from libp2p.pubsub.rpc_queue import RpcQueue

from node.identity import new_key
from node.network.pubsub.pubsub import OUTBOUND_QUEUE_SIZE
from node.network.pubsub.router import FRAME_LIMIT, MIN_OUTBOUND_IN_MESH, new_router

TOPIC = "t"


class Connection(msgspec.Struct):
    """Where a connection leads and who dialled."""

    address: str
    is_initiator: bool

    def get_remote_address(self) -> tuple[str, int]:
        """Return the address as the library does."""
        return self.address, 1


class Stream(msgspec.Struct):
    """The part of an outbound stream that the router looks at."""

    muxed_conn: Connection


class Peers(msgspec.Struct):
    """The part of Pubsub that the router looks at."""

    peers: dict[Any, Stream]
    peer_topics: dict[str, set[Any]]


def router_among(connections: list[Connection]) -> tuple[Any, list[ID]]:
    """Return a router with peers behind these connections, all in the topic and none in the mesh."""
    router: Any = new_router()
    ids = [ID.from_string(new_key().peer_id) for _ in connections]
    router.pubsub = Peers(dict(zip(ids, map(Stream, connections), strict=True)), {TOPIC: set(ids)})
    router.peer_protocol = dict.fromkeys(ids, PROTOCOL_ID_V12)
    router.mesh = {TOPIC: set()}
    return router, ids


@pytest.fixture(name="crowded")
def _crowded() -> tuple[Any, list[ID]]:
    """Twenty that came in from one address, then four that this node has dialled."""
    return router_among([Connection("1.1.1.1", False)] * 20 + [Connection(f"2.2.2.{at}", True) for at in range(4)])


def test_a_crowd_does_not_prune_the_others_away(crowded: tuple[Any, list[ID]]) -> None:
    """However many graft themselves in, those that this node has dialled stay, and the mesh shrinks to its degree."""
    router, ids = crowded
    router.mesh[TOPIC] = set(ids)
    router.mesh_heartbeat()
    assert len(router.mesh[TOPIC]) == router.degree
    assert len(router.mesh[TOPIC] & set(ids[20:])) >= MIN_OUTBOUND_IN_MESH


def test_a_mesh_of_strangers_gets_some_dialled_peers(crowded: tuple[Any, list[ID]]) -> None:
    """A mesh that others have filled is extended by dialled peers, once, and not beyond."""
    router, ids = crowded
    router.mesh[TOPIC] = set(ids[:8])
    grafted, _ = router.mesh_heartbeat()
    assert len(grafted) == MIN_OUTBOUND_IN_MESH
    assert set(grafted) <= set(ids[20:])
    assert router.mesh_heartbeat() == (defaultdict(list), defaultdict(list))


def test_whom_the_mesh_has_lost_is_told_of_messages(crowded: tuple[Any, list[ID]]) -> None:
    """A peer in back-off is told what there is: it gets it in no other way."""
    router, ids = crowded
    lost = ids[20]
    router.mesh[TOPIC] = set(ids) - {lost}
    router._add_back_off(lost, TOPIC, False)
    router.mcache.put(rpc_pb2.Message(from_id=b"a", seqno=b"1", data=b"x", topicIDs=[TOPIC]))
    assert list(router.gossip_heartbeat()) == [lost]


class Outbox(msgspec.Struct):
    """The part of Pubsub that sends."""

    peer_queues: dict[Any, RpcQueue]


@pytest.fixture(name="asked")
def _asked() -> tuple[Any, ID, RpcQueue]:
    """A router with forty messages of 60,000 bytes, one peer, and what is queued for it."""
    router: Any = new_router()
    peer, queue = (
        ID.from_string(new_key().peer_id),
        RpcQueue(max_size=OUTBOUND_QUEUE_SIZE, max_message_size=FRAME_LIMIT),
    )
    router.pubsub = Outbox({peer: queue})
    for at in range(40):
        router.mcache.put(rpc_pb2.Message(from_id=b"\xff", seqno=bytes([at]), data=bytes(60_000), topicIDs=[TOPIC]))
    return router, peer, queue


def wants(*ids: bytes) -> rpc_pb2.RPC:
    rpc = rpc_pb2.RPC()
    rpc.control.iwant.add().messageIDs.extend(ids)
    return rpc


def sent(queue: RpcQueue) -> list[bytes]:
    """Return the ids of the messages that are queued, and empty the queue."""
    found: list[bytes] = []
    while (rpc := queue._queue.pop()) is not None:
        found += [each.from_id + each.seqno for each in rpc.publish]
    return found


async def test_a_message_is_sent_once_however_often_its_id_stands_there(asked: tuple[Any, ID, RpcQueue]) -> None:
    """Nor does another spelling of the id bring another copy."""
    router, peer, queue = asked
    await router.handle_rpc(wants(*[b"\xff\1", b"ff01", b"FF01", b"Ff01"] * 1000), peer)
    assert sent(queue) == [b"\xff\1"]


async def test_a_message_is_sent_to_a_peer_three_times_at_most(asked: tuple[Any, ID, RpcQueue]) -> None:
    """After that it has it, or will not take it; when the message is forgotten, so is the count."""
    router, peer, queue = asked
    for _ in range(5):
        await router.handle_rpc(wants(b"\xff\1"), peer)
    assert sent(queue) == [b"\xff\1"] * 3
    router._periodic_security_cleanup()
    await router.handle_rpc(wants(b"\xff\1", b"\xff\2"), peer)
    assert sent(queue) == [b"\xff\2"]
    for _ in range(6):
        router.mcache.shift()
    router._periodic_security_cleanup()
    assert not router._iwant_limit._sent


async def test_one_request_brings_at_most_one_frame(asked: tuple[Any, ID, RpcQueue]) -> None:
    """Who wants all that there is gets as much as fits; the rest it may want again."""
    router, peer, queue = asked
    ids = [b"\xff" + bytes([at]) for at in range(40)]
    await router.handle_rpc(wants(*ids), peer)
    first = sent(queue)
    assert 0 < len(first) * 60_000 <= FRAME_LIMIT
    await router.handle_rpc(wants(*ids[len(first) :]), peer)
    assert sent(queue)
