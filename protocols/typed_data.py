"""The coordinator's signed messages: their EIP-712 digests, and the JSON form that wallets sign.

Source: EIP-712. A signature is 65 bytes, r || s || v, v 27 or 28, s in the lower half (EIP-2).
"""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec
from msgspec.structs import asdict

from protocols.identifiers import Address, Seed, keccak256

NAME, VERSION = "SwarmCoordinator", "1"


class Domain(msgspec.Struct, frozen=True):
    """One deployment. `salt` is 32 bytes made by its constructor: a local chain that starts afresh repeats the rest."""

    chain_id: int
    contract: Address
    salt: bytes


class Delegation(msgspec.Struct, frozen=True):
    """An owner takes ownership of a node. Signed by the owner, and for a registration by the node.

    `serial` is milliseconds of the signer's clock, above that of the node's last delegation or revocation. `expiry` is
    in chain seconds.
    """

    owner: Address
    node: Address
    serial: int
    expiry: int


class Revocation(msgspec.Struct, frozen=True):
    """An owner ends a delegation, at once. Signed by the owner; `serial` as in `Delegation`."""

    owner: Address
    node: Address
    serial: int


class Commitment(msgspec.Struct, frozen=True):
    """A sealed vote, see `protocols.voting`. Signed by the node."""

    round: int
    seed: Seed
    commitment: bytes


class Vote(msgspec.Struct, frozen=True):
    """An open vote; winners ascending. Signed by the node."""

    round: int
    seed: Seed
    winners: tuple[Address, ...]


class Reward(msgspec.Struct, frozen=True):
    """A node's own reward of a stage, in millionths. Signed by the node."""

    round: int
    stage: int
    seed: Seed
    reward: int


TypedMessage: TypeAlias = Delegation | Revocation | Commitment | Vote | Reward

DOMAIN_TYPES = {
    "name": "string",
    "version": "string",
    "chainId": "uint256",
    "verifyingContract": "address",
    "salt": "bytes32",
}

MEMBER_TYPES: dict[type[TypedMessage], tuple[str, ...]] = {
    Delegation: ("address", "address", "uint64", "uint64"),
    Revocation: ("address", "address", "uint64"),
    Commitment: ("uint64", "bytes32", "bytes32"),
    Vote: ("uint64", "bytes32", "address[]"),
    Reward: ("uint64", "uint8", "bytes32", "int256"),
}
"""Types of the members, in the order in which the structs name them."""


def digest(domain: Domain, message: TypedMessage) -> bytes:
    """Return the 32 bytes that are signed. Raises ValueError where a value does not fit its type."""
    separator = _hash_struct("EIP712Domain", DOMAIN_TYPES, _domain_values(domain))
    body = _hash_struct(type(message).__name__, _types(message), asdict(message))
    return keccak256(b"\x19\x01" + separator + body)


def typed_data(domain: Domain, message: TypedMessage) -> dict[str, Any]:
    """Return the JSON form that `eth_signTypedData_v4` takes."""
    name = type(message).__name__
    return {
        "types": {"EIP712Domain": _members(DOMAIN_TYPES), name: _members(_types(message))},
        "primaryType": name,
        "domain": _shown(_domain_values(domain)),
        "message": _shown(asdict(message)),
    }


def _types(message: TypedMessage) -> dict[str, str]:
    return dict(zip(message.__struct_fields__, MEMBER_TYPES[type(message)], strict=True))


def _domain_values(domain: Domain) -> dict[str, Any]:
    values = (NAME, VERSION, domain.chain_id, domain.contract, domain.salt)
    return dict(zip(DOMAIN_TYPES, values, strict=True))


def _members(types: dict[str, str]) -> list[dict[str, str]]:
    return [{"name": name, "type": kind} for name, kind in types.items()]


def _shown(values: dict[str, Any]) -> dict[str, Any]:
    """Return values as JSON has them: bytes as "0x" and hex digits, an array as a list."""
    return {name: _json(value) for name, value in values.items()}


def _json(value: Any) -> Any:
    if isinstance(value, bytes):
        return "0x" + value.hex()
    return list(value) if isinstance(value, tuple) else value


def _hash_struct(name: str, types: dict[str, str], values: dict[str, Any]) -> bytes:
    """Return `hashStruct` of EIP-712: the hash of the type's hash and one word for each member."""
    encoded = f"{name}({','.join(f'{kind} {member}' for member, kind in types.items())})"
    return keccak256(
        keccak256(encoded.encode()) + b"".join(_word(kind, values[member]) for member, kind in types.items())
    )


def _word(kind: str, value: Any) -> bytes:
    """Return a member's 32-byte word. Raises ValueError where the value does not fit."""
    if kind.endswith("[]"):
        return keccak256(b"".join(_word(kind[:-2], item) for item in value))
    if kind == "string":
        return keccak256(value.encode())
    if kind == "bytes32" and len(value) == 32:
        return bytes(value)
    if kind == "address" and len(value) == 42:
        return bytes(12) + bytes.fromhex(value[2:])
    if kind.startswith(("uint", "int")):
        return _integer(kind, value)
    raise ValueError(f"{value!r} is no {kind}")


def _integer(kind: str, value: int) -> bytes:
    signed = kind.startswith("int")
    bits = int(kind.removeprefix("u").removeprefix("int")) - signed
    if not (-(2**bits) if signed else 0) <= value < 2**bits:
        raise ValueError(f"{value} is no {kind}")
    return value.to_bytes(32, "big", signed=signed)
