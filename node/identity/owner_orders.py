"""An owner's orders: that a node is theirs (delegation) or no longer theirs (revocation). Requested, signed, checked.

An order travels as one line of JSON: from the node to wherever the owner's key is, and back with a signature. It holds
no secret. The answer is checked against the node's own key and deployment, so no state is kept in between.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import coincurve
import msgspec
from msgspec.structs import replace

from node.exits import Exit, Refusal
from node.identity.key import recover
from protocols.identifiers import Address
from protocols.typed_data import Delegation, Domain, Revocation, digest, typed_data

FORMAT: Literal["swarm-order"] = "swarm-order"
VERSION: Literal[1] = 1
DAYS = 90
"""Default duration of a delegation."""
SIZE_LIMIT = 64 << 10

Ordered: TypeAlias = Delegation | Revocation

_HALF_ORDER = coincurve.utils.GROUP_ORDER_INT // 2


class OwnerOrder(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An order as it travels. An empty `owner` means whoever signs; byte strings are hex digits.

    `typed_data` repeats it in the form that wallets take (`eth_signTypedData_v4`); it is written, never read.
    """

    format: Literal["swarm-order"]
    version: Literal[1]
    kind: Literal["delegation", "revocation"]
    chain_id: int
    contract: Address
    salt: str
    node: Address
    serial: int
    expiry: int = 0
    owner: Address = ""
    signature: str = ""
    typed_data: dict[str, Any] | None = None


def order_of(domain: Domain, message: Ordered) -> OwnerOrder:
    """Return the request for a signature; `message.owner` may be empty."""
    order = OwnerOrder(
        format=FORMAT,
        version=VERSION,
        kind="delegation" if isinstance(message, Delegation) else "revocation",
        chain_id=domain.chain_id,
        contract=domain.contract,
        salt=domain.salt.hex(),
        node=message.node,
        serial=message.serial,
        expiry=message.expiry if isinstance(message, Delegation) else 0,
        owner=message.owner,
    )
    return replace(order, typed_data=typed_data(domain, message)) if message.owner else order


def domain_of(order: OwnerOrder) -> Domain:
    """Return the deployment that an order is for. Raises ValueError."""
    return Domain(order.chain_id, order.contract, bytes.fromhex(order.salt))


def message_of(order: OwnerOrder) -> Ordered:
    """Return the message to sign."""
    if order.kind == "delegation":
        return Delegation(order.owner, order.node, order.serial, order.expiry)
    return Revocation(order.owner, order.node, order.serial)


def encode_order(order: OwnerOrder) -> str:
    """Return an order as one line."""
    return msgspec.json.encode(order).decode()


def decode_order(text: str) -> OwnerOrder:
    """Read an order from pasted text, which may contain a terminal's line breaks. Raises `Refusal` if it is not one."""
    joined = "".join(line.strip() for line in text[:SIZE_LIMIT].splitlines())
    try:
        order = msgspec.json.decode(joined, type=OwnerOrder)
        digest(domain_of(order), message_of(replace(order, owner=order.owner or order.node)))
    except ValueError as error:
        raise Refusal(Exit.DELEGATION, f"the input is not an order ({error}); paste the whole line") from error
    lowered = {name: getattr(order, name).lower() for name in ("contract", "node", "owner")}
    return replace(order, typed_data=None, **lowered)


def answered(order: OwnerOrder, owner: Address, signature: bytes) -> OwnerOrder:
    """Return the order with its owner's signature. Raises `Refusal` if it names another owner."""
    if order.owner not in ("", owner):
        raise Refusal(
            Exit.DELEGATION,
            f"the order asks for owner {order.owner}, this key is {owner}; use that owner's key, or request it again",
        )
    return replace(order, owner=owner, signature=normalised(signature).hex(), typed_data=None)


def problem(order: OwnerOrder, domain: Domain, node: Address, now: float) -> str:
    """Return why an answer is not valid for this node now; empty if it is. Does not check the signature."""
    if not order.owner or not order.signature:
        return "it is not signed yet; sign it where the owner's key is: swarm login --sign FILE"
    if (order.chain_id, order.contract) != (domain.chain_id, domain.contract):
        return f"it is for contract {order.contract} on chain {order.chain_id}, this node's is {domain.contract}"
    if order.salt != domain.salt.hex():
        return "it is for an earlier deployment at the same address; request the signature again"
    if order.node != node:
        return f"it is for node {order.node}, this one is {node}; request the signature here"
    if order.kind == "delegation" and order.expiry <= now:
        return "it has expired; request the signature again"
    return ""


def owner_signed(domain: Domain, message: Ordered, signature: bytes) -> bool:
    """Return True if an ordinary account signed; only its contract can check a contract wallet's signature."""
    if len(signature) != 65 or signature[64] not in (27, 28):
        return False
    try:
        signer, _ = recover(digest(domain, message), signature[:64] + bytes([signature[64] - 27]))
    except ValueError:
        return False
    return signer == message.owner


def normalised(signature: bytes) -> bytes:
    """Return a wallet's signature as the contract takes it: v 27 or 28, s in the lower half (EIP-2).

    A signature of another length than 65 bytes is a contract wallet's and is returned unchanged.
    """
    if len(signature) != 65:
        return signature
    s, v = int.from_bytes(signature[32:64], "big"), signature[64]
    v += 27 if v < 2 else 0
    if s > _HALF_ORDER and v in (27, 28):
        s, v = coincurve.utils.GROUP_ORDER_INT - s, 55 - v
    return signature[:32] + s.to_bytes(32, "big") + bytes([v])
