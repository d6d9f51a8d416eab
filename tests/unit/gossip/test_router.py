"""Whom the router keeps in its mesh and whom it tells of messages, without a network."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import msgspec
import pytest
from libp2p.peer.id import ID
from libp2p.pubsub.gossipsub import PROTOCOL_ID_V12
from libp2p.pubsub.pb import rpc_pb2

from node.gossip.hardened import CHOSEN_IN_MESH
from node.gossip.mesh import _router
from node.identity import new_key

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
    router: Any = _router()
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
    assert len(router.mesh[TOPIC] & set(ids[20:])) >= CHOSEN_IN_MESH


def test_a_mesh_of_strangers_gets_some_dialled_peers(crowded: tuple[Any, list[ID]]) -> None:
    """A mesh that others have filled is extended by dialled peers, once, and not beyond."""
    router, ids = crowded
    router.mesh[TOPIC] = set(ids[:8])
    grafted, _ = router.mesh_heartbeat()
    assert len(grafted) == CHOSEN_IN_MESH
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
