"""The defects of the library, each without its repair. Where such a test fails, the library has mended it: the row of
the register, and the repair, may go."""

from __future__ import annotations

import inspect
import logging
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from Crypto.PublicKey import RSA
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
from libp2p.pubsub.pb import rpc_pb2
from libp2p.tools.anyio_service import Service, background_trio_service
from multiaddr import Multiaddr

from node.network.libp2p_patches.tasks import isolate_tasks
from node.network.libp2p_patches.yamux import update_window, write_whole_frame
from tests.support.libp2p_defects import row, shows
from tests.unit.network.libp2p_patches.pristine import pristine, references

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
@shows("libp2p.transport.upgrader:TransportUpgrader", "upgrade_security")
async def test_the_gate_bans_dials_too() -> None:
    """The gate learns an address and no peer id: denying who comes from it, it denies dialling it."""
    gate = ConnectionGate(deny_list=["1.1.1.1"])
    assert not await gate.is_allowed(HERE)
    assert list(inspect.signature(gate.is_allowed).parameters) == ["remote_addr"]
    assert references("libp2p.network.swarm", "is_allowed") == 2, "of inbound connections, and of addresses to dial"
