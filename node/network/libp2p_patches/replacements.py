"""What replaces functions of the library: no address records in RPCs, bounded RSA keys, no logging to the root."""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import trio
from libp2p.abc import IHost
from libp2p.crypto.keys import KeyType
from libp2p.crypto.rsa import RSAPublicKey
from libp2p.crypto.serialization import key_type_to_public_key_deserializer
from libp2p.peer.id import ID
from libp2p.peer.peerstore import env_to_send_in_RPC
from libp2p.pubsub.pb import rpc_pb2

from node.identity.rsa import EXPONENT, MAX_BITS, MIN_BITS

RECORD_SECONDS = 10.0

_records: WeakKeyDictionary[IHost, tuple[float, bytes]] = WeakKeyDictionary()


def ignore_record(msg: rpc_pb2.RPC, host: IHost, peer_id: ID) -> bool:
    """Take no addresses from RPCs: `node.network.peers.peer_manager` exchanges them."""
    return True


def cached_record(host: IHost) -> tuple[bytes, bool]:
    """Return this host's encoded record, built once in `RECORD_SECONDS`, and False: it counts as not new."""
    kept = _records.get(host)
    if kept is None or trio.current_time() - kept[0] > RECORD_SECONDS:
        kept = _records[host] = (trio.current_time(), env_to_send_in_RPC(host)[0])
    return kept[1], False


def bounded_rsa(data: bytes) -> RSAPublicKey:
    """Decode an RSA key. Raises ValueError for one outside the bounds of `node.identity.rsa`."""
    key = RSAPublicKey.from_bytes(data)
    if key.impl.e != EXPONENT or not MIN_BITS <= key.impl.size_in_bits() <= MAX_BITS:
        raise ValueError(f"an RSA key of {key.impl.size_in_bits()} bits with an exponent of {key.impl.e.bit_length()}")
    return key


PUBLIC_KEY_DESERIALIZERS: dict[Any, Any] = {**key_type_to_public_key_deserializer, KeyType.RSA.value: bounded_rsa}
"""The library's table with `bounded_rsa` in it."""
