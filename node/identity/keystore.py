"""Encrypted keystore files, version 3 (https://ethereum.org/developers/docs/data-structures-and-encoding/web3-secret-storage/)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from node.exits import Exit, Refusal
from node.files.private import OpenToOthersError, read_private
from node.identity.key import NodeKey
from node.identity.secret import Secret

WORK = 1 << 18
"""scrypt's n when writing: 0.65 s and 256 MiB, as other wallets write."""
SIZE_LIMIT = 64 << 10


def open_keystore(path: Path, passphrase: Secret) -> NodeKey:
    """Return the key in a keystore file. Raises `Refusal`: wrong passphrase, not a keystore, readable by others."""
    try:
        return decrypt(read_private(path, SIZE_LIMIT), passphrase)
    except OpenToOthersError as error:
        raise Refusal(Exit.SECRET, str(error)) from error
    except OSError as error:
        raise Refusal(Exit.SECRET, f"cannot read {path}: {error.strerror}; check path and owner") from error
    except ValueError as error:
        raise Refusal(Exit.SECRET, f"{path}: {error}") from None


def is_keystore(data: bytes) -> bool:
    """Return True if a file's content looks like a keystore."""
    return data.lstrip().startswith(b"{") and b"crypto" in data.lower()


def decrypt(data: bytes, passphrase: Secret) -> NodeKey:
    """Return the key in a keystore's content. Raises ValueError, phrased for the operator."""
    from eth_account import Account  # imported here because it takes half a second

    try:
        content = msgspec.json.decode(data, type=dict)
        return NodeKey(bytes(Account.decrypt(content, _password(passphrase))))
    except msgspec.DecodeError:
        raise ValueError("not a keystore file; name the owner's v3 keystore") from None
    except ValueError as error:
        if "MAC" in str(error):
            raise ValueError("wrong passphrase; give the one it was encrypted with") from None
        raise ValueError(f"not a v3 keystore ({error}); name the owner's keystore") from None
    except (KeyError, TypeError) as error:
        raise ValueError(f"not a v3 keystore ({error}); name the owner's keystore") from None


def encrypt(key: NodeKey, passphrase: Secret, work: int = WORK) -> bytes:
    """Return a key as a keystore file's content."""
    from eth_account import Account

    content = Account.encrypt(key.secret, _password(passphrase), kdf="scrypt", iterations=work)
    return msgspec.json.encode(content) + b"\n"


def _password(passphrase: Secret) -> Any:
    """Return the bytes; eth-account accepts them, although its type says str. Decoding could fail and print them."""
    return passphrase.reveal()
