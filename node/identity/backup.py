"""One encrypted file that holds an identity: node key, RSA identity, delegation, and what the key signed. Pure.

The file is a line of JSON with the encryption parameters, a newline, and the ciphertext: ChaCha20-Poly1305 (RFC 8439)
under a key that scrypt (RFC 7914) derives from the passphrase. The first line is authenticated with the rest.
"""

from __future__ import annotations

import os
from typing import Annotated, Literal

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from msgspec import Meta

from node.exits import Exit, Refusal
from node.identity.secret import Secret
from protocols.identifiers import Address

FORMAT: Literal["swarm-backup"] = "swarm-backup"
VERSION = 1
WORK = 1 << 17
"""scrypt's n when writing: each guess of the passphrase costs 128 MiB and a third of a second."""
MOST_WORK = 1 << 20
"""Most that a file may ask for when reading: 1 GiB. The header is authenticated only after the work is done."""
HEAD_LIMIT = 1024

Hex16 = Annotated[str, Meta(pattern="^[0-9a-f]{32}$")]
Hex12 = Annotated[str, Meta(pattern="^[0-9a-f]{24}$")]


class BackedUpIdentity(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of a backup: PEM, binary RSA key and delegation.json as in their files, empty if there is none, and
    the vote history in its published form. `created` is Unix seconds."""

    node: Address
    created: float
    key: bytes = msgspec.field()
    rsa: bytes = b""
    delegation: bytes = b""
    votes: bytes = b""

    def __repr__(self) -> str:
        return f"Identity({self.node})"


class BackupHeader(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The first line. It names the node, so that backups can be distinguished without the passphrase."""

    format: Literal["swarm-backup"]
    version: int
    node: Address
    n: Annotated[int, Meta(ge=2, le=MOST_WORK)]
    salt: Hex16
    nonce: Hex12


def seal(identity: BackedUpIdentity, passphrase: Secret, work: int = WORK) -> bytes:
    """Return the file's content. Every call takes a new salt and nonce."""
    head = BackupHeader(FORMAT, VERSION, identity.node, work, os.urandom(16).hex(), os.urandom(12).hex())
    line = msgspec.json.encode(head)
    return line + b"\n" + _cipher(head, passphrase).encrypt(_nonce(head), msgspec.msgpack.encode(identity), line)


def head_of(content: bytes) -> BackupHeader:
    """Return a backup's first line, which is not authenticated yet. Raises `Refusal` if it is not a backup."""
    line, _, _ = content[:HEAD_LIMIT].partition(b"\n")
    try:
        head = msgspec.json.decode(line, type=BackupHeader)
    except ValueError as error:
        raise Refusal(Exit.BACKUP, f"this is not a backup of a node ({error}); name the file") from error
    if head.version != VERSION:
        raise Refusal(
            Exit.BACKUP, f"the backup has version {head.version}, this program supports {VERSION}; use a newer program"
        )
    return head


def unseal(content: bytes, passphrase: Secret) -> BackedUpIdentity:
    """Return the content of a backup. Raises `Refusal`: not a backup, wrong passphrase, or modified content."""
    head = head_of(content)
    line, _, sealed = content.partition(b"\n")
    try:
        identity = msgspec.msgpack.decode(
            _cipher(head, passphrase).decrypt(_nonce(head), sealed, line), type=BackedUpIdentity
        )
    except InvalidTag:
        raise Refusal(
            Exit.SECRET, "wrong passphrase, or the backup was modified; try the passphrase again, or another copy"
        ) from None
    except ValueError as error:
        raise Refusal(Exit.BACKUP, f"the backup can't be read ({error}); use the program that wrote it") from error
    return identity


def _cipher(head: BackupHeader, passphrase: Secret) -> ChaCha20Poly1305:
    salt = bytes.fromhex(head.salt)
    return ChaCha20Poly1305(Scrypt(salt=salt, length=32, n=head.n, r=8, p=1).derive(passphrase.reveal()))


def _nonce(head: BackupHeader) -> bytes:
    return bytes.fromhex(head.nonce)
