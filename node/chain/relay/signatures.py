"""Signatures of the coordinator's messages: making them, and whose they are. Pure."""

from __future__ import annotations

from eth_account import Account
from eth_account.signers.local import LocalAccount
from eth_keys.exceptions import BadSignature
from eth_typing import Hash32
from eth_utils.exceptions import ValidationError

from protocols.identifiers import Address, Seed
from protocols.signed_messages import MESSAGE_RULES, RelayedMessage, SignedDelegation, kind_of, signer_named
from protocols.typed_data import Delegation, Domain, TypedMessage, digest

HALF_ORDER = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0
"""Half the order of secp256k1: a signature with an s above it is malleable (EIP-2)."""


def sign(domain: Domain, message: TypedMessage, account: LocalAccount) -> bytes:
    """Return the 65-byte signature of a message."""
    return bytes(account.unsafe_sign_hash(Hash32(digest(domain, message))).signature)


def signer_of(domain: Domain, message: TypedMessage, signature: bytes) -> Address | None:
    """Return who signed a message, None where the contract would take the signature for nobody's."""
    if len(signature) != 65 or signature[64] not in (27, 28) or int.from_bytes(signature[32:64], "big") > HALF_ORDER:
        return None
    try:
        return str(Account._recover_hash(digest(domain, message), signature=signature)).lower()
    except (ValueError, ValidationError, BadSignature):
        return None


def is_signed(domain: Domain, relayed: RelayedMessage, seed: Seed) -> bool:
    """Return True if a message has the signature of the key that it must be from, or needs none.

    `seed` is that of the round which the message is about. A contract wallet's signature is nobody's here.
    """
    rules = MESSAGE_RULES[kind_of(relayed.message)]
    if rules.signed is None:
        return True
    typed, signature = rules.signed(relayed.message, seed), rules.signature(relayed.message)
    return signer_of(domain, typed, signature) == signer_named(relayed)


def own_delegation(domain: Domain, account: LocalAccount, serial: int) -> SignedDelegation:
    """Return the delegation of a node that is its own owner, for ever; `serial` in milliseconds."""
    address = str(account.address).lower()
    typed = Delegation(address, address, serial, 2**64 - 1)
    signature = sign(domain, typed, account)
    return SignedDelegation.of(typed, signature, signature)


def compact(signature: bytes) -> bytes:
    """Return a 65-byte signature in the 64 bytes of EIP-2098: the parity is the top bit of s."""
    return signature[:32] + bytes([signature[32] | (signature[64] - 27) << 7]) + signature[33:64]
