"""The node's secp256k1 key: loaded from or created in a PEM file that only its owner may read."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

import coincurve
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from node.identity import base58
from protocols.identifiers import Address, address_of_public_key

_IDENTITY_MULTIHASH = bytes([0x00, 37])
_SECP256K1_PROTOBUF = bytes([0x08, 0x02, 0x12, 33])
_SIZE_LIMIT = 64 << 10


class IdentityError(Exception):
    """The key file can't be used; the text is the one line that the operator sees."""


class NodeKey:
    """A secp256k1 key. `secret` has 32 bytes; `address` is its EVM address; `peer_id` its libp2p id (16Uiu2...)."""

    __slots__ = ("_key", "address", "peer_id", "public_key")

    def __init__(self, secret: bytes) -> None:
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

    def __repr__(self) -> str:
        return f"NodeKey({self.address})"


def recover(hash32: bytes, signature: bytes) -> tuple[Address, bytes]:
    """Return the signer's address and its public key of 64 bytes. Raises ValueError for what is no signature."""
    try:
        key = coincurve.PublicKey.from_signature_and_message(signature, hash32, hasher=None)
    except Exception as error:
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
    """Return the 64-byte secp256k1 public key inside a peer id. Raises ValueError where it holds none."""
    raw = base58.decode(peer_id)
    head = _IDENTITY_MULTIHASH + _SECP256K1_PROTOBUF
    if len(raw) != len(head) + 33 or not raw.startswith(head):
        raise ValueError(f"{peer_id} does not contain a secp256k1 public key")
    return coincurve.PublicKey(raw[len(head) :]).format(compressed=False)[1:]


def load_or_create(path: Path) -> NodeKey:
    """Return the key in `path`, created there (PKCS #8 PEM, mode 0600, atomically) where there is none.

    Raises `IdentityError` where the file is readable by others, is no secp256k1 key, or can't be read or written.
    """
    try:
        return _load(path)
    except FileNotFoundError:
        return _create(path)
    except OSError as error:
        raise IdentityError(f"{path}: can't read the node key: {error.strerror}; check path and owner") from error


def _load(path: Path) -> NodeKey:
    with path.open("rb") as file:
        info = os.fstat(file.fileno())
        data = file.read(_SIZE_LIMIT)
    if stat.S_IMODE(info.st_mode) & 0o077:
        raise IdentityError(f"{path}: others may read the node key; run: chmod 600 {path}")
    return NodeKey(_secret_of_pem(path, data))


def _secret_of_pem(path: Path, data: bytes) -> bytes:
    if not data.lstrip().startswith(b"-----BEGIN"):
        raise IdentityError(f"{path}: not a PEM file; name another file, or move this one away to get a new key")
    try:
        key = serialization.load_pem_private_key(data, password=None)
    except (ValueError, TypeError) as error:
        raise IdentityError(f"{path}: not an unencrypted private key; restore it from a backup ({error})") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256K1):
        raise IdentityError(f"{path}: holds another kind of key; a node needs secp256k1")
    return key.private_numbers().private_value.to_bytes(32, "big")


def _create(path: Path) -> NodeKey:
    """Write a new key beside `path` and link it there: another process that is faster wins, nothing is replaced."""
    key = coincurve.PrivateKey()
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_private(draft, _pem(key.secret))
        with suppress(FileExistsError):
            os.link(draft, path)
        draft.unlink()
        _sync_directory(path.parent)
        return _load(path)
    except OSError as error:
        raise IdentityError(f"{path}: can't write the node key: {error.strerror}; check path and rights") from error


def _pem(secret: bytes) -> bytes:
    key = ec.derive_private_key(int.from_bytes(secret, "big"), ec.SECP256K1())
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write_private(path: Path, data: bytes) -> None:
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
