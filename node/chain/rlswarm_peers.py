"""RL Swarm's peer ids and bootnodes, as they stand in its contract, in the node's words. Pure.

Anybody may register any text, so each is checked for what it is before it counts.
"""

from __future__ import annotations

import re

from node.identity import base58, public_key_of_peer_id
from protocols.identifiers import Address, address_of_public_key, keccak256

PEER_ID_LIMIT = 128
"""Characters of a peer id: those in use have 46 (hash of an RSA key) to 53 (secp256k1)."""

PSEUDO_DOMAIN = b"swarm/rl-swarm/peer/1"

SHA256_MULTIHASH = bytes([0x12, 32])
ED25519_MULTIHASH = bytes([0x00, 36, 0x08, 0x01, 0x12, 32])
HEADS = ((SHA256_MULTIHASH, 34), (ED25519_MULTIHASH, 38))
"""First bytes and whole length of the peer ids that hold no secp256k1 key (multiformats' table of multihashes)."""

BOOTNODE = re.compile(r"/(?:ip4|ip6|dns|dns4|dns6)/[^/\s]+/tcp/[1-9][0-9]{0,4}/p2p/([1-9A-HJ-NP-Za-km-z]+)")


def address_of_peer_id(peer_id: str) -> Address:
    """Return the address by which the machine knows a peer. Raises ValueError for what is no peer id.

    A secp256k1 id (16Uiu2...) holds its public key: the address is that key's own. Any other (RSA's Qm..., Ed25519's
    12D3Koo...) gets a stable stand-in that nobody has the key of: the last 20 bytes of Keccak-256 over
    `PSEUDO_DOMAIN` and the multihash.
    """
    if len(peer_id) > PEER_ID_LIMIT:
        raise ValueError(f"a peer id has at most {PEER_ID_LIMIT} characters, this has {len(peer_id)}")
    raw = base58.decode(peer_id)
    if any(raw.startswith(head) and len(raw) == length for head, length in HEADS):
        return "0x" + keccak256(PSEUDO_DOMAIN + raw)[12:].hex()
    return address_of_public_key(public_key_of_peer_id(peer_id))


def can_dial(bootnode: str) -> bool:
    """Tell whether a bootnode is a TCP address with a peer id: hivemind's may be QUIC, a relay's, or unfinished."""
    found = BOOTNODE.fullmatch(bootnode)
    try:
        return found is not None and bool(address_of_peer_id(found[1]))
    except ValueError:
        return False
