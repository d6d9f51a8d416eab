"""Announcements of a later protocol version: read no further than their version, ignored, and told to the operator."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from node.config import GossipSettings
from node.identity import NodeKey
from node.identity.local_peer import local_peer
from node.network.parameters import NetworkCallbacks, SwarmMember
from node.network.pubsub.inbound_message import InboundMessage
from node.network.service import Libp2pNetwork
from node.ports.bodies import Verdict
from node.ports.network import RoundWindow
from protocols.identifiers import body_digest
from protocols.manifest import Limits
from protocols.typed_data import Domain
from protocols.wire import (
    PROTOCOL_VERSION,
    Envelope,
    Malformed,
    NewerVersion,
    announcements_topic,
    decode_envelope,
    encode,
    fork_digest,
    signing_hash,
)
from tests.support.debate_tables import Memory

SWARM, SEED, BODY = b"w" * 32, b"5" * 32, b"body"
ALICE, BOB, STRANGER = (NodeKey(bytes([number]) * 32) for number in (1, 2, 9))
WINDOW = RoundWindow(
    swarm=SWARM, round=5, stage=0, stages=1, seeds={5: SEED}, peers=frozenset({ALICE.address, BOB.address})
)
LATER = PROTOCOL_VERSION + 1


def of_version(version: int, key: NodeKey = BOB, *added: object) -> bytes:
    """Return an announcement that says it is of a version, with fields that this one does not know."""
    fields = [version, SWARM, 5, 0, SEED, body_digest(BODY), len(BODY), BODY, False, (), *added]
    payload = msgspec.msgpack.encode(fields)
    return encode(Envelope(payload, key.sign(signing_hash(payload))))


@pytest.fixture(name="node")
def _node(tmp_path: Path) -> Libp2pNetwork:
    me = local_peer(ALICE, None, Domain(1, "0x" + "00" * 20, bytes(32)))
    callbacks = NetworkCallbacks(lambda *_: Verdict(reason=""), lambda command, known: command)
    node = Libp2pNetwork(GossipSettings(), SwarmMember(me, SWARM, Limits()), Memory(), callbacks, tmp_path / "peers")
    node.update_window(WINDOW)
    return node


async def test_a_swarm_half_of_which_is_upgraded_bans_nobody(node: Libp2pNetwork) -> None:
    """A neighbour forwards a hundred messages of the next version beside its own of this one: those of this version
    count, the others are ignored, and nothing is held against the neighbour."""
    for number in range(100):
        later = InboundMessage(data=of_version(LATER, BOB, number, {"new": "field"}), origin=BOB.address)
        node._validate_from(BOB.peer_id, later)
    node._validate_from(BOB.peer_id, InboundMessage(data=of_version(PROTOCOL_VERSION), origin=BOB.address))
    assert node.counters == {"version": 100, "accepted": 1}
    assert node._peer_store.get(BOB.peer_id).penalty == 0.0
    assert not node._peer_store.is_banned(BOB.peer_id, time.time())


async def test_the_operator_is_told_once_of_each_later_version(node: Libp2pNetwork) -> None:
    """By a line that names both versions, and only of what a registered peer has signed."""
    with capture_logs() as logs:
        for version, key in ((LATER, STRANGER), (LATER, BOB), (LATER, BOB), (LATER + 5, BOB), (LATER, BOB)):
            node._validate_from(BOB.peer_id, InboundMessage(data=of_version(version, key, 1), origin=key.address))
    told = [(each["version"], each["own"]) for each in logs if each["event"] == "gossip.newer_version"]
    assert told == [(LATER, PROTOCOL_VERSION), (LATER + 5, PROTOCOL_VERSION)]


@given(st.integers(LATER, 2**31), st.lists(st.one_of(st.integers(-9, 9), st.text(max_size=9), st.binary(max_size=9))))
def test_whatever_follows_a_later_version_is_not_read(version: int, rest: list[object]) -> None:
    """The version is all that this node knows of such a message."""
    payload = msgspec.msgpack.encode([version, *rest])
    with pytest.raises(NewerVersion) as raised:
        decode_envelope(encode(Envelope(payload, bytes(65))), 4096)
    assert (raised.value.code, raised.value.version) == ("version", version)


@pytest.mark.parametrize("payload", [b"", b"\x90", b"\xc0", msgspec.msgpack.encode(["1"]), b"\xff" * 40])
def test_without_a_version_a_message_is_malformed(payload: bytes) -> None:
    """No array, an empty one, or another first field: that is no version of an announcement."""
    with pytest.raises(Malformed) as raised:
        decode_envelope(encode(Envelope(payload, bytes(65))), 4096)
    assert raised.value.code == "schema"


def test_an_earlier_version_is_named_as_such() -> None:
    """Version 0 has never been: it decodes and is refused by its version."""
    with pytest.raises(Malformed) as raised:
        decode_envelope(of_version(0), 4096)
    assert (raised.value.code, isinstance(raised.value, NewerVersion)) == ("version", False)


def test_peers_with_other_rules_are_on_another_topic() -> None:
    """Another protocol version, another manifest or another swarm: another topic."""
    names = {
        announcements_topic(swarm, manifest, version)
        for swarm in (SWARM, b"v" * 32)
        for manifest in (b"m" * 32, b"n" * 32)
        for version in (PROTOCOL_VERSION, LATER)
    }
    assert len(names) == 8
    assert fork_digest(b"m" * 32) == fork_digest(b"m" * 32, PROTOCOL_VERSION)
    assert len(fork_digest(b"m" * 32)) == 8
