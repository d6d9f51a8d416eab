"""The node's secp256k1 key: loaded from or created in a PEM file that only its owner may read."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import coincurve
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from node.exits import Exit, Refusal
from node.files.private import OpenToOthersError, create_private, read_private
from node.identity import base58
from protocols.identifiers import Address, address_of_public_key
from protocols.typed_data import Domain, TypedMessage, digest

_IDENTITY_MULTIHASH = bytes([0x00, 37])
_SECP256K1_PROTOBUF = bytes([0x08, 0x02, 0x12, 33])
_SIZE_LIMIT = 64 << 10
_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
"""Order of secp256k1's group (SEC 2): a secret is below it."""


class IdentityError(Refusal):
    """The key file can't be used; the text is the operator's one-line error."""

    def __init__(self, text: str) -> None:
        super().__init__(Exit.IDENTITY, text)


class NodeKey:
    """A secp256k1 key. `secret` has 32 bytes; `address` is its EVM address; `peer_id` its libp2p id (16Uiu2...).

    Raises ValueError for bytes that are not a valid secret.
    """

    __slots__ = ("_key", "address", "peer_id", "public_key")

    def __init__(self, secret: bytes) -> None:
        if len(secret) != 32 or not 0 < int.from_bytes(secret, "big") < _ORDER:
            raise ValueError("a secret is 32 bytes, not zero and below the order of secp256k1")
        self._key = coincurve.PrivateKey(secret)
        self.public_key = self._key.public_key.format(compressed=False)[1:]
        self.address: Address = address_of_public_key(self.public_key)
        self.peer_id = peer_id_of_public_key(self.public_key)

    @property
    def secret(self) -> bytes:
        """The 32 bytes that must never leave the node."""
        return self._key.secret

    def sign(self, hash32: bytes) -> bytes:
        """Return the deterministic (RFC 6979) recoverable signature of a 32-byte hash: r, s and v in {0, 1}."""
        if len(hash32) != 32:
            raise ValueError(f"a hash of 32 bytes is signed, got {len(hash32)}")
        return self._key.sign_recoverable(hash32, hasher=None)

    def sign_message(self, domain: Domain, message: TypedMessage) -> bytes:
        """Return the signature of an EIP-712 message, as the contract takes it: r, s and v in {27, 28}."""
        signature = self.sign(digest(domain, message))
        return signature[:64] + bytes([27 + signature[64]])

    def __repr__(self) -> str:
        return f"NodeKey({self.address})"

    def __reduce__(self) -> str:
        raise TypeError("a node key does not leave the process")


def recover(hash32: bytes, signature: bytes) -> tuple[Address, bytes]:
    """Return the signer's address and its public key of 64 bytes. Raises ValueError if it is not a signature."""
    try:
        key = coincurve.PublicKey.from_signature_and_message(signature, hash32, hasher=None)
    except ValueError as error:
        raise ValueError(f"not a signature: {error}") from error
    public = key.format(compressed=False)[1:]
    return address_of_public_key(public), public


def peer_id_of_public_key(uncompressed: bytes) -> str:
    """Return the libp2p peer id of a secp256k1 public key of 64 bytes: base58 of the identity multihash of its
    protobuf (https://github.com/libp2p/specs/blob/master/peer-ids/peer-ids.md)."""
    if len(uncompressed) != 64:
        raise ValueError(f"a public key has 64 bytes without its prefix, got {len(uncompressed)}")
    compressed = bytes([2 + (uncompressed[-1] & 1)]) + uncompressed[:32]
    return base58.encode(_IDENTITY_MULTIHASH + _SECP256K1_PROTOBUF + compressed)


def public_key_of_peer_id(peer_id: str) -> bytes:
    """Return the 64-byte secp256k1 public key inside a peer id. Raises ValueError if it has none."""
    raw = base58.decode(peer_id)
    head = _IDENTITY_MULTIHASH + _SECP256K1_PROTOBUF
    if len(raw) != len(head) + 33 or not raw.startswith(head):
        raise ValueError(f"{peer_id} does not contain a secp256k1 public key")
    return coincurve.PublicKey(raw[len(head) :]).format(compressed=False)[1:]


def load_or_create(path: Path, *, used: bool = False) -> NodeKey:
    """Return the key in `path`; create it (PKCS #8 PEM, mode 0600, atomically) if there is none.

    `used`: there was a key before. A missing one is lost then, or its path mistyped; a new one would be another node.
    Raises `IdentityError` for that, and if others can read the file, it is not a secp256k1 key, or it can't be read or
    written.
    """
    try:
        return load(path)
    except FileNotFoundError as error:
        if used:
            raise IdentityError(
                f"{path}: the node key is missing, but this directory had one; restore it from a backup, or correct "
                "the path (identity); a new node needs another --data-dir"
            ) from error
        with suppress(FileExistsError):
            create(path, new_key())
        return load(path)


def load(path: Path) -> NodeKey:
    """Return the key in `path`. Raises FileNotFoundError if there is none, `IdentityError` like `load_or_create`."""
    try:
        return NodeKey(secret_of_pem(path, read_private(path, _SIZE_LIMIT)))
    except FileNotFoundError:
        raise
    except OpenToOthersError as error:
        raise IdentityError(f"the node key {error}") from error
    except OSError as error:
        raise IdentityError(f"{path}: can't read the node key: {error.strerror}; check path and owner") from error


def create(path: Path, key: NodeKey) -> None:
    """Write a key to a new file. Raises FileExistsError, else `IdentityError`."""
    try:
        create_private(path, pem_of(key))
    except FileExistsError:
        raise
    except OSError as error:
        raise IdentityError(
            f"{path}: can't write the node key: {error.strerror}; check path and permissions"
        ) from error


def new_key() -> NodeKey:
    """Return a new random key."""
    return NodeKey(coincurve.PrivateKey().secret)


def pem_of(key: NodeKey) -> bytes:
    """Return a key as unencrypted PKCS #8 PEM."""
    private = ec.derive_private_key(int.from_bytes(key.secret, "big"), ec.SECP256K1())
    return private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def secret_of_pem(path: Path, data: bytes) -> bytes:
    """Return the 32-byte secret in a PEM file's content. `path` is for the error text; raises `IdentityError`."""
    if not data.lstrip().startswith(b"-----BEGIN"):
        raise IdentityError(
            f"{path}: not a PEM file; if it is RL Swarm's, move it away and run `swarm keys import` on it"
        )
    try:
        key = serialization.load_pem_private_key(data, password=None)
    except (ValueError, TypeError) as error:
        raise IdentityError(f"{path}: not an unencrypted private key; restore it from a backup ({error})") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256K1):
        raise IdentityError(f"{path}: the key is not secp256k1, which a node needs; restore the node key from a backup")
    return key.private_numbers().private_value.to_bytes(32, "big")
