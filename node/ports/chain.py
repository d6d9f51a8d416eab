"""What the node asks of the chain."""

from __future__ import annotations

from typing import Protocol

from node.machine.commands import ChainCommand, OwnMessage
from node.ports.service import Service
from protocols.deployment import CoordinatorFacts, NodeEntry
from protocols.identifiers import Address
from protocols.signed_messages import SignedDelegation, SignedMessage


class ChainUnavailableError(Exception):
    """The chain can't be asked: no endpoint answers, or what answers is no coordinator."""


class ChainService(Service[ChainCommand], Protocol):
    """The node's view of the coordinator. Commands settle with `TransactionSettled`, over crashes."""

    @property
    def delegation(self) -> SignedDelegation | None:
        """The owner's delegation that is used; None where the node is its own owner."""

    @property
    def register_entry(self) -> NodeEntry | None:
        """How the register has this node, as far as it is confirmed; None until it was read."""

    def join(self, facts: CoordinatorFacts, delegation: SignedDelegation | None) -> None:
        """Take the deployment and the owner's delegation for it: from now on this node's messages can be signed.

        Called again with a newer delegation.
        """

    def signed_messages(self, commands: tuple[OwnMessage, ...]) -> tuple[SignedMessage, ...]:
        """Return this node's own messages, to be attached to an announcement; none before `join`.

        What the vote protection forbids is left out.
        """

    def registration(self) -> SignedDelegation | None:
        """Return the delegation with which anybody can register this node; None before `join`."""

    async def read_facts(self) -> CoordinatorFacts:
        """Return what the contract fixed. Raises `ChainUnavailableError`, and `Refusal` for what an operator mends."""

    async def read_owner(self) -> Address | None:
        """Return this node's owner in the contract; None where it does not know the node, or can't be asked."""

    async def read_bootnodes(self) -> tuple[str, ...]:
        """Return the contract's bootnodes; those read last while the chain is away."""
