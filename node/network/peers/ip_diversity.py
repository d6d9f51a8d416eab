"""Which peers to drop so that those that stay come from many IP addresses: one address is never a node's whole view."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence


def surplus_peers(connected: Sequence[tuple[str, str]], limit: int) -> list[str]:
    """Return the peers to disconnect so that `limit` stay: each time the newest one of the most crowded address.

    `connected` are (peer, address), the oldest first. Twenty identities on one address push each other out before
    anybody else.
    """
    crowd = Counter(address for _, address in connected)
    staying = list(connected)
    surplus = []
    while len(staying) > limit:
        worst = max(crowd.values())
        place = max(at for at, (_, address) in enumerate(staying) if crowd[address] == worst)
        peer, address = staying.pop(place)
        crowd[address] -= 1
        surplus.append(peer)
    return surplus


def peers_to_prune(mesh: Sequence[tuple[str, str]], outbound: Collection[str], limit: int, kept: int) -> list[str]:
    """Return the peers to prune from a mesh so that `limit` stay.

    The first `kept` outbound peers stay (GossipSub 1.1's D_out, at most D/2); of the others the most crowded addresses
    go first. `mesh` are (peer, address). So one address can never take the whole mesh.
    """
    safe = [peer for peer, _ in mesh if peer in outbound][:kept]
    return surplus_peers([each for each in mesh if each[0] not in safe], max(0, limit - len(safe)))
