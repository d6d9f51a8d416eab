"""What replaces functions of the library: no address records in RPCs, bounded RSA keys, bounded negotiation."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Any
from weakref import WeakKeyDictionary

import trio
from libp2p.abc import IHost
from libp2p.crypto.keys import KeyType
from libp2p.crypto.rsa import RSAPublicKey
from libp2p.crypto.serialization import key_type_to_public_key_deserializer
from libp2p.exceptions import ParseError
from libp2p.io.abc import Reader
from libp2p.io.exceptions import MessageTooLarge
from libp2p.peer.id import ID
from libp2p.peer.peerstore import env_to_send_in_RPC
from libp2p.pubsub.pb import rpc_pb2
from libp2p.utils.varint import read_varint_prefixed_bytes_limited

from node.identity.rsa import EXPONENT, MAX_BITS, MIN_BITS

RECORD_SECONDS = 10.0
MAX_PROTOCOL_LENGTH = 1024
"""Bytes of one message of multistream-select, as in js-libp2p: protocol names have a few dozen."""

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


def agent_version() -> str:
    """Return what identify tells peers of this software: project and version."""
    try:
        return f"swarm-node/{version('swarm-node')}"
    except PackageNotFoundError:
        return "swarm-node"


async def read_bounded_delim(reader: Reader) -> bytes:
    """Return one message of multistream-select without its newline. Raises ParseError for a longer or malformed one."""
    try:
        message = await read_varint_prefixed_bytes_limited(reader, MAX_PROTOCOL_LENGTH)
    except MessageTooLarge as error:
        raise ParseError(str(error)) from error
    if message[-1:] != b"\n":
        raise ParseError("a message of multistream-select that does not end with a newline")
    return message[:-1]


def bounded_rsa(data: bytes) -> RSAPublicKey:
    """Decode an RSA key. Raises ValueError for one outside the bounds of `node.identity.rsa`."""
    key = RSAPublicKey.from_bytes(data)
    if key.impl.e != EXPONENT or not MIN_BITS <= key.impl.size_in_bits() <= MAX_BITS:
        raise ValueError(f"an RSA key of {key.impl.size_in_bits()} bits with an exponent of {key.impl.e.bit_length()}")
    return key


PUBLIC_KEY_DESERIALIZERS: dict[Any, Any] = {**key_type_to_public_key_deserializer, KeyType.RSA.value: bounded_rsa}
"""The library's table with `bounded_rsa` in it."""
