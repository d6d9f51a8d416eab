"""The owner's orders on disk: `delegation.json` while they own the node, `revocation.json` until it is on chain."""

from __future__ import annotations

from pathlib import Path

import msgspec

from node.exits import Exit, Refusal
from node.files.private import OpenToOthersError, read_private, replace_private
from node.identity.key import NodeKey
from node.identity.owner_orders import OwnerOrder, decode_order, domain_of, encode_order, message_of
from protocols.delegation import renews
from protocols.signed_messages import SignedDelegation, SignedMessage, SignedRevocation
from protocols.typed_data import Delegation, Domain

FILE = "delegation.json"
REVOCATION = "revocation.json"


class StoredDelegation(msgspec.Struct, frozen=True):
    """The content of delegation.json: the owner's order, signed, and the node's consent (hex)."""

    order: OwnerOrder
    node_signature: str


def save_delegation(home: Path, order: OwnerOrder, key: NodeKey) -> SignedDelegation:
    """Save a checked order with the node's own signature under it. Raises OSError."""
    kept = StoredDelegation(order, key.sign_message(domain_of(order), message_of(order)).hex())
    replace_private(home / FILE, msgspec.json.format(msgspec.json.encode(kept)) + b"\n")
    return _signed(kept)


def load_delegation(home: Path, domain: Domain | None = None) -> SignedDelegation | None:
    """Return the saved delegation, None if there is none or it is for a deployment other than `domain`.

    Raises `Refusal` if the file can't be used.
    """
    kept = load_kept(home)
    if kept is None or (domain is not None and domain_of(kept.order) != domain):
        return None
    return _signed(kept)


def load_kept(home: Path) -> StoredDelegation | None:
    """Return the content of delegation.json, None if there is none. Raises `Refusal` if it can't be used."""
    path = home / FILE
    try:
        return decode_kept(read_private(path))
    except FileNotFoundError:
        return None
    except OpenToOthersError as error:
        raise Refusal(Exit.DELEGATION, str(error)) from error
    except OSError as error:
        raise Refusal(Exit.DELEGATION, f"cannot read {path}: {error.strerror}; check path and owner") from error
    except ValueError as error:
        raise Refusal(Exit.DELEGATION, f"{path} is damaged ({error}); move it away and run `swarm login`") from error


def decode_kept(data: bytes) -> StoredDelegation:
    """Decode the content of delegation.json. Raises ValueError for anything but a delegation."""
    kept = msgspec.json.decode(data, type=StoredDelegation)
    _signed(kept)
    return kept


def save_revocation(home: Path, order: OwnerOrder) -> None:
    """Save a signed revocation until somebody has submitted it. Raises OSError."""
    replace_private(home / REVOCATION, encode_order(order).encode() + b"\n")


def load_revocation(home: Path) -> OwnerOrder | None:
    """Return the pending revocation, None if there is none. Raises `Refusal` if it can't be used."""
    try:
        return decode_order((home / REVOCATION).read_text())
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise Refusal(Exit.DELEGATION, f"cannot read {home / REVOCATION} ({error}); run `swarm logout`") from error


def waiting_orders(home: Path, domain: Domain, serial: int, expiry: int) -> tuple[SignedMessage, ...]:
    """Return the owner's orders that wait for a relayer, as they travel in announcements.

    `serial` (milliseconds) and `expiry` (chain seconds) are this node's in the contract's register; both 0 if it is not
    registered. A revocation that is on chain is deleted. Raises `Refusal` if a file can't be used, OSError.
    """
    orders: list[SignedMessage] = []
    revocation = load_revocation(home)
    if revocation is not None and 0 < revocation.serial <= serial:
        (home / REVOCATION).unlink(missing_ok=True)
    elif revocation is not None:
        signature = bytes.fromhex(revocation.signature)
        orders.append(SignedRevocation(revocation.owner, revocation.node, revocation.serial, signature))
    signed = load_delegation(home, domain)
    if signed is not None and serial and renews(signed.delegation, serial, expiry):
        orders.append(signed)
    return tuple(orders)


def _signed(kept: StoredDelegation) -> SignedDelegation:
    message = message_of(kept.order)
    if not isinstance(message, Delegation):
        raise ValueError("not a delegation")  # noqa: TRY004 - what the file holds is wrong, not the argument's type
    return SignedDelegation.of(message, bytes.fromhex(kept.order.signature), bytes.fromhex(kept.node_signature))
