"""What of a peer's control messages the router gets to see, and what it keeps of them."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from libp2p.peer.id import ID
from libp2p.pubsub.pb import rpc_pb2

from node.identity import new_key
from node.network.pubsub.control_limits import (
    MAX_BACKOFF_SECONDS,
    MAX_IDONTWANT_IDS,
    MAX_IHAVE_IDS,
    MAX_STRAY_ENTRIES,
    bounded_control,
)
from node.network.pubsub.iwant_limit import MAX_IWANT_IDS
from node.network.pubsub.router import new_router

TOPIC = "swarm"
TOPICS = frozenset({TOPIC})


def ids(count: int) -> list[bytes]:
    """Return so many distinct message ids."""
    return [b"%d" % number for number in range(count)]


def test_what_an_honest_peer_sends_passes_whole() -> None:
    """One entry of each kind about the topic is unchanged, and none of it counts against the peer."""
    control = rpc_pb2.ControlMessage()
    control.graft.add(topicID=TOPIC)
    control.prune.add(topicID=TOPIC, backoff=15)
    control.ihave.add(topicID=TOPIC, messageIDs=ids(3))
    control.iwant.add(messageIDs=ids(3))
    control.idontwant.add(messageIDs=ids(3))
    bounded = bounded_control(control, TOPICS)
    assert bounded.control == control
    assert (bounded.stray, bounded.is_flood) == (0, False)


@pytest.mark.parametrize("kind", ["graft", "prune", "ihave"])
@pytest.mark.parametrize("topic", [TOPIC, None])
def test_a_flood_of_entries_is_one_entry(kind: str, topic: str | None) -> None:
    """Ten times as many entries as are tolerated, about the topic or about made-up ones: one is left, or none."""
    control = rpc_pb2.ControlMessage()
    for number in range(10 * MAX_STRAY_ENTRIES):
        getattr(control, kind).add(topicID=topic or f"made up {number}")
    bounded = bounded_control(control, TOPICS)
    assert len(getattr(bounded.control, kind)) == (1 if topic else 0)
    assert bounded.is_flood


def test_a_few_stray_entries_are_no_fault() -> None:
    """As many as are tolerated are dropped in silence; one more is a flood."""
    control = rpc_pb2.ControlMessage()
    for number in range(MAX_STRAY_ENTRIES):
        control.graft.add(topicID=f"other {number}")
    assert not bounded_control(control, TOPICS).is_flood
    control.graft.add(topicID="one more")
    assert bounded_control(control, TOPICS).is_flood


def test_peer_exchange_is_never_taken() -> None:
    """A PRUNE that names peers prunes, and names nobody any more."""
    control = rpc_pb2.ControlMessage()
    prune = control.prune.add(topicID=TOPIC, backoff=15)
    prune.peers.add(peerID=b"somebody", signedPeerRecord=b"somewhere")
    (left,) = bounded_control(control, TOPICS).control.prune
    assert (left.topicID, left.backoff, len(left.peers)) == (TOPIC, 15, 0)


@pytest.mark.parametrize(
    ("kind", "limit"), [("ihave", MAX_IHAVE_IDS), ("iwant", MAX_IWANT_IDS), ("idontwant", MAX_IDONTWANT_IDS)]
)
@pytest.mark.parametrize("times", [1, 10])
def test_ids_are_bounded_over_all_entries(kind: str, limit: int, times: int) -> None:
    """As many ids as there may be pass; of ten times as many, in whatever entries, the first ones do."""
    control = rpc_pb2.ControlMessage()
    every = ids(limit * times)
    for start in range(0, len(every), 500):
        entry = getattr(control, kind).add(messageIDs=every[start : start + 500])
        if kind == "ihave":
            entry.topicID = TOPIC
    (left,) = getattr(bounded_control(control, TOPICS).control, kind)
    assert list(left.messageIDs) == every[:limit]


@given(st.binary(max_size=300))
def test_no_bytes_pass_more_than_the_limits(data: bytes) -> None:
    """Whatever decodes: what is left is about the topic, small, and within the back-off's bound."""
    control = rpc_pb2.ControlMessage()
    try:
        control.ParseFromString(data)
    except Exception:  # noqa: BLE001 - whatever protobuf raises: such a frame never gets here
        return
    left = bounded_control(control, TOPICS).control
    about = [each.topicID for each in left.graft] + [each.topicID for each in left.prune]
    assert {*about, *(each.topicID for each in left.ihave)} <= TOPICS
    assert max(len(left.graft), len(left.prune), len(left.ihave), len(left.iwant), len(left.idontwant)) <= 1
    assert all(each.backoff <= MAX_BACKOFF_SECONDS and not each.peers for each in left.prune)


async def test_back_off_of_peers_that_are_gone_is_forgotten() -> None:
    """A thousand strangers prune and leave: their back-off lasts as long as it has to, and then nothing is kept."""
    router: Any = new_router()
    router.mesh = {TOPIC: set()}
    for _ in range(1_000):
        stranger = ID.from_string(new_key().peer_id)
        await router.handle_prune(rpc_pb2.ControlPrune(topicID=TOPIC, backoff=30), stranger)
        router.remove_peer(stranger)
    router._forget_back_off()
    assert len(router.back_off[TOPIC]) == 1_000
    router.back_off[TOPIC] = dict.fromkeys(router.back_off[TOPIC], int(time.time()))
    router._forget_back_off()
    assert router.back_off[TOPIC] == {}
