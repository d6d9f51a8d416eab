"""The register of repairs: every place where this node replaces, overrides or uses internals of py-libp2p 0.8.1.

The pin in pyproject.toml is exact for that reason. `tests/unit/network/libp2p_patches` shows for each row that the name
exists, that the library still uses it, and that the defect is still there without the repair. So an upgrade shows which
rows may go.
"""

from __future__ import annotations

from importlib.metadata import version

from node.exits import Exit, Refusal
from node.network.libp2p_patches.log_throttle import connection_log
from node.network.libp2p_patches.repair import Repair, used
from node.network.libp2p_patches.replacements import (
    PUBLIC_KEY_DESERIALIZERS,
    agent_version,
    cached_record,
    ignore_record,
    read_bounded_delim,
)
from node.network.libp2p_patches.yamux import MAX_WINDOW, read_bounded_body, update_window, write_whole_frame

LIBRARY, REQUIRED_VERSION = "libp2p", "0.8.1"

ROUTER, PUBSUB = "node.network.pubsub.router", "node.network.pubsub.pubsub"
HOST, TASKS = "node.network.host", "node.network.libp2p_patches.tasks"
YAMUX = "node.network.libp2p_patches.yamux"
REPLACEMENTS = "node.network.libp2p_patches.replacements"


REPLACED = (
    Repair(
        target="libp2p.stream_muxer.yamux.yamux:Yamux",
        name="_write_frame",
        kind="replaced",
        why="A cancelled writer abandons a frame between its encryption and its sending: the noise nonces disagree "
        "from then on, and the whole connection dies.",
        where=YAMUX,
        replacement=write_whole_frame,
    ),
    Repair(
        target="libp2p.stream_muxer.yamux.yamux:YamuxStream",
        name="_auto_tune_and_send_window_update",
        kind="replaced",
        why="Every read sends a window update, however small: a gossip message that is read in three parts costs three "
        "encrypted frames.",
        where=YAMUX,
        upstream="not reported; the method came with libp2p/py-libp2p#1269",
        replacement=update_window,
    ),
    Repair(
        target="libp2p.stream_muxer.yamux.yamux:Yamux",
        name="_read_data_body",
        kind="replaced",
        why="A peer that sends beyond its receive window gets a warning, and its bytes are kept: two gigabytes in five "
        "seconds.",
        where=YAMUX,
        replacement=read_bounded_body,
    ),
    Repair(
        target="libp2p.stream_muxer.yamux.yamux",
        name="MAX_WINDOW_SIZE",
        kind="replaced",
        why="A stream's window grows to 16 MiB, and a frame of that size is read whole.",
        where=YAMUX,
        replacement=MAX_WINDOW,
    ),
    Repair(
        target="libp2p.protocol_muxer.multiselect_communicator",
        name="read_delim",
        kind="replaced",
        why="A message of any claimed length is read into memory, before the peer is authenticated.",
        where=REPLACEMENTS,
        upstream="GHSA-hmjq-g7pp-rw3x, mended in 0.8.2",
        replacement=read_bounded_delim,
    ),
    *(
        Repair(
            target=f"libp2p.pubsub.{module}",
            name="maybe_consume_signed_record",
            kind="replaced",
            why="The same address record is verified with every RPC, and the whole RPC is dropped where identify has "
            "brought a newer one.",
            where=REPLACEMENTS,
            upstream="not reported; records in RPCs came with libp2p/py-libp2p#889",
            replacement=ignore_record,
        )
        for module in ("pubsub", "gossipsub")
    ),
    *(
        Repair(
            target=f"libp2p.pubsub.{module}",
            name="env_to_send_in_RPC",
            kind="replaced",
            why="Every RPC parses all listen addresses of the host again, to find that its record has not changed.",
            where=REPLACEMENTS,
            upstream="not reported; records in RPCs came with libp2p/py-libp2p#889",
            replacement=cached_record,
        )
        for module in ("pubsub", "gossipsub")
    ),
    Repair(
        target="libp2p.crypto.serialization",
        name="key_type_to_public_key_deserializer",
        kind="replaced",
        why="The size of an RSA key is bounded, its exponent is not: one of 4096 bits makes each check last 40 ms.",
        where=REPLACEMENTS,
        replacement=PUBLIC_KEY_DESERIALIZERS,
    ),
    Repair(
        target="libp2p.identity.identify.identify",
        name="AGENT_VERSION",
        kind="replaced",
        why="The agent that identify names is the library, and no parameter changes that: nobody sees which software, "
        "or which version of it, a swarm consists of.",
        where=REPLACEMENTS,
        replacement=agent_version(),
    ),
    Repair(
        target="libp2p.network.connection.swarm_connection",
        name="logging",
        kind="replaced",
        why="Connections log to the root logger, which installs a handler on stderr with the first line.",
        where="node.network.libp2p_patches.log_throttle",
        replacement=connection_log(),
    ),
)
"""Replaced in the library itself, for every host of the process."""

REPLACED_ON_OBJECTS = (
    Repair(
        target="libp2p.tools.anyio_service.trio_manager:TrioManager",
        name="run_task",
        kind="replaced on an object",
        why="One exception in a task for one peer ends the whole service: Pubsub, or the host with all connections.",
        where=TASKS,
        upstream="libp2p/py-libp2p#910, of one such task",
    ),
    Repair(
        target="libp2p.host.basic_host:BasicHost",
        name="_swarm_stream_handler",
        kind="replaced on an object",
        why="A stream whose protocol negotiation or handler fails raises in the task of its connection.",
        where=HOST,
    ),
    Repair(
        target="libp2p.host.basic_host:BasicHost",
        name="_identify_task_entry",
        kind="replaced on an object",
        why="It runs as a system task of trio: an exception in it ends the process.",
        where=HOST,
    ),
    Repair(
        target="libp2p.network.swarm:Swarm",
        name="_handle_inbound_connection",
        kind="replaced on an object",
        why="An inbound connection takes one of the swarm's places before its handshake and keeps it until the swarm "
        "ends: after `max_connections` of them nobody can connect any more. The connection gate is asked for dials as "
        "well.",
        where=HOST,
    ),
    Repair(
        target="libp2p.transport.upgrader:TransportUpgrader",
        name="upgrade_security",
        kind="replaced on an object",
        why="The connection gate knows addresses only: a banned peer gets a muxer, streams and identify.",
        where=HOST,
    ),
    Repair(
        target="libp2p.pubsub.pubsub:Pubsub",
        name="seen_messages",
        kind="replaced on an object",
        why="The cache of message ids is bounded by time only, and starts a thread that nothing stops.",
        where=PUBSUB,
    ),
    Repair(
        target="libp2p.pubsub.pubsub:Pubsub",
        name="peer_queues",
        kind="replaced on an object",
        why="The outbound queue of a peer has 32 places, and no parameter changes that: a burst of announcements "
        "overflows it.",
        where=PUBSUB,
    ),
)
"""Replaced on this node's hosts and services only."""

OVERRIDDEN = (
    Repair(
        target="libp2p.pubsub.gossipsub:GossipSub",
        name="handle_iwant",
        kind="overridden",
        why="A message is sent as often as its id stands in an IWANT: a frame of ids becomes half a gigabyte.",
        where=ROUTER,
    ),
    Repair(
        target="libp2p.pubsub.gossipsub:GossipSub",
        name="gossip_heartbeat",
        kind="overridden",
        why="Peers in back-off get no IHAVE: a peer that the mesh has pruned hears nothing for 15 s, and a message is "
        "gossiped for 3 s only.",
        where=ROUTER,
    ),
    Repair(
        target="libp2p.pubsub.gossipsub:GossipSub",
        name="_perform_opportunistic_grafting",
        kind="overridden",
        why="Outbound peers have no quota in the mesh (D_out of GossipSub 1.1): inbound peers can fill it.",
        where=ROUTER,
    ),
    Repair(
        target="libp2p.pubsub.gossipsub:GossipSub",
        name="_select_peers_for_pruning",
        kind="overridden",
        why="A full mesh is pruned by score, whatever the IP addresses: a crowd on one address pushes out all others.",
        where=ROUTER,
    ),
    Repair(
        target="libp2p.pubsub.gossipsub:GossipSub",
        name="heartbeat",
        kind="overridden",
        why="An exception in the heartbeat ends it, and the router with it.",
        where=ROUTER,
    ),
    Repair(
        target="libp2p.pubsub.gossipsub:GossipSub",
        name="_check_equivocation",
        kind="overridden",
        why="Whole messages are kept for the comparison: a thousand, and all that come between two heartbeats.",
        where=ROUTER,
    ),
    Repair(
        target="libp2p.pubsub.gossipsub:GossipSub",
        name="_periodic_security_cleanup",
        kind="overridden",
        why="Delivery times of messages are kept without end where adaptive gossip is off, and so is back-off of peers "
        "that are gone.",
        where=ROUTER,
    ),
    Repair(
        target="libp2p.pubsub.gossipsub:GossipSub",
        name="_handle_dropped_rpc",
        kind="overridden",
        why="Nobody learns that a peer's outbound queue overflows: a peer that does not read stays connected.",
        where=ROUTER,
    ),
    Repair(
        target="libp2p.pubsub.pubsub:Pubsub",
        name="run",
        kind="overridden",
        why="A service has its task manager only from here on; its tasks must be isolated before the first one starts.",
        where=PUBSUB,
    ),
    Repair(
        target="libp2p.pubsub.pubsub:Pubsub",
        name="_handle_new_peer",
        kind="overridden",
        why="A peer that is back before its dead stream was noticed is skipped, and nothing is ever sent to it.",
        where=PUBSUB,
    ),
    Repair(
        target="libp2p.pubsub.pubsub:Pubsub",
        name="write_msg",
        kind="overridden",
        why="Two tasks may write to one stream at a time, so that parts of their RPCs interleave.",
        where=PUBSUB,
    ),
    Repair(
        target="libp2p.pubsub.pubsub:Pubsub",
        name="stream_handler",
        kind="overridden",
        why="An RPC that does not decode, or whose control message the router can't digest, raises out of the handler; "
        "control messages about any topic are acted on, and a PRUNE makes the node dial.",
        where=PUBSUB,
    ),
    Repair(
        target="libp2p.pubsub.pubsub:Pubsub",
        name="push_msg",
        kind="overridden",
        why="A message with a malformed key raises out of the signature check, and validators can only accept or drop.",
        where=PUBSUB,
    ),
)
"""Overridden in `SafeGossipSub` and `SafePubsub`."""


USED = (
    *used(
        "libp2p.pubsub.gossipsub:GossipSub",
        ROUTER,
        "The overrides select peers of the topic as the library does.",
        "_get_in_topic_gossipsub_peers_from_minus",
    ),
    *used(
        "libp2p.pubsub.pubsub:Pubsub",
        PUBSUB,
        "`push_msg` keeps to the library's memory of message ids.",
        "_is_msg_seen",
        "_mark_msg_seen",
    ),
    *used("libp2p.pubsub.pubsub:Pubsub", PUBSUB, "`stream_handler` ends as the library's does.", "_handle_dead_peer"),
    *used(
        "libp2p.pubsub.pubsub:Pubsub",
        PUBSUB,
        "Dead streams are renewed as the library opens the first one.",
        "_peer_is_connected",
        "_schedule_peer_stream_retry",
    ),
    *used(
        "libp2p.tools.timed_cache.last_seen_cache:LastSeenCache",
        PUBSUB,
        "Ends the thread of the cache that is replaced; `stop` would wait for it.",
        "_stop_event",
    ),
    *used(
        "libp2p.pubsub.rpc_queue:RpcQueue",
        PUBSUB,
        "Holds the number of places in a peer's outbound queue.",
        "_queue",
    ),
    *used(
        "libp2p.stream_muxer.yamux.yamux:YamuxStream",
        YAMUX,
        "Half of the receive window, as the library computes it.",
        "_grow_threshold",
    ),
    *used(
        "libp2p.stream_muxer.yamux.yamux:Yamux",
        YAMUX,
        "Keeps frames from interleaving, as in the method that is replaced.",
        "_write_lock",
    ),
    *used(
        "libp2p.stream_muxer.yamux.yamux:Yamux",
        YAMUX,
        "What a peer has sent and nobody has read; how the library ends a connection whose frames are wrong.",
        "stream_buffers",
        "_cleanup_on_error",
    ),
    *used(
        "libp2p.stream_muxer.yamux.yamux:Yamux",
        HOST,
        "Set by the answer to a ping of the muxer; the library measures round trips with it and tells nobody.",
        "_ping_event",
    ),
    *used(
        "libp2p.network.swarm:Swarm",
        "node.network.inbound",
        "The handshake of an inbound connection, as the library's handler calls it.",
        "upgrade_inbound_raw_conn",
    ),
    *used(
        "libp2p.stream_muxer.yamux.yamux:Yamux",
        PUBSUB,
        "Shows at once that a stream's connection is gone.",
        "event_shutting_down",
    ),
    *used(
        "libp2p.stream_muxer.yamux.yamux:Yamux",
        HOST,
        "The way down to a connection's socket: `close` waits for an unresponsive peer to read.",
        "secured_conn",
    ),
    *used("libp2p.security.secure_session:SecureSession", HOST, "The way down to a connection's socket.", "conn"),
    *used("libp2p.network.connection.raw_connection:RawConnection", HOST, "The same.", "stream"),
    *used("libp2p.io.trio:TrioTCPStream", HOST, "The same.", "stream"),
)
"""Internals that the repairs call, read or write, in addition to the names that they replace."""

REPAIRS: tuple[Repair, ...] = (*REPLACED, *REPLACED_ON_OBJECTS, *OVERRIDDEN, *USED)


def check_version() -> None:
    """Raise `Refusal` for another version of the library than the repairs were made for."""
    found = version(LIBRARY)
    if found != REQUIRED_VERSION:
        raise Refusal(
            Exit.CONFIG,
            f"{LIBRARY} {found} is installed; this node repairs defects of {REQUIRED_VERSION} and needs that version: "
            f"pip install {LIBRARY}=={REQUIRED_VERSION}",
        )


def install() -> None:
    """Apply the process-wide replacements; doing so again changes nothing. Raises `Refusal` as `check_version` does."""
    check_version()
    for repair in REPLACED:
        setattr(repair.owner, repair.name, repair.replacement)
