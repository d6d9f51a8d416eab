"""RL Swarm's bootnodes, checked: anybody may register any text in its contract. Pure."""

from __future__ import annotations

import re

from node.identity.local_peer import address_of_peer_id

BOOTNODE = re.compile(r"/(?:ip4|ip6|dns|dns4|dns6)/[^/\s]+/tcp/[1-9][0-9]{0,4}/p2p/([1-9A-HJ-NP-Za-km-z]+)")


def can_dial(bootnode: str) -> bool:
    """Return True for a TCP address with a peer id; hivemind's may be QUIC, a relay's, or incomplete."""
    found = BOOTNODE.fullmatch(bootnode)
    try:
        return found is not None and bool(address_of_peer_id(found[1]))
    except ValueError:
        return False
