"""Limits on GossipSub's control messages: what of an RPC's control part the router gets to see. Pure.

The library acts on control messages about any topic, keeps a back-off for each topic that a PRUNE names, and dials
whomever a PRUNE names. Sister libraries had such floods reported: CVE-2026-95859, CVE-2026-86040.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from typing import NamedTuple

from libp2p.pubsub.pb import rpc_pb2

from node.network.pubsub.iwant_limit import MAX_IWANT_IDS

MAX_IHAVE_IDS = 5_000
"""Ids of one RPC that are looked at: MaxIHaveLength of go-libp2p-pubsub."""
MAX_IDONTWANT_IDS = 1_000
MAX_BACKOFF_SECONDS = 600
"""Longest back-off that a peer can ask for in PRUNE: it is kept that long, though the peer may be gone."""
MAX_STRAY_ENTRIES = 16
"""Entries of one RPC that are about other topics or say the same again. An honest peer sends none; a few are no fault,
because it may have joined topics that this node has just left."""


class BoundedControl(NamedTuple):
    """A control message within the limits, and how many of its entries were none of this node's business."""

    control: rpc_pb2.ControlMessage
    stray: int

    @property
    def is_flood(self) -> bool:
        """Whether that is more than an honest peer sends."""
        return self.stray > MAX_STRAY_ENTRIES


def bounded_control(control: rpc_pb2.ControlMessage, topics: Container[str]) -> BoundedControl:
    """Return what of a control message the router may act on.

    Only entries about `topics` stay: one GRAFT and one PRUNE for each, without peer exchange (nobody makes this node
    dial), and so many ids. Ids above the limits are dropped silently: a busy topic has many.
    """
    grafts = [graft for graft in control.graft if graft.topicID in topics]
    prunes = [prune for prune in control.prune if prune.topicID in topics]
    ihaves = [ihave for ihave in control.ihave if ihave.topicID in topics]
    bounded = rpc_pb2.ControlMessage()
    for topic in dict.fromkeys(graft.topicID for graft in grafts):
        bounded.graft.add(topicID=topic)
    for topic, backoff in {prune.topicID: prune.backoff for prune in prunes}.items():
        bounded.prune.add(topicID=topic, backoff=min(backoff, MAX_BACKOFF_SECONDS))
    room = MAX_IHAVE_IDS
    for topic in dict.fromkeys(ihave.topicID for ihave in ihaves):
        ids = _first(room, (ihave.messageIDs for ihave in ihaves if ihave.topicID == topic))
        room -= len(ids)
        bounded.ihave.add(topicID=topic, messageIDs=ids)
    if control.iwant:
        bounded.iwant.add(messageIDs=_first(MAX_IWANT_IDS, (each.messageIDs for each in control.iwant)))
    if control.idontwant:
        bounded.idontwant.add(messageIDs=_first(MAX_IDONTWANT_IDS, (each.messageIDs for each in control.idontwant)))
    kept = len(bounded.graft) + len(bounded.prune) + len(bounded.ihave)
    return BoundedControl(bounded, len(control.graft) + len(control.prune) + len(control.ihave) - kept)


def _first(limit: int, parts: Iterable[Iterable[bytes]]) -> list[bytes]:
    """Return the first distinct ids of several lists."""
    found: dict[bytes, None] = {}
    for part in parts:
        for each in part:
            if len(found) >= limit:
                return list(found)
            found[each] = None
    return list(found)
