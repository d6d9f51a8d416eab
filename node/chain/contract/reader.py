"""What is asked of a coordinator's views, whichever contract it is. The readers in `node.chain.readers` answer.

Every method raises `RpcError`, `ConnectionLostError` or `NoCoordinatorError`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from node.chain.contract.swarm import Voter
from node.machine.commands import ChainCommand
from node.machine.inputs import StageOpened
from node.ports.chain import ChainUnavailableError
from protocols.deployment import CoordinatorFacts, NodeEntry
from protocols.identifiers import Address


class NoCoordinatorError(ChainUnavailableError):
    """The address holds no coordinator on this chain."""


class Outcome(msgspec.Struct, frozen=True):
    """How a command ended; `error` names the contract's error where it failed."""

    ok: bool
    error: str = ""


DONE = Outcome(ok=True)


class Inclusion(msgspec.Struct, frozen=True):
    """The transaction that put a message on chain, and its block; empty and 0 where that is not known."""

    transaction: str = ""
    block: int = 0


class RelayReader(Protocol):
    """The views that relaying needs: the register, and what nodes have on chain."""

    async def node(self, address: Address, block: str = "latest") -> NodeEntry:
        """Return what the register says of a node, in a block (hexadecimal)."""

    async def ballots(self, nodes: Sequence[Address], round_number: int) -> list[tuple[int, bytes]]:
        """Return each node's ballot of one of the last two rounds: its state, and what is kept of its commitment."""

    async def rewards(self, nodes: Sequence[Address], round_number: int) -> list[int]:
        """Return for each node the stages, as bits, whose rewards of one of the last two rounds are on chain."""

    async def gas_of(self, data: str) -> int | None:
        """Return the gas that a call from anybody would take now; None where it would fail, or the endpoint says so."""


class CoordinatorReader(Protocol):
    """The contract's views on one endpoint."""

    @property
    def relay(self) -> RelayReader | None:
        """The views that relaying needs; None where the contract takes no messages from others."""

    async def facts(self) -> CoordinatorFacts:
        """Return what the contract fixed. What it does not fix is empty, and 0 seconds for a stage."""

    async def stage(self, block: int) -> StageOpened:
        """Return the stage that was open in a block."""

    async def paused_until(self, block: int) -> int:
        """Return until when the swarm was paused in a block, in chain seconds; in the past or 0 where it ran."""

    async def bootnodes(self) -> tuple[str, ...]:
        """Return the bootnodes' multiaddrs."""

    async def precheck(self, command: ChainCommand | None, voter: Voter, now: int) -> Outcome | None:
        """Return how a command has ended before it is sent; None where sending it still makes sense.

        `now` in chain seconds.
        """

    async def is_on_chain(self, command: ChainCommand, voter: Voter) -> bool:
        """Return True if the contract has already exactly what this command would submit."""

    async def inclusion(self, command: ChainCommand, voter: Voter) -> Inclusion:
        """Return how what a command submits came on chain, whoever sent it."""

    async def owner_of(self, node: Address) -> Address | None:
        """Return a node's owner; None where the contract does not know the node, or knows no owners."""

    async def account_of_peer_id(self) -> Address | None:
        """Return the account that this node's peer id is bound to; None where it is free, or can't be bound."""
