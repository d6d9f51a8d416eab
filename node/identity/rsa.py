"""RSA identities of RL Swarm: its binary `swarm.pem`, the peer id (Qm...), and the statement that binds a session key.

The file is libp2p's private key protobuf around a PKCS #1 key in DER
(https://github.com/libp2p/specs/blob/master/peer-ids/peer-ids.md).
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

import msgspec
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from node.files.private import OpenToOthersError, read_private, replace_private
from node.identity import base58
from node.identity.key import IdentityError
from protocols.identifiers import Address
from protocols.session import MAX_PUBLIC_KEY, MAX_SIGNATURE, SessionStatement, statement_bytes
from protocols.typed_data import Domain

FILE = "peer.rsa"
"""In the data directory: the imported key, as RL Swarm wrote it."""
STATEMENT = "session.json"
"""In the data directory: the statement for the most recent deployment."""

MIN_BITS, MAX_BITS, EXPONENT = 2048, 4096, 65537
"""RL Swarm creates 2048-bit keys. Larger ones, and other exponents, would let a stranger choose how long a check takes;
smaller ones can be broken."""

_RSA = bytes([0x08, 0x00])
_SHA256_MULTIHASH = bytes([0x12, 32])


class RsaIdentity:
    """An RSA key that is a peer's identity."""

    __slots__ = ("_key", "peer_id", "public_key", "stored")

    def __init__(self, stored: bytes) -> None:
        """Take the content of a binary `swarm.pem`. Raises ValueError if it is not one, or its key is out of bounds."""
        kind, data = _fields(stored)
        if kind != 0:
            raise ValueError(f"a libp2p key of type {kind}, not RSA (0)")
        try:
            key = serialization.load_der_private_key(data, password=None)
        except (TypeError, UnsupportedAlgorithm) as error:
            raise ValueError(str(error)) from error
        if not isinstance(key, rsa.RSAPrivateKey):
            raise ValueError("not an RSA key")  # noqa: TRY004 - what the file holds is wrong, not the argument's type
        self._key = key
        self.stored = stored
        self.public_key = _protobuf(_bounded(key.public_key()))
        self.peer_id = peer_id_of_rsa(self.public_key)

    def bind(self, domain: Domain, session: Address) -> SessionStatement:
        """Return the statement that `session` speaks for this peer id; the same bytes every time."""
        signed = self._key.sign(statement_bytes(domain, session), padding.PKCS1v15(), hashes.SHA256())
        return SessionStatement(self.public_key, signed)

    def __repr__(self) -> str:
        return f"RsaIdentity({self.peer_id})"

    def __reduce__(self) -> str:
        raise TypeError("a key does not leave the process")


@lru_cache(maxsize=1024)
def bound_peer(statement: SessionStatement, domain: Domain, session: Address) -> str:
    """Return the peer id for which `session` speaks at a deployment. Raises ValueError if the statement is not
    valid: another session, chain or contract, a key out of bounds, a bad signature.

    Each of a peer's announcements carries its statement: valid ones are cached, invalid ones are checked again.
    """
    if len(statement.signature) > MAX_SIGNATURE:
        raise ValueError(f"a signature of {len(statement.signature)} bytes, at most {MAX_SIGNATURE} are taken")
    key = _public_key(statement.public_key)
    try:
        key.verify(statement.signature, statement_bytes(domain, session), padding.PKCS1v15(), hashes.SHA256())
    except InvalidSignature as error:
        raise ValueError("the RSA key did not sign this") from error
    return peer_id_of_rsa(statement.public_key)


def peer_id_of_rsa(public_key: bytes) -> str:
    """Return the peer id of an RSA public key in libp2p's protobuf: base58 of its SHA-256 multihash."""
    return base58.encode(_SHA256_MULTIHASH + hashlib.sha256(public_key).digest())


def load_rsa(home: Path) -> RsaIdentity | None:
    """Return the data directory's RSA identity, None if there is none. Raises `IdentityError`."""
    path = home / FILE
    try:
        return RsaIdentity(read_private(path))
    except FileNotFoundError:
        return None
    except OpenToOthersError as error:
        raise IdentityError(f"the RSA identity {error}") from error
    except OSError as error:
        raise IdentityError(f"{path}: can't read the RSA identity: {error.strerror}; check path and owner") from error
    except ValueError as error:
        raise IdentityError(f"{path}: not an RSA identity ({error}); import it again") from error


def write_statement(home: Path, identity: RsaIdentity, domain: Domain, session: Address) -> SessionStatement:
    """Sign and save the statement for a deployment, replacing an earlier one. Raises OSError."""
    statement = identity.bind(domain, session)
    shown = {"peer_id": identity.peer_id, "session": session, "chain_id": domain.chain_id, "contract": domain.contract}
    signed = {"public_key": statement.public_key.hex(), "signature": statement.signature.hex()}
    replace_private(home / STATEMENT, msgspec.json.format(msgspec.json.encode({**shown, **signed})) + b"\n")
    return statement


@lru_cache(maxsize=1024)
def _public_key(protobuf: bytes) -> rsa.RSAPublicKey:
    """Parse a peer's key. Raises ValueError; the encoding must be canonical, because the peer id is its hash."""
    if len(protobuf) > MAX_PUBLIC_KEY:
        raise ValueError(f"a public key of {len(protobuf)} bytes, at most {MAX_PUBLIC_KEY} are taken")
    kind, data = _fields(protobuf)
    if kind != 0:
        raise ValueError(f"a libp2p key of type {kind}, not RSA (0)")
    try:
        key = serialization.load_der_public_key(data)
    except UnsupportedAlgorithm as error:
        raise ValueError(str(error)) from error
    if not isinstance(key, rsa.RSAPublicKey):
        raise ValueError("not an RSA key")  # noqa: TRY004 - what was sent is wrong, not the argument's type
    if _protobuf(_bounded(key)) != protobuf:
        raise ValueError("not the canonical encoding of the key")
    return key


def _bounded(key: rsa.RSAPublicKey) -> rsa.RSAPublicKey:
    if not MIN_BITS <= key.key_size <= MAX_BITS or key.public_numbers().e != EXPONENT:
        raise ValueError(
            f"{key.key_size} bits with exponent {key.public_numbers().e}; {MIN_BITS} to {MAX_BITS} bits with "
            f"{EXPONENT} are taken"
        )
    return key


def _protobuf(key: rsa.RSAPublicKey) -> bytes:
    data = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return _RSA + b"\x12" + _varint(len(data)) + data


def _varint(number: int) -> bytes:
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def _fields(message: bytes) -> tuple[int, bytes]:
    """Return type and data of libp2p's key protobuf: two fields, in this order. Raises ValueError for anything else."""
    if len(message) < 4 or message[0] != 0x08 or message[2] != 0x12:
        raise ValueError("not libp2p's key protobuf")
    length, shift, place = 0, 0, 3
    while True:
        if place >= len(message) or shift > 14:
            raise ValueError("not libp2p's key protobuf")
        byte = message[place]
        length |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if byte < 0x80:
            break
    if len(message) - place != length:
        raise ValueError(f"the key's protobuf has {len(message) - place} bytes, not {length} as its header says")
    return message[1], message[place:]
