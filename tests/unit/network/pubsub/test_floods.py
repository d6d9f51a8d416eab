"""How many useless announcements a peer may forward before it is disconnected, and which are not its fault."""

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from node.config import GossipSettings
from node.identity import NodeKey
from node.identity.local_peer import address_of_peer, local_peer
from node.network.parameters import NetworkCallbacks, SwarmMember
from node.network.pubsub.inbound_message import InboundMessage
from node.network.reputation import MAX_USELESS_ANNOUNCEMENTS
from node.network.service import Libp2pNetwork
from node.ports.bodies import Verdict
from node.ports.network import RoundWindow
from protocols.identifiers import body_digest
from protocols.manifest import Limits
from protocols.typed_data import Domain
from protocols.wire import Announcement, Envelope, encode, signing_hash
from tests.support.debate_tables import Memory

SWARM = b"w" * 32
PEERS = [NodeKey(number.to_bytes(32, "big")) for number in range(1, 21)]
SERVER = NodeKey(bytes([9]) * 32).peer_id
WINDOW = RoundWindow(
    swarm=SWARM,
    round=5,
    stage=0,
    stages=1,
    seeds={4: b"4" * 32, 5: b"5" * 32},
    peers=frozenset(key.address for key in PEERS),
)


def announcement(key: NodeKey, round_number: int, number: int = 0, **changes: object) -> bytes:
    body = b"%d" % number
    said = Announcement(1, SWARM, round_number, 0, b"%d" % round_number * 32, body_digest(body), len(body), body)
    payload = encode(msgspec.structs.replace(said, **changes))
    return encode(Envelope(payload, key.sign(signing_hash(payload))))


@pytest.fixture(name="node")
def _node(tmp_path: Path) -> Libp2pNetwork:
    me = local_peer(PEERS[0], None, Domain(1, "0x" + "00" * 20, bytes(32)))
    callbacks = NetworkCallbacks(lambda *_: Verdict(reason=""), lambda command, known: command)
    return Libp2pNetwork(GossipSettings(), SwarmMember(me, SWARM, Limits()), Memory(), callbacks, tmp_path / "peers")


def brings(node: Libp2pNetwork, data: Callable[[int], bytes], late: bool = False) -> bool:
    """Have one peer forward a flood; return True if it is held against it."""
    origin = address_of_peer(PEERS[3].peer_id)
    for number in range(MAX_USELESS_ANNOUNCEMENTS + 20):
        node._validate_from(SERVER, InboundMessage(data=data(number), origin=None if late else origin, late=late))
    return node.counters["flood"] > 0


@pytest.mark.parametrize("late", [True, False])
def test_a_node_that_lags_bans_nobody_for_what_is_ahead(node: Libp2pNetwork, late: bool) -> None:
    """Two rounds behind, or on another fork, or before it knows the round, it hears much that is right and no use."""
    assert not brings(node, lambda number: announcement(PEERS[3], 5, number), late)
    node.update_window(WINDOW)
    assert not brings(node, lambda number: announcement(PEERS[3], 7, number), late)
    assert not brings(node, lambda number: announcement(PEERS[3], 5, number, seed=b"fork" * 8), late)
    assert set(node.counters) == {"no-window", "future", "seed"}


def test_what_was_asked_for_is_no_flood(node: Libp2pNetwork) -> None:
    """An answer may bring what came meanwhile, what is old here, and peers that are not known here."""
    node.update_window(WINDOW)
    stranger = NodeKey(bytes([8]) * 32)
    assert not brings(node, lambda number: announcement(PEERS[3], 5), late=True)
    assert not brings(node, lambda number: announcement(PEERS[3], 2, number), late=True)
    assert not brings(node, lambda number: announcement(stranger, 5, number), late=True)


@pytest.mark.parametrize("late", [True, False])
def test_a_flood_is_counted_and_cut(node: Libp2pNetwork, late: bool) -> None:
    """What no honest peer brings is held against it, also in an answer; by gossip repetitions and strangers too."""
    node.update_window(WINDOW)
    garbled = announcement(PEERS[3], 5)[:-65] + bytes([9]) * 65
    assert brings(node, lambda number: garbled, late)


@pytest.mark.parametrize("key", [PEERS[3], NodeKey(bytes([8]) * 32)])
def test_repetitions_and_strangers_are_a_flood_in_gossip(node: Libp2pNetwork, key: NodeKey) -> None:
    """An honest neighbour sends nothing twice, nor what it drops itself."""
    node.update_window(WINDOW)
    assert brings(node, lambda number: announcement(key, 5))
