"""The node key: `swarm.pem`, signatures, the peer id that carries the public key, and three-word names."""

from node.identity.key import (
    IdentityError,
    NodeKey,
    load_or_create,
    new_key,
    peer_id_of_public_key,
    public_key_of_peer_id,
    recover,
)
from node.identity.peer_names import name_of

__all__ = [
    "IdentityError",
    "NodeKey",
    "load_or_create",
    "name_of",
    "new_key",
    "peer_id_of_public_key",
    "public_key_of_peer_id",
    "recover",
]
