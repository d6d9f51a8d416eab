"""The four cases of key and owner, decided from facts alone."""

from __future__ import annotations

from enum import Enum

import msgspec

from node.exits import Exit, Refusal
from protocols.identifiers import Address


class KeyOwnerCase(Enum):
    """What a node's key and owner are to the contract."""

    NEW_NODE = "new key, new owner"
    SAME = "same key, same owner"
    OTHER_OWNER = "same key, other owner"
    SECOND_NODE = "new key, same owner"


class OwnershipFacts(msgspec.Struct, frozen=True, kw_only=True):
    """`claimed` is the owner in the delegation at hand, None without one: the node then belongs to whom the contract
    says, or to itself. `registered` is the owner in the contract, None where it does not know the key. `siblings`
    counts other nodes that the contract knows of the claimed owner."""

    node: Address
    claimed: Address | None
    registered: Address | None
    siblings: int = 0


EXIT: dict[KeyOwnerCase, Exit] = {
    KeyOwnerCase.NEW_NODE: Exit.NEW_NODE,
    KeyOwnerCase.SAME: Exit.OK,
    KeyOwnerCase.OTHER_OWNER: Exit.OTHER_OWNER,
    KeyOwnerCase.SECOND_NODE: Exit.SECOND_NODE,
}
"""With what `swarm whoami` ends. `swarm run` and `swarm register` refuse the other owner only, with the same code."""


def case_of(facts: OwnershipFacts) -> KeyOwnerCase:
    """Return which of the four cases holds."""
    if facts.registered is not None:
        return KeyOwnerCase.SAME if facts.claimed in (None, facts.registered) else KeyOwnerCase.OTHER_OWNER
    return KeyOwnerCase.SECOND_NODE if facts.siblings else KeyOwnerCase.NEW_NODE


def refuse_other_owner(facts: OwnershipFacts) -> None:
    """Raise `Refusal` where the contract has the key under another owner: the node's votes would be refused."""
    if case_of(facts) is KeyOwnerCase.OTHER_OWNER:
        raise Refusal(Exit.OTHER_OWNER, line(facts))


def line(facts: OwnershipFacts) -> str:
    """Return the case in one line for the operator: what holds, and what to do."""
    owner = facts.claimed or facts.registered or facts.node
    match case_of(facts):
        case KeyOwnerCase.NEW_NODE:
            return f"{facts.node} is new, and so is its owner {owner}; register it: swarm register (or swarm run)"
        case KeyOwnerCase.SAME:
            return f"{facts.node} is registered for its owner {owner}; nothing needs to be done"
        case KeyOwnerCase.SECOND_NODE:
            return (
                f"{facts.node} is new; its owner {owner} has {facts.siblings} other "
                f"node{'s' if facts.siblings > 1 else ''} here; register it: swarm register (or swarm run)"
            )
        case KeyOwnerCase.OTHER_OWNER:
            return (
                f"{facts.node} is registered for owner {facts.registered}, not for {owner}, and a key keeps its owner; "
                "log in as that owner (swarm login), or take a new key (swarm keys new, in another data directory)"
            )
