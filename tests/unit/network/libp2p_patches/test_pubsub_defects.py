"""The defects of the library's Pubsub and GossipSub, each without its repair; and that nearly all are shown."""

from __future__ import annotations

from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from google.protobuf.message import DecodeError
from libp2p import new_host
from libp2p.crypto.secp256k1 import create_new_key_pair
from libp2p.peer.id import ID
from libp2p.pubsub.gossipsub import PROTOCOL_ID_V12, GossipSub
from libp2p.pubsub.pb import rpc_pb2
from libp2p.pubsub.pubsub import Pubsub
from libp2p.pubsub.rpc_queue import RpcQueue
from libp2p.tools.timed_cache.last_seen_cache import LastSeenCache
from libp2p.utils.varint import encode_varint_prefixed

from node.identity import new_key
from node.network.libp2p_patches.repairs import REPAIRS, USED
from node.network.pubsub.router import new_router
from tests.support.libp2p_defects import SHOWN, shows
from tests.unit.network.libp2p_patches.pristine import pristine
from tests.unit.network.libp2p_patches.test_connection_defects import YAMUX
from tests.unit.network.libp2p_patches.test_defects import fails
from tests.unit.network.pubsub.test_router import Connection, Peers, Stream

TOPIC = "t"
UNSHOWN = {("libp2p.pubsub.pubsub:Pubsub", "run"): "a hook for `isolate_tasks`: the defect is that of `run_task`"}
"""Repairs whose defect no test here shows, and why."""
PARAMETERS: dict[str, Any] = {
    "protocols": [PROTOCOL_ID_V12], "degree": 6, "degree_low": 4, "degree_high": 12, "heartbeat_interval": 1,
    "adaptive_gossip_enabled": False, "spam_protection_enabled": False, "eclipse_protection_enabled": False,
}  # fmt: skip


def test_nearly_every_defect_is_shown() -> None:
    """Each repair has a test in one of the files of defects, or a reason why not; at least four fifths have a test."""
    repairs = {(each.target, each.name) for each in REPAIRS if each not in USED}
    assert SHOWN | set(UNSHOWN) == repairs
    assert len(SHOWN) >= 0.8 * len(repairs)


# --- pubsub -----------------------------------------------------------------------------------------------------------


@shows("libp2p.pubsub.pubsub:Pubsub", "seen_messages")
def test_seen_messages_have_no_bound() -> None:
    """A hundred thousand ids within the time are a hundred thousand entries, and a thread waits beside them."""
    cache = LastSeenCache(120, 60)
    try:
        for number in range(100_000):
            cache.add(number.to_bytes(4, "big"))
        assert cache.length() == 100_000
        assert cache._thread.is_alive()
    finally:
        cache._stop_event.set()


@shows("libp2p.pubsub.pubsub:Pubsub", "peer_queues")
def test_a_peers_queue_has_32_places() -> None:
    """The 33rd RPC is refused, however small they are; Pubsub gives no size."""
    queue = RpcQueue()
    assert [queue.push(rpc_pb2.RPC()) for _ in range(33)] == [True] * 32 + [False]


def plain_pubsub() -> Any:
    """Return the library's Pubsub on a host that does not run, with a manager that runs nothing."""
    pubsub: Any = Pubsub(new_host(key_pair=create_new_key_pair()), GossipSub(**PARAMETERS))
    pubsub.seen_messages._stop_event.set()
    pubsub._manager = SimpleNamespace(is_running=True, run_task=lambda *_: None)
    return pubsub


@shows("libp2p.pubsub.pubsub:Pubsub", "_handle_new_peer")
async def test_a_peer_with_a_dead_stream_is_skipped() -> None:
    """Its connection is gone, and still no new stream is opened."""
    pubsub, peer = plain_pubsub(), ID.from_string(new_key().peer_id)
    gone = trio.Event()
    gone.set()
    dead = pubsub.peers[peer] = SimpleNamespace(muxed_conn=SimpleNamespace(event_shutting_down=gone))
    pubsub.host.new_stream = fails
    await pubsub._handle_new_peer(peer)
    assert pubsub.peers[peer] is dead


@shows("libp2p.pubsub.pubsub:Pubsub", "write_msg")
async def test_two_writers_interleave() -> None:
    """Two RPCs of more than one frame, written at a time, leave as frames of both in turn."""
    frames: list[int] = []

    async def write(frame: bytes) -> None:
        frames.append(frame[-1])
        await trio.lowlevel.checkpoint()

    stream = pristine(YAMUX).YamuxStream(1, SimpleNamespace(_write_frame=write), True)
    async with trio.open_nursery() as nursery:
        for letter in (b"a", b"b"):
            rpc = rpc_pb2.RPC(publish=[rpc_pb2.Message(topicIDs=[letter.decode() * 120_000])])
            nursery.start_soon(plain_pubsub().write_msg, stream, rpc)
    assert frames not in ([*b"aabb"], [*b"bbaa"])


class Frames:
    """A stream that gives some bytes, then ends."""

    muxed_conn = SimpleNamespace(peer_id=ID.from_string(new_key().peer_id))
    metric_send_channel = None

    def __init__(self, data: bytes) -> None:
        self.data = data

    async def read(self, n: int) -> bytes:
        part, self.data = self.data[:n], self.data[n:]
        return part

    async def reset(self) -> None:
        """End it."""


@shows("libp2p.pubsub.pubsub:Pubsub", "stream_handler")
async def test_an_rpc_that_does_not_decode_raises() -> None:
    """The library does not catch what protobuf raises."""
    with pytest.raises(DecodeError):
        await plain_pubsub().stream_handler(Frames(encode_varint_prefixed(b"\xff" * 50)))


@shows("libp2p.pubsub.pubsub:Pubsub", "push_msg")
async def test_a_message_with_a_malformed_key_raises() -> None:
    """What the key's parser raises comes out of the handling of the message."""
    author = b"\x12\x20" + bytes(32)
    bad = rpc_pb2.Message(from_id=author, seqno=b"1", topicIDs=[TOPIC], signature=b"s", key=b"\x08\x63garbage")
    with pytest.raises(DecodeError):
        await plain_pubsub().push_msg(ID.from_string(new_key().peer_id), bad)


# --- the router -------------------------------------------------------------------------------------------------------

ROUTER = "libp2p.pubsub.gossipsub:GossipSub"


def plain_router(connections: list[Connection]) -> tuple[Any, list[ID]]:
    """Return the library's router with peers behind these connections, all in the topic and none in the mesh."""
    router: Any = GossipSub(**PARAMETERS)
    ids = [ID.from_string(new_key().peer_id) for _ in connections]
    router.pubsub = Peers(dict(zip(ids, map(Stream, connections), strict=True)), {TOPIC: set(ids)})
    router.peer_protocol = dict.fromkeys(ids, PROTOCOL_ID_V12)
    router.mesh = {TOPIC: set()}
    return router, ids


def message(data: bytes = b"x") -> rpc_pb2.Message:
    return rpc_pb2.Message(from_id=b"\xff", seqno=b"1", data=data, topicIDs=[TOPIC])


@shows(ROUTER, "handle_iwant")
async def test_a_message_is_sent_as_often_as_it_is_asked_for() -> None:
    """A thousand times the same id in one IWANT are a thousand copies."""
    router, (peer,) = plain_router([Connection("1.1.1.1", False)])
    queue = RpcQueue(max_size=10_000)
    router.pubsub = SimpleNamespace(peer_queues={peer: queue})
    router.mcache.put(message(bytes(100)))
    await router.handle_iwant(rpc_pb2.ControlIWant(messageIDs=[b"ff31"] * 1000), peer)
    copies = 0
    while (rpc := queue._queue.pop()) is not None:
        copies += len(rpc.publish)
    assert copies == 1000


@shows(ROUTER, "gossip_heartbeat")
def test_a_pruned_peer_gets_no_gossip() -> None:
    """In back-off it is told of no message."""
    router, ids = plain_router([Connection(f"1.1.1.{at}", False) for at in range(8)])
    lost = ids[0]
    router.mesh[TOPIC] = set(ids) - {lost}
    router._add_back_off(lost, TOPIC, False)
    router.mcache.put(message())
    assert list(router.gossip_heartbeat()) == []


@shows(ROUTER, "_perform_opportunistic_grafting")
def test_inbound_peers_are_grafted_beyond_the_degree() -> None:
    """A mesh that is large enough gets more peers with every heartbeat, whoever has dialled."""
    router, ids = plain_router([Connection(f"1.1.1.{at}", False) for at in range(20)])
    router.mesh[TOPIC] = set(ids[:8])
    sizes = []
    for _ in range(3):
        router._perform_opportunistic_grafting(TOPIC, defaultdict(list))
        sizes.append(len(router.mesh[TOPIC]))
    assert sizes == [10, 12, 14]


@shows(ROUTER, "_select_peers_for_pruning")
def test_a_crowd_prunes_the_others_away() -> None:
    """Of ten on one address and three on others, the library prunes some of the three: not always the crowd."""
    pruned_alone = 0
    for _ in range(30):
        alone = [Connection(f"2.2.2.{at}", False) for at in range(3)]
        router, ids = plain_router([Connection("1.1.1.1", False)] * 10 + alone)
        router.mesh[TOPIC] = set(ids)
        pruned_alone += len(set(router._select_peers_for_pruning(TOPIC, 7)) & set(ids[10:]))
    assert pruned_alone > 0


@shows(ROUTER, "heartbeat")
async def test_an_exception_ends_the_heartbeat(autojump_clock: object) -> None:
    """The library's heartbeat raises it and is over; ours goes on."""

    class Odd(GossipSub):
        def mesh_heartbeat(self) -> Any:
            raise KeyError("odd peer state")

    with pytest.raises(KeyError):
        await Odd(**PARAMETERS).heartbeat()
    times: list[float] = []

    def odd() -> None:
        times.append(trio.current_time())
        raise KeyError("odd peer state")

    router: Any = new_router()
    router.mesh_heartbeat = odd
    with trio.move_on_after(5.0):
        await router.heartbeat()
    assert len(times) >= 3


@shows(ROUTER, "_check_equivocation")
def test_whole_messages_are_kept() -> None:
    """What is kept for comparison is the message, body and all."""
    router, _ = plain_router([])
    assert router._check_equivocation(message(bytes(60_000)))
    (kept,) = router.equivocation_detection.values()
    assert kept.ByteSize() > 60_000


@shows(ROUTER, "_periodic_security_cleanup")
def test_delivery_times_are_kept_for_ever() -> None:
    """The clean-up leaves them; only adaptive gossip, which is off, would trim them."""
    router, _ = plain_router([])
    router.recent_message_deliveries[TOPIC] += [0.0] * 1000
    router._periodic_security_cleanup()
    assert len(router.recent_message_deliveries[TOPIC]) == 1000


@shows(ROUTER, "_handle_dropped_rpc")
def test_a_full_queue_is_not_reported() -> None:
    """The library drops the RPC and keeps the peer; ours reports it."""
    router, (peer,) = plain_router([Connection("1.1.1.1", False)])
    queue = RpcQueue(max_size=0)
    slow: list[ID] = []
    repaired = new_router()
    repaired.on_queue_full = slow.append
    for each in (router, repaired):
        each.pubsub = SimpleNamespace(peer_queues={peer: queue}, peers={peer: None})
        each.send_rpc(peer, rpc_pb2.RPC(publish=[message()]))
    assert list(router.pubsub.peers) == [peer]
    assert slow == [peer]
