"""Peers as a deployment knows them: the address of a peer id, and this node as one of the peers. Pure."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from node.identity import base58
from node.identity.key import NodeKey, public_key_of_peer_id
from node.identity.rsa import RsaIdentity
from protocols.identifiers import Address, address_of_public_key, keccak256
from protocols.session import SessionStatement
from protocols.typed_data import Domain

PEER_ID_LIMIT = 128
"""Most characters of a peer id: real ones have 46 (hash of an RSA key) to 53 (secp256k1)."""

PSEUDO_DOMAIN = b"swarm/rl-swarm/peer/1"

SHA256_MULTIHASH = bytes([0x12, 32])
ED25519_MULTIHASH = bytes([0x00, 36, 0x08, 0x01, 0x12, 32])
HEADS = ((SHA256_MULTIHASH, 34), (ED25519_MULTIHASH, 38))
"""First bytes and total length of peer ids without a secp256k1 key (multiformats' table of multihashes)."""

NO_SALT = bytes(32)
"""The salt of RL Swarm's contract, which takes no signed messages; ours generates one when it is deployed."""


class LocalPeer(NamedTuple):
    """This node as the other peers of a deployment see it.

    `key` signs its messages. `network` is its libp2p identity: the same key, or an RSA identity. `address` is the
    address it counts as. `statement` binds the key to the RSA identity, if there is one.
    """

    key: NodeKey
    network: NodeKey | RsaIdentity
    address: Address
    domain: Domain
    statement: SessionStatement | None = None

    @property
    def peer_id(self) -> str:
        """Its libp2p peer id."""
        return self.network.peer_id


def local_peer(key: NodeKey, rsa: RsaIdentity | None, domain: Domain) -> LocalPeer:
    """Return the peer that a node with this key (and RSA identity, if any) is at a deployment."""
    if rsa is None:
        return LocalPeer(key, key, key.address, domain)
    address = address_at(domain, rsa.peer_id, key.address)
    return LocalPeer(key, rsa, address, domain, rsa.bind(domain, key.address))


def address_at(domain: Domain, peer_id: str, session: Address) -> Address:
    """Return the address of an RSA peer whose session key is `session`: our contract registers session keys, RL Swarm's
    registers peer ids."""
    return address_of_peer_id(peer_id) if domain.salt == NO_SALT else session


def address_of_peer_id(peer_id: str) -> Address:
    """Return the address by which the machine knows a peer of RL Swarm's contract. Raises ValueError if it is not a
    peer id.

    A secp256k1 id (16Uiu2...) contains its public key and gets that key's address. Any other (RSA's Qm..., Ed25519's
    12D3Koo...) gets a stable stand-in without a key: the last 20 bytes of Keccak-256 over `PSEUDO_DOMAIN` and the
    multihash.
    """
    if len(peer_id) > PEER_ID_LIMIT:
        raise ValueError(f"a peer id has at most {PEER_ID_LIMIT} characters, this has {len(peer_id)}")
    raw = base58.decode(peer_id)
    if any(raw.startswith(head) and len(raw) == length for head, length in HEADS):
        return "0x" + keccak256(PSEUDO_DOMAIN + raw)[12:].hex()
    return address_of_public_key(public_key_of_peer_id(peer_id))


@lru_cache(maxsize=4096)
def address_of_peer(peer_id: str) -> Address | None:
    """Return the address of a secp256k1 peer id, None for any other kind. Cached: gossip asks for each frame."""
    try:
        return address_of_public_key(public_key_of_peer_id(peer_id))
    except ValueError:
        return None
