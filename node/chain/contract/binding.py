"""The coordinator's interface, whichever contract it is: calls, events and errors in the node's words. Pure.

`SwarmBinding` is our own contract's, over `node.chain.contract.swarm`; `node.chain.contract.rlswarm` is RL Swarm's.
"""

from __future__ import annotations

from typing import Protocol

from node.chain.contract import swarm
from node.chain.contract.abi import Abi, DecodedEvent, Revert
from node.chain.contract.swarm import SettlementVerdict, Voter
from node.chain.rpc.blocks import BlockHead, Log
from node.machine.commands import ChainCommand, VoteCommand
from node.machine.inputs import PeerRegistered, StageOpened
from protocols.identifiers import Address


class CoordinatorBinding(Protocol):
    """One contract's interface. It may remember the logs that its methods were given."""

    abi: Abi
    topics: list[str]
    """Events that are asked of old blocks (their first topics): stages that are over open nothing any more."""
    block_topics: list[str]
    """Events that are asked of each new block. Everybody's rewards and votes would be megabytes a stage."""

    def call_data(self, command: ChainCommand, voter: Voter) -> str:
        """Return the transaction data ("0x...") of a command."""

    def protection_record(self, command: VoteCommand, voter: Voter) -> tuple[str, bytes]:
        """Return the kind and the bytes of a vote, as the vote protection keeps them."""

    def classify(self, command: ChainCommand, revert: Revert) -> SettlementVerdict:
        """Return what a revert means for a command."""

    def peer_registered(self, log: Log) -> PeerRegistered | None:
        """Return the input for a log that registers a peer. Given every log that counts, in the chain's order."""

    def stage_opened(self, log: Log, head: BlockHead) -> StageOpened | None:
        """Return the input for a log that opens a stage, in the block of this header."""

    def pause_changed(self, log: Log) -> tuple[int, int] | None:
        """Return the pause's end and the stage's new deadline (chain seconds) for a log about a pause."""

    def peer_forgotten(self, log: Log) -> Address | None:
        """Return the peer whose registration left the chain with this log. Given undone logs, the newest first."""

    def reset(self) -> None:
        """Forget every log: the whole history follows again."""


EVENTS = frozenset(map(swarm.ABI.topic, ("PeerRegistered", "RoundAdvanced", "StageAdvanced", "PauseChanged")))
"""The events that are read; logs of others are not even decoded."""


class SwarmBinding:
    """Our own contract's interface."""

    def __init__(self) -> None:
        self.abi = swarm.ABI
        self.topics = [swarm.ABI.topic("PeerRegistered")]
        self.block_topics = sorted(EVENTS) + [swarm.ABI.topic(f"Delegation{what}") for what in ("Renewed", "Revoked")]

    def call_data(self, command: ChainCommand, voter: Voter) -> str:
        """See `CoordinatorBinding`."""
        return swarm.call_data(command, voter)

    def protection_record(self, command: VoteCommand, voter: Voter) -> tuple[str, bytes]:
        """See `CoordinatorBinding`."""
        return swarm.protection_record(command, voter)

    def classify(self, command: ChainCommand, revert: Revert) -> SettlementVerdict:
        """See `CoordinatorBinding`."""
        return swarm.classify(command, revert)

    def peer_registered(self, log: Log) -> PeerRegistered | None:
        """See `CoordinatorBinding`."""
        event = self._event(log)
        return swarm.peer_registered(event) if event else None

    def stage_opened(self, log: Log, head: BlockHead) -> StageOpened | None:
        """See `CoordinatorBinding`."""
        event = self._event(log)
        return swarm.stage_opened(event, head.timestamp, head.number) if event else None

    def pause_changed(self, log: Log) -> tuple[int, int] | None:
        """See `CoordinatorBinding`."""
        event = self._event(log)
        return swarm.pause_changed(event) if event else None

    def peer_forgotten(self, log: Log) -> Address | None:
        """See `CoordinatorBinding`."""
        peer = self.peer_registered(log)
        return peer.peer if peer else None

    def reset(self) -> None:
        """See `CoordinatorBinding`: nothing is kept here."""

    def _event(self, log: Log) -> DecodedEvent | None:
        return self.abi.event(log) if log["topics"] and log["topics"][0] in EVENTS else None
