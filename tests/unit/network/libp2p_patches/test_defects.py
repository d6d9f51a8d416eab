"""The defects of the library, each without its repair. Where such a test fails, the library has mended it: the row of
the register, and the repair, may go."""

from __future__ import annotations

import inspect
import logging
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from Crypto.PublicKey import RSA
from google.protobuf.message import DecodeError
from libp2p import new_host
from libp2p.crypto.keys import KeyType
from libp2p.crypto.pb import crypto_pb2
from libp2p.crypto.secp256k1 import create_new_key_pair
from libp2p.host.basic_host import BasicHost
from libp2p.network.connection_gate import ConnectionGate
from libp2p.peer.envelope import seal_record
from libp2p.peer.id import ID
from libp2p.peer.peer_record import PeerRecord
from libp2p.peer.peerstore import PeerStore
from libp2p.pubsub.gossipsub import PROTOCOL_ID_V12, GossipSub
from libp2p.pubsub.pb import rpc_pb2
from libp2p.pubsub.pubsub import Pubsub
from libp2p.pubsub.rpc_queue import RpcQueue
from libp2p.tools.anyio_service import Service, background_trio_service
from libp2p.tools.timed_cache.last_seen_cache import LastSeenCache
from libp2p.utils.varint import encode_varint_prefixed
from multiaddr import Multiaddr

from node.identity import new_key
from node.network.libp2p_patches.repairs import REPAIRS, USED, Repair
from node.network.libp2p_patches.tasks import isolate_tasks
from node.network.libp2p_patches.yamux import update_window, write_whole_frame
from node.network.pubsub.router import new_router
from tests.unit.network.libp2p_patches.pristine import pristine, references
from tests.unit.network.pubsub.test_router import Connection, Peers, Stream

TOPIC = "t"
SHOWN: set[tuple[str, str]] = set()
UNSHOWN = {("libp2p.pubsub.pubsub:Pubsub", "run"): "a hook for `isolate_tasks`: the defect is that of `run_task`"}
"""Repairs whose defect no test here shows, and why."""
PARAMETERS: dict[str, Any] = {
    "protocols": [PROTOCOL_ID_V12], "degree": 6, "degree_low": 4, "degree_high": 12, "heartbeat_interval": 1,
    "adaptive_gossip_enabled": False, "spam_protection_enabled": False, "eclipse_protection_enabled": False,
}  # fmt: skip

TestT = Callable[..., Any]


def shows(target: str, *names: str) -> Callable[[TestT], TestT]:
    """Note which rows of the register a test is about."""
    SHOWN.update((target, name) for name in names)
    return lambda test: test


def test_nearly_every_defect_is_shown() -> None:
    """Each repair has a test here or a reason why not; at least four fifths have a test."""
    repairs = {(each.target, each.name) for each in REPAIRS if each not in USED}
    assert SHOWN | set(UNSHOWN) == repairs
    assert len(SHOWN) >= 0.8 * len(repairs)


def row(target: str, name: str) -> Repair:
    return next(each for each in REPAIRS if (each.target, each.name) == (target, name))


# --- yamux ------------------------------------------------------------------------------------------------------------

YAMUX = "libp2p.stream_muxer.yamux.yamux"


class Encrypting:
    """A secure connection whose frames have a number, as noise gives them, and leave after a pause."""

    def __init__(self) -> None:
        self.encrypted, self.sent = 0, 0

    async def write(self, data: bytes) -> None:
        self.encrypted += 1
        await trio.sleep(1.0)
        self.sent += 1


@shows(f"{YAMUX}:Yamux", "_write_frame")
async def test_a_cancelled_writer_loses_an_encrypted_frame(autojump_clock: object) -> None:
    """The library counts it as encrypted and does not send it; repaired, it leaves."""
    lost = []
    for write_frame in (pristine(YAMUX).Yamux._write_frame, write_whole_frame):
        secured = Encrypting()
        muxer = SimpleNamespace(_write_lock=trio.Lock(), secured_conn=secured, is_initiator_value=True)
        with trio.move_on_after(0.5):
            await write_frame(muxer, bytes(20))
        lost.append(secured.encrypted - secured.sent)
    assert lost == [1, 0]


@shows(f"{YAMUX}:YamuxStream", "_auto_tune_and_send_window_update")
async def test_every_small_read_sends_a_window_update() -> None:
    """A hundred reads of a hundred bytes cost a hundred frames; repaired, none."""
    costs = []
    for repaired in (False, True):
        frames: list[bytes] = []

        async def write(frame: bytes, to: list[bytes] = frames) -> None:
            to.append(frame)

        connection = SimpleNamespace(stream_buffers={1: bytearray()}, _write_frame=write, rtt=lambda: 0.0)
        stream = pristine(YAMUX).YamuxStream(1, connection, True)
        for _ in range(100):
            stream.recv_window -= 100
            await (update_window(stream, bytes_read=100) if repaired else
                   stream._auto_tune_and_send_window_update(bytes_read=100))  # fmt: skip
        costs.append(len(frames))
    assert costs == [100, 0]


# --- functions of modules ---------------------------------------------------------------------------------------------

HERE, THERE = [Multiaddr(f"/ip4/1.1.1.1/tcp/{port}") for port in (1, 2)]


def record_of(keys: Any, sequence: int) -> Any:
    return seal_record(PeerRecord(ID.from_pubkey(keys.public_key), [HERE], sequence), keys.private_key)


@shows("libp2p.pubsub.pubsub", "maybe_consume_signed_record")
@shows("libp2p.pubsub.gossipsub", "maybe_consume_signed_record")
@pytest.mark.parametrize("module", ["pubsub", "gossipsub"])
def test_an_rpc_with_an_older_record_is_dropped(module: str) -> None:
    """Where a newer record is known, the library refuses the RPC that brings an older one."""
    keys, store = create_new_key_pair(), PeerStore()
    host: Any = SimpleNamespace(get_peerstore=lambda: store)
    assert store.consume_peer_record(record_of(keys, 2), 7200)
    rpc = rpc_pb2.RPC(senderRecord=record_of(keys, 1).marshal_envelope())
    take = pristine(f"libp2p.pubsub.{module}").maybe_consume_signed_record
    assert not take(rpc, host, ID.from_pubkey(keys.public_key))
    assert row(f"libp2p.pubsub.{module}", "maybe_consume_signed_record").replacement(rpc, host, None)


@shows("libp2p.pubsub.pubsub", "env_to_send_in_RPC")
@shows("libp2p.pubsub.gossipsub", "env_to_send_in_RPC")
@pytest.mark.parametrize("module", ["pubsub", "gossipsub"])
async def test_every_rpc_asks_for_all_addresses(module: str) -> None:
    """Ten RPCs cost the library ten looks at all listen addresses; repaired, one."""
    costs = []
    for build in (
        pristine(f"libp2p.pubsub.{module}").env_to_send_in_RPC,
        row(f"libp2p.pubsub.{module}", "env_to_send_in_RPC").replacement,
    ):
        host: Any = new_host(key_pair=create_new_key_pair())
        build(host)
        asked: list[int] = []
        found = host.get_addrs
        host.get_addrs = lambda found=found, asked=asked: asked.append(1) or found()
        for _ in range(10):
            build(host)
        costs.append(len(asked))
    assert costs == [10, 0]


@shows("libp2p.crypto.serialization", "key_type_to_public_key_deserializer")
def test_an_rsa_key_may_have_any_exponent() -> None:
    """The library takes a key whose exponent has 2,000 bits; the repaired table does not."""
    modulus = int.from_bytes(RSA.generate(2048).n.to_bytes(256, "big"), "big")
    key = RSA.construct((modulus, (1 << 2000) + 1), consistency_check=False).export_key("DER")
    module = pristine("libp2p.crypto.serialization")
    wire = crypto_pb2.PublicKey(key_type=KeyType.RSA.value, data=key).SerializeToString()
    assert module.deserialize_public_key(wire).impl.e.bit_length() == 2001
    repaired = row("libp2p.crypto.serialization", "key_type_to_public_key_deserializer").replacement
    with pytest.raises(ValueError, match="an RSA key of"):
        repaired[KeyType.RSA.value](key)


@shows("libp2p.network.connection.swarm_connection", "logging")
def test_a_connection_installs_a_handler_on_the_root_logger() -> None:
    """In a process of its own: pytest has handlers there already."""
    program = """
import logging, types
from libp2p.network.connection.swarm_connection import SwarmConn
before = list(logging.getLogger().handlers)
import trio
async def main(): SwarmConn(types.SimpleNamespace(peer_id="x"), types.SimpleNamespace())
trio.run(main)
print(len(before), len(logging.getLogger().handlers))
"""
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["0", "1"]
    assert pristine("libp2p.network.connection.swarm_connection").logging is logging


# --- tasks ------------------------------------------------------------------------------------------------------------


async def fails(*_: object) -> None:
    raise RuntimeError("one peer's task")


class OneBadTask(Service):
    """A service, one of whose tasks fails, isolated or not."""

    def __init__(self, isolated: bool) -> None:
        self.isolated, self.went_on = isolated, False

    async def run(self) -> None:
        if self.isolated:
            isolate_tasks(self.manager)
        self.manager.run_task(fails)
        await trio.sleep(1.0)
        self.went_on = True


@shows("libp2p.tools.anyio_service.trio_manager:TrioManager", "run_task")
async def test_one_task_ends_the_service(autojump_clock: object) -> None:
    """The library cancels the whole service; isolated, it goes on."""
    bad, good = OneBadTask(False), OneBadTask(True)
    with pytest.raises(BaseExceptionGroup):
        async with background_trio_service(bad):
            await trio.sleep(2.0)
    async with background_trio_service(good):
        await trio.sleep(2.0)
    assert (bad.went_on, good.went_on) == (False, True)


@shows("libp2p.host.basic_host:BasicHost", "_swarm_stream_handler")
async def test_a_handler_raises_into_its_connection() -> None:
    """Nothing in the library catches what a stream's handler raises."""

    async def negotiate(*_: object) -> tuple[str, Any]:
        return "/x/1", fails

    host: Any = SimpleNamespace(
        negotiate_timeout=1, _network=SimpleNamespace(), multiselect=SimpleNamespace(negotiate=negotiate)
    )
    stream: Any = SimpleNamespace(set_protocol=lambda protocol: None)
    with pytest.raises(RuntimeError, match="one peer's task"):
        await BasicHost._swarm_stream_handler(host, stream)


@shows("libp2p.host.basic_host:BasicHost", "_identify_task_entry")
def test_a_failed_identify_ends_the_process() -> None:
    """It is a system task of trio: what it raises ends the run."""

    async def main() -> None:
        host: Any = SimpleNamespace(
            get_id=lambda: "me", _identify_inflight=set(), _identify_tasks=set(), _identify_peer=fails_to_identify,
            _has_cached_protocols=lambda peer: False, _should_identify_peer=lambda peer: True,
        )  # fmt: skip
        host._identify_task_entry = lambda peer, reason: BasicHost._identify_task_entry(host, peer, reason)
        BasicHost._schedule_identify(host, ID(b"peer"), reason="test")
        await trio.sleep(0.1)

    async def fails_to_identify(*_: object, reason: str) -> None:
        raise RuntimeError(reason)

    with pytest.raises(trio.TrioInternalError):
        trio.run(main)


@shows("libp2p.network.swarm:Swarm", "_handle_inbound_connection")
async def test_the_gate_bans_dials_too() -> None:
    """The gate learns an address and nothing else: denying who comes from it, it denies dialling it."""
    gate = ConnectionGate(deny_list=["1.1.1.1"])
    assert not await gate.is_allowed(HERE)
    assert list(inspect.signature(gate.is_allowed).parameters) == ["remote_addr"]
    assert references("libp2p.network.swarm", "is_allowed") == 2, "of inbound connections, and of addresses to dial"


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
