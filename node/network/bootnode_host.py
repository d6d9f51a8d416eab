"""A bootnode: a host that introduces peers to each other and takes no part in gossip."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import structlog

from node.identity import NodeKey
from node.network.host import open_host
from node.network.peers.peer_manager import PeerManager
from node.network.peers.peer_store import PeerStore

log = structlog.get_logger()


async def run_bootnode(
    key: NodeKey,
    listen: Sequence[str],
    *,
    announce: Sequence[str] = (),
    bootnodes: Sequence[str] = (),
    peer_store: Path | None = None,
    max_peers: int = 256,
    ping_seconds: float = 10.0,
    started: Callable[[tuple[str, ...]], None] | None = None,
) -> None:
    """Run until cancelled. `started` is called once with the addresses to give to others.

    Raises `node.network.host.HostListenError` where no address can be bound.
    """

    async def others() -> Sequence[str]:
        return bootnodes

    async with open_host(key, announce, max_peers) as host:
        peer_manager = PeerManager(
            host,
            PeerStore(peer_store),
            bootnodes=others,
            max_peers=max_peers,
            ping_seconds=ping_seconds,
            target_peers=len(bootnodes),
        )
        await host.listen(listen)
        log.info("bootnode.started", addresses=host.announced)
        if started is not None:
            started(host.announced)
        await peer_manager.run()
