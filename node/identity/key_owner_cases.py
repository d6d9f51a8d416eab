"""The four cases of key and owner, decided from facts alone."""

from __future__ import annotations

from enum import Enum

import msgspec

from node.exits import Exit, Refusal
from protocols.identifiers import Address


class KeyOwnerCase(Enum):
    """How the contract knows a node's key and owner."""

    NEW_NODE = "new key, new owner"
    SAME = "same key, same owner"
    OTHER_OWNER = "same key, other owner"
    SECOND_NODE = "new key, same owner"


class OwnershipFacts(msgspec.Struct, frozen=True, kw_only=True):
    """`claimed` is the owner in the local delegation, None without one: the contract's owner or the node itself then
    counts. `registered` is the owner in the contract, None if it does not know the key. `siblings` counts the claimed
    owner's other nodes in the contract."""

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
"""Exit code of `swarm whoami`. `swarm run` and `swarm register` refuse only the other owner, with the same code."""


def case_of(facts: OwnershipFacts) -> KeyOwnerCase:
    """Return which of the four cases holds."""
    if facts.registered is not None:
        return KeyOwnerCase.SAME if facts.claimed in (None, facts.registered) else KeyOwnerCase.OTHER_OWNER
    return KeyOwnerCase.SECOND_NODE if facts.siblings else KeyOwnerCase.NEW_NODE


def refuse_other_owner(facts: OwnershipFacts) -> None:
    """Raise `Refusal` if the contract has the key under another owner: the node's votes would be refused."""
    if case_of(facts) is KeyOwnerCase.OTHER_OWNER:
        raise Refusal(Exit.OTHER_OWNER, line(facts))


def line(facts: OwnershipFacts) -> str:
    """Return the case in one line for the operator: the state, and what to do."""
    owner = facts.claimed or facts.registered or facts.node
    match case_of(facts):
        case KeyOwnerCase.NEW_NODE:
            return f"{facts.node} is new, and so is its owner {owner}; register it: swarm register (or swarm run)"
        case KeyOwnerCase.SAME:
            return f"{facts.node} is registered for its owner {owner}; nothing to do"
        case KeyOwnerCase.SECOND_NODE:
            return (
                f"{facts.node} is new; its owner {owner} has {facts.siblings} other "
                f"node{'s' if facts.siblings > 1 else ''} here; register it: swarm register (or swarm run)"
            )
        case KeyOwnerCase.OTHER_OWNER:
            return (
                f"{facts.node} is registered for owner {facts.registered}, not for {owner}, and a key keeps its owner; "
                "log in as that owner (swarm login), or create a new key (swarm keys new, in another data directory)"
            )
