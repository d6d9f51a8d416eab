"""py-libp2p's GossipSub router with its defects repaired; `node.network.libp2p_patches.repairs` lists them."""

from __future__ import annotations

import hashlib
import logging
import random
import time
from collections import defaultdict
from collections.abc import Callable
from itertools import islice
from typing import Any

import trio
from libp2p.custom_types import TProtocol
from libp2p.peer.id import ID
from libp2p.pubsub.gossipsub import GossipSub
from libp2p.pubsub.pb import rpc_pb2
from libp2p.pubsub.utils import safe_bytes_from_hex
from typing_extensions import override

from node.network.libp2p_patches.tasks import isolated
from node.network.peers.ip_diversity import peers_to_prune
from node.network.pubsub.iwant_limit import MAX_IWANT_IDS, IwantLimit

log = logging.getLogger("libp2p.swarm")

FRAME_LIMIT = 1 << 20
"""Bytes of one RPC between peers, both ways: go-libp2p's default."""
EQUIVOCATION_DIGESTS = 20_000
MIN_OUTBOUND_IN_MESH = 3
"""Outbound peers in the mesh, as far as there are any: GossipSub 1.1's D_out, at most half of the degree."""
GOSSIP_PEERS, GOSSIP_FACTOR = 6, 0.25
"""How many peers outside of the mesh get IHAVE with each heartbeat: GossipSub 1.1's D_lazy and gossip factor."""


class SafeGossipSub(GossipSub):
    """GossipSub with bounded memory and a heartbeat that no peer can stop.

    `on_queue_full` is told of peers whose outbound queue is full; `on_heartbeat` runs with every heartbeat.
    """

    on_queue_full: Callable[[ID], None]
    on_heartbeat: Callable[[], None] = staticmethod(lambda: None)

    def __init__(self, **parameters: Any) -> None:
        super().__init__(**parameters)
        self._iwant_limit = IwantLimit()

    # --- requests for messages ----------------------------------------------------------------------------------

    @override
    async def handle_iwant(self, iwant_msg: rpc_pb2.ControlIWant, sender_peer_id: ID) -> None:
        """Send what is asked for, within bounds."""
        decoded = map(safe_bytes_from_hex, islice(iwant_msg.messageIDs, MAX_IWANT_IDS))
        ids = self._iwant_limit.select(sender_peer_id, filter(None, decoded), self.mcache.msgs, FRAME_LIMIT)
        if ids:
            bounded = rpc_pb2.ControlIWant(messageIDs=[each.hex().encode() for each in ids])
            await super().handle_iwant(bounded, sender_peer_id)

    @override
    def gossip_heartbeat(self) -> defaultdict[ID, dict[str, list[bytes]]]:
        """Return the peers outside of the mesh that get IHAVE, those in back-off too, and the ids for each topic."""
        gossip: defaultdict[ID, dict[str, list[bytes]]] = defaultdict(dict)
        assert self.pubsub is not None
        for topic, mesh in self.mesh.items():
            recent, subscribers = self.mcache.window(topic), self.pubsub.peer_topics.get(topic, ())
            if recent and subscribers:
                count = max(GOSSIP_PEERS, int(GOSSIP_FACTOR * (len(subscribers) - len(mesh))))
                for peer in self._get_in_topic_gossipsub_peers_from_minus(topic, count, mesh):
                    gossip[peer][topic] = recent
        return gossip

    # --- the mesh -----------------------------------------------------------------------------------------------

    @override
    def _perform_opportunistic_grafting(self, topic: str, peers_to_graft: defaultdict[ID, list[str]]) -> int:
        """Graft outbound peers until the mesh has `MIN_OUTBOUND_IN_MESH`."""
        mesh = self.mesh[topic]
        others = self._get_in_topic_gossipsub_peers_from_minus(topic, FRAME_LIMIT, mesh, backoff_check=True)
        outbound = [peer for peer in others if self._is_outbound(peer)]
        missing = max(0, MIN_OUTBOUND_IN_MESH - sum(map(self._is_outbound, mesh)))
        grafted = random.sample(outbound, min(missing, len(outbound)))
        for peer in grafted:
            mesh.add(peer)
            peers_to_graft[peer].append(topic)
        return len(grafted)

    @override
    def _select_peers_for_pruning(self, topic: str, num_to_prune: int) -> list[ID]:
        """Prune the most crowded IP addresses first, and keep some outbound peers."""
        peers = {str(peer): peer for peer in self.mesh[topic]}
        mesh = [(name, self._address(peer)) for name, peer in random.sample(list(peers.items()), len(peers))]
        outbound = {name for name, peer in peers.items() if self._is_outbound(peer)}
        return [peers[name] for name in peers_to_prune(mesh, outbound, len(mesh) - num_to_prune, MIN_OUTBOUND_IN_MESH)]

    def _connection(self, peer: ID) -> Any:
        stream = self.pubsub.peers.get(peer) if self.pubsub else None
        return stream.muxed_conn if stream else None

    def _is_outbound(self, peer: ID) -> bool:
        connection = self._connection(peer)
        return connection is not None and bool(connection.is_initiator)

    def _address(self, peer: ID) -> str:
        connection = self._connection(peer)
        remote = connection.get_remote_address() if connection is not None else None
        return str(remote[0]) if remote else ""

    # --- upkeep -------------------------------------------------------------------------------------------------

    @override
    async def heartbeat(self) -> None:
        """Keep the heartbeat going whatever happens in it."""
        while True:
            await isolated(super().heartbeat)()
            await trio.sleep(self.heartbeat_interval)

    @override
    def _check_equivocation(self, msg: rpc_pb2.Message) -> bool:
        """Return True if no other content is known of the message's id; keep digests only."""
        table: dict[bytes, Any] = self.equivocation_detection
        digest = hashlib.blake2b(msg.data, digest_size=16).digest()
        if len(table) > EQUIVOCATION_DIGESTS:
            for old in list(table)[: EQUIVOCATION_DIGESTS // 2]:
                del table[old]
        return bool(table.setdefault(msg.from_id + msg.seqno, digest) == digest)

    @override
    def _periodic_security_cleanup(self) -> None:
        """Run with every heartbeat: bound what the library does not, and call `on_heartbeat`."""
        super()._periodic_security_cleanup()
        self.recent_message_deliveries.clear()
        self._iwant_limit.forget(self.mcache.msgs)
        self._forget_back_off()
        self.on_heartbeat()

    def _forget_back_off(self) -> None:
        """Forget back-off that is over: the library asks for one peer at a time, and never for those that are gone."""
        now = int(time.time())
        for topic, peers in list(self.back_off.items()):
            self.back_off[topic] = {peer: until for peer, until in peers.items() if until > now}

    @override
    def _handle_dropped_rpc(self, peer_id: ID, rpc: rpc_pb2.RPC, reason: str) -> None:
        super()._handle_dropped_rpc(peer_id, rpc, reason)
        if reason == "queue_full":
            self.on_queue_full(peer_id)


def new_router() -> SafeGossipSub:
    """Return a router with every parameter explicit: the defaults have a heartbeat of 120 s and drop our own messages
    as spam."""
    return SafeGossipSub(
        protocols=[TProtocol("/meshsub/1.2.0"), TProtocol("/meshsub/1.1.0")],
        degree=6,
        degree_low=4,
        degree_high=12,
        time_to_live=60,
        gossip_window=3,
        gossip_history=6,
        heartbeat_initial_delay=0.1,
        heartbeat_interval=1,
        prune_back_off=15,
        unsubscribe_back_off=10,
        do_px=False,
        max_idontwant_messages=1000,
        adaptive_gossip_enabled=False,
        spam_protection_enabled=False,
        eclipse_protection_enabled=False,
    )
