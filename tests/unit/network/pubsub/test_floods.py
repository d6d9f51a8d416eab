"""What a neighbour answers for of what it forwards, and what it does not."""

import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from node.config import GossipSettings
from node.identity import NodeKey
from node.identity.local_peer import address_of_peer, local_peer
from node.network.parameters import NetworkCallbacks, SwarmMember
from node.network.peers.rate_limit import UNTRUSTED_LIMIT
from node.network.pubsub.inbound_message import InboundMessage
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


def bring(node: Libp2pNetwork, count: int, data: Callable[[int], bytes], late: bool = False) -> None:
    """Have one peer forward so many announcements."""
    origin = address_of_peer(PEERS[3].peer_id)
    for number in range(count):
        node._validate_from(SERVER, InboundMessage(data=data(number), origin=None if late else origin, late=late))


def is_penalised(node: Libp2pNetwork) -> bool:
    """Return True if anything was held against that peer."""
    return node._peer_store.get(SERVER).penalty > 0 or node._peer_store.is_banned(SERVER, time.time())


STRANGER = NodeKey(bytes([8]) * 32)
HONEST: dict[str, Callable[[int], bytes]] = {
    "future": lambda number: announcement(PEERS[3], 7, number),
    "seed": lambda number: announcement(PEERS[3], 5, number, seed=b"fork" * 8),
    "round": lambda number: announcement(PEERS[3], 2, number),
    "unregistered": lambda number: announcement(STRANGER, 5, number),
    "duplicate": lambda number: announcement(PEERS[3], 5),
}
"""What an honest peer may forward that sees the chain before or after this node, or was alone for a while."""


@pytest.mark.parametrize("reason", HONEST)
@pytest.mark.parametrize("late", [True, False])
async def test_nobody_is_penalised_for_another_view(node: Libp2pNetwork, reason: str, late: bool) -> None:
    """Ten times as many useless messages as a peer is heard with: it is not heard for a while, and nothing more."""
    node.update_window(WINDOW)
    bring(node, 10 * UNTRUSTED_LIMIT.burst_messages, HONEST[reason], late)
    assert not is_penalised(node)
    assert node._hear(SERVER) == late


@pytest.mark.parametrize("late", [True, False])
async def test_a_node_that_knows_no_round_yet_penalises_nobody(node: Libp2pNetwork, late: bool) -> None:
    """Before its first window a node can't tell what is right."""
    bring(node, 100, lambda number: announcement(PEERS[3], 5, number), late)
    assert (is_penalised(node), set(node.counters)) == (False, {"no-window"})


async def test_valid_announcements_count_against_nobody(node: Libp2pNetwork) -> None:
    """All that every key may say, two bodies for every slot, through one neighbour: it is heard as before."""
    many = [NodeKey(number.to_bytes(32, "big")) for number in range(1, 601)]
    node.update_window(msgspec.structs.replace(WINDOW, peers=frozenset(key.address for key in many)))
    for round_number in (4, 5):
        for body in (0, 1):
            for key in many:
                message = InboundMessage(data=announcement(key, round_number, body), origin=key.address)
                node._validate_from(SERVER, message)
                node._accepted_out.receive_nowait()
    assert node.counters == {"accepted": 1_200, "equivocation": 1_200}
    assert node._hear(SERVER)
    assert node._rate_limiter._used.get(SERVER) is None


async def test_a_neighbour_that_heard_two_other_bodies_is_honest(node: Libp2pNetwork) -> None:
    """Two bodies for a slot here, two others there: what each passes on is dropped by the other, and is no fault."""
    node.update_window(WINDOW)
    for key in PEERS:
        for body in (0, 1):
            node._validate_from(PEERS[0].peer_id, InboundMessage(data=announcement(key, 5, body), origin=key.address))
    for key in PEERS:
        for body in (2, 3):
            node._validate_from(SERVER, InboundMessage(data=announcement(key, 5, body), origin=key.address))
    assert node.counters["equivocation"] == 3 * len(PEERS)
    assert not is_penalised(node)
    assert node._hear(SERVER)


async def test_who_brings_a_slots_bodies_without_end_is_penalised(node: Libp2pNetwork) -> None:
    """No honest peer passes on more than two bodies of a slot."""
    node.update_window(WINDOW)
    bring(node, 100, lambda number: announcement(PEERS[3], 5, number))
    assert node.counters["flood"] > 0
    assert is_penalised(node)


@pytest.mark.parametrize("late", [True, False])
async def test_what_no_honest_peer_forwards_is_penalised_at_once(node: Libp2pNetwork, late: bool) -> None:
    """A stage that no round has, whoever signed it, also in an answer."""
    node.update_window(WINDOW)
    bring(node, 1, lambda number: announcement(PEERS[3], 5, stage=9), late)
    assert is_penalised(node)
