"""The seam to a coordinator's interface: what service, tracker and sender ask of it, and which one a contract has.

`SwarmBinding` is our own contract's, over `node.chain.contract.swarm`; `node.chain.contract.rlswarm` is RL Swarm's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

from node.chain.contract import swarm as binding
from node.chain.contract.abi import Abi, DecodedEvent, Revert
from node.chain.contract.swarm import CoordinatorFacts, NodeEntry, Voter
from node.chain.contract.swarm_reader import NoCoordinatorError, SwarmReader
from node.chain.rpc.blocks import BlockHead, Log
from node.chain.rpc.client import RpcEndpoint, RpcError
from node.machine.commands import CastVote, ChainCommand, CommitVote, RevealVote
from node.machine.inputs import PeerRegistered, StageOpened
from protocols.identifiers import Address, keccak256

SettlementVerdict = Literal["done", "retry", "wait", "ask", "failed"]
"""What a refusal means: done by somebody, too soon by moments, too soon by more, ask `CoordinatorReader.stands`,
never."""

Name = Literal["swarm", "rl-swarm"]


class RelayReader(Protocol):
    """The views that relaying needs: what stands of nodes' messages. Each raises as those of `CoordinatorReader`."""

    async def node(self, address: Address, block: str = "latest") -> NodeEntry:
        """Return what the register says of a node, in a block (hexadecimal)."""

    async def ballots(self, nodes: Sequence[Address], round_number: int) -> list[tuple[int, bytes]]:
        """Return each node's ballot of one of the last two rounds: its state, and what is kept of its commitment."""

    async def rewards(self, nodes: Sequence[Address], round_number: int) -> list[int]:
        """Return for each node the stages, as bits, whose rewards of one of the last two rounds are on chain."""

    async def gas_of(self, data: str) -> int | None:
        """Return the gas that a call from anybody would take now; None where it would fail, or the endpoint says so."""


class CoordinatorReader(Protocol):
    """The contract's views on one endpoint. Each raises `RpcError`, `ConnectionLostError`, `NoCoordinatorError`."""

    async def facts(self) -> CoordinatorFacts:
        """Return what the contract fixed; what it does not fix is empty, and 0 seconds for a stage."""

    async def stage(self, block: int) -> StageOpened:
        """Return the stage that was open in a block."""

    async def pause(self, block: int) -> int:
        """Return until when the swarm was paused in a block, in chain seconds; in the past or 0 where it ran."""

    async def bootnodes(self) -> tuple[str, ...]:
        """Return the bootnodes' multiaddrs."""

    async def outdated(self, command: ChainCommand | None, voter: Voter, now: int) -> str | None:
        """Return None where a command still makes sense, "" where it is done already, else why it never will be.

        `now` in chain seconds.
        """

    async def stands(self, command: ChainCommand, voter: Voter) -> bool:
        """Tell whether what the contract has already is what this command would bring."""

    async def bringer(self, command: ChainCommand, voter: Voter) -> tuple[str, int]:
        """Return transaction and block in which what a command brings came on chain; empty and 0 where that is not
        known."""

    async def owner(self, node: Address) -> Address | None:
        """Return whose a node is; None where the contract does not know it, or knows no owners."""

    @property
    def relay(self) -> RelayReader | None:
        """The views that relaying needs; None where the contract takes no messages from others."""

    async def holder(self) -> Address | None:
        """Return whose this node's identity is in the contract; None where nobody has it or it can't be taken."""


class CoordinatorBinding(Protocol):
    """One contract interface in the node's words. It may remember what its methods were told of logs."""

    abi: Abi
    topics: list[str]
    """What is asked of old blocks: stages that are over open nothing any more."""

    def reader(self, endpoint: RpcEndpoint, contract: Address) -> CoordinatorReader:
        """Return the views over an endpoint."""

    def call_data(self, command: ChainCommand, voter: Voter) -> str:
        """Return the transaction data ("0x...") that carries a command out."""

    def guarded(self, command: CommitVote | RevealVote | CastVote, voter: Voter) -> tuple[str, bytes]:
        """Return the kind and the bytes of a vote, as the vote protection keeps them."""

    def judge(self, command: ChainCommand, revert: Revert) -> SettlementVerdict:
        """Say what a refusal means for a command."""

    def peer_registered(self, log: Log) -> PeerRegistered | None:
        """Return the input for a log that registers a peer. Given every log that counts, in the chain's order."""

    def stage_opened(self, log: Log, head: BlockHead) -> StageOpened | None:
        """Return the input for a log that opens a stage, in the block of this header."""

    def pause_changed(self, log: Log) -> tuple[int, int] | None:
        """Return the pause's end and the stage's new deadline (chain seconds) for a log that tells of a pause."""

    def peer_forgotten(self, log: Log) -> Address | None:
        """Return the peer whose registration left the chain with this log. Given undone logs, the newest first."""

    def reset(self) -> None:
        """Forget every log: the whole history follows again."""


SPOKEN = frozenset(map(binding.ABI.topic, ("PeerRegistered", "RoundAdvanced", "StageAdvanced", "PauseChanged")))
"""The events that are read here; what others say is not looked at, whatever it is."""


class SwarmBinding:
    """Our own contract's interface."""

    def __init__(self) -> None:
        self.abi = binding.ABI
        self.topics = [binding.ABI.topic("PeerRegistered")]

    def reader(self, endpoint: RpcEndpoint, contract: Address) -> SwarmReader:
        """See `CoordinatorBinding`."""
        return SwarmReader(endpoint, contract)

    def call_data(self, command: ChainCommand, voter: Voter) -> str:
        """See `CoordinatorBinding`."""
        return binding.call_data(command, voter)

    def guarded(self, command: CommitVote | RevealVote | CastVote, voter: Voter) -> tuple[str, bytes]:
        """See `CoordinatorBinding`."""
        return binding.guarded(command, voter)

    def judge(self, command: ChainCommand, revert: Revert) -> SettlementVerdict:
        """See `CoordinatorBinding`."""
        return "ask" if revert.name == "AlreadyVoted" else binding.verdict(command, revert)

    def peer_registered(self, log: Log) -> PeerRegistered | None:
        """See `CoordinatorBinding`."""
        event = self._event(log)
        return binding.peer_registered(event) if event else None

    def stage_opened(self, log: Log, head: BlockHead) -> StageOpened | None:
        """See `CoordinatorBinding`."""
        event = self._event(log)
        return binding.stage_opened(event, head.timestamp, head.number) if event else None

    def pause_changed(self, log: Log) -> tuple[int, int] | None:
        """See `CoordinatorBinding`."""
        event = self._event(log)
        return binding.pause_changed(event) if event else None

    def peer_forgotten(self, log: Log) -> Address | None:
        """See `CoordinatorBinding`."""
        peer = self.peer_registered(log)
        return peer.peer if peer else None

    def reset(self) -> None:
        """See `CoordinatorBinding`: nothing is kept here."""

    def _event(self, log: Log) -> DecodedEvent | None:
        return self.abi.event(log) if log["topics"] and log["topics"][0] in SPOKEN else None


async def detect(endpoint: RpcEndpoint, contract: Address) -> Name:
    """Return whose interface a contract has, by the view that only it has. Raises `NoCoordinatorError` for neither."""
    if await _answers(endpoint, contract, "current()"):
        return "swarm"
    if await _answers(endpoint, contract, "currentRound()"):
        return "rl-swarm"
    raise NoCoordinatorError(f"no coordinator answers at {contract}; check [chain] contract, urls and binding")


async def _answers(endpoint: RpcEndpoint, contract: Address, view: str) -> bool:
    call = {"to": contract, "data": "0x" + keccak256(view.encode())[:4].hex()}
    try:
        answer = await endpoint.request("eth_call", call, "latest")
    except RpcError:
        return False
    return isinstance(answer, str) and len(answer) >= 2 + 64
