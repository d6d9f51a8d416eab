"""Reading our own contract over RPC."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from eth_abi.exceptions import DecodingError

from contracts import VOTING_MODES
from node.chain.contract.reader import DONE, Inclusion, NoCoordinatorError, Outcome
from node.chain.contract.swarm import ABI, Voter, includes, inclusion_topics, is_registered, own_ballot
from node.chain.rpc.client import RpcEndpoint, RpcError
from node.machine.commands import (
    AdvanceStage,
    CastVote,
    ChainCommand,
    CommitVote,
    RegisterNode,
    RenewDelegation,
    ReportReward,
    RevealVote,
)
from node.machine.inputs import StageOpened
from protocols.deployment import CoordinatorFacts, NodeEntry
from protocols.identifiers import Address

MAX_STAGES = 16
"""The contract's own limit."""
LOOKBACK = 512
"""Blocks that are searched for the transaction in which somebody else sent a vote."""


class SwarmReader:
    """Calls of the contract's views on one endpoint. Each raises `RpcError`, `ConnectionLostError`."""

    def __init__(self, endpoint: RpcEndpoint, contract: Address) -> None:
        self._endpoint, self._contract = endpoint, contract

    async def view(self, function: str, *arguments: object, block: str = "latest") -> tuple[Any, ...]:
        """Return a view's results. Raises `NoCoordinatorError` where the answer does not fit."""
        call = {"to": self._contract, "data": ABI.call(function, *arguments)}
        data = await self._endpoint.request("eth_call", call, block)
        try:
            return ABI.result(function, data)
        except DecodingError as error:
            raise NoCoordinatorError(
                f"no coordinator answers at {self._contract}; check [chain] contract and urls"
            ) from error

    async def stage(self, block: int) -> StageOpened:
        """Return the stage that was open in a block."""
        number, stage, seed, deadline, opened = await self.view("current", block=hex(block))
        return StageOpened(number, stage, seed, deadline, opened, block)

    async def paused_until(self, block: int) -> int:
        """Return until when the swarm was paused in a block, in chain seconds; in the past or 0 where it ran."""
        return int((await self.view("pausedUntil", block=hex(block)))[0])

    async def current_stage(self) -> tuple[int, int]:
        """Return the present round and stage."""
        found = await self.view("current")
        return found[0], found[1]

    async def facts(self) -> CoordinatorFacts:
        """Return what the contract fixed. Raises `NoCoordinatorError`."""
        (number,) = await self.view("deployedBlock")
        block = await self._endpoint.request("eth_getBlockByNumber", hex(number), False)
        if block is None:
            raise NoCoordinatorError(
                f"the endpoint does not know block {number}, in which the coordinator was deployed"
            )
        (stages,), (mode,) = await self.view("stageCount"), await self.view("votingMode")
        if stages > MAX_STAGES or mode >= len(VOTING_MODES):
            raise NoCoordinatorError(f"{self._contract} has {stages} stages and voting mode {mode}: no coordinator")
        seconds = [(await self.view("stageSeconds", stage))[0] for stage in range(stages)]
        domain = await self.view("eip712Domain")
        return CoordinatorFacts(
            chain_id=await self._chain_id(domain[3]),
            contract=self._contract,
            deployment_block=number,
            deployment_block_hash=bytes.fromhex(block["hash"][2:]),
            manifest_digest=(await self.view("manifestDigest"))[0],
            stage_seconds=tuple(seconds),
            voting_mode=VOTING_MODES[mode],
            salt=domain[5],
            quorum=(await self.view("quorum"))[0],
            earliest=(await self.view("earliest"))[0],
        )

    async def _chain_id(self, of_contract: int) -> int:
        """Return the chain's id. Raises `NoCoordinatorError` where endpoint and contract name different ones.

        What is signed for it would be void here, or valid elsewhere.
        """
        found = int(await self._endpoint.request("eth_chainId"), 16)
        if found != of_contract:
            raise NoCoordinatorError(f"the endpoint says that it is on chain {found}, the coordinator on {of_contract}")
        return found

    async def node(self, address: Address, block: str = "latest") -> NodeEntry:
        """Return what the register says of a node, in a block (hexadecimal)."""
        return NodeEntry(*await self.view("nodes", address, block=block))

    async def gas_of(self, data: str) -> int | None:
        """Return the gas that a call from anybody would take now; None where it would fail, or the endpoint says so."""
        try:
            return int(await self._endpoint.request("eth_estimateGas", {"to": self._contract, "data": data}), 16)
        except RpcError:
            return None

    async def ballots(self, nodes: Sequence[Address], round_number: int) -> list[tuple[int, bytes]]:
        """Return each node's vote on one of the last two rounds: its state, and what is kept of its commitment.

        States: 0 empty, 1 committed, 2 voted.
        """
        states, kept = await self.view("ballotsOf", list(nodes), round_number)
        return list(zip(states, kept, strict=True))

    async def rewards(self, nodes: Sequence[Address], round_number: int) -> list[int]:
        """Return for each node the stages, as bits, whose rewards of one of the last two rounds are on chain."""
        return list((await self.view("rewardsOf", list(nodes), round_number))[0])

    async def bootnodes(self) -> tuple[str, ...]:
        """Return the bootnodes' multiaddrs."""
        return tuple((await self.view("bootnodes"))[0])

    @property
    def relay(self) -> SwarmReader:
        """See `CoordinatorReader`."""
        return self

    # --- commands -----------------------------------------------------------------------------------------------

    async def precheck(self, command: ChainCommand | None, voter: Voter, now: int) -> Outcome | None:
        """See `CoordinatorReader`."""
        match command:
            case RegisterNode() | RenewDelegation():
                return DONE if is_registered(voter, await self.node(voter.address), now) else None
            case AdvanceStage(round=number, stage=stage):
                return DONE if await self.current_stage() != (number, stage) else None
            case CommitVote() | RevealVote() | CastVote() | ReportReward():
                (known,) = await self.view("seedOf", command.round)
                return None if known in (command.seed, bytes(32)) else Outcome(ok=False, error="SeedChanged")
            case _:
                return None

    async def is_on_chain(self, command: ChainCommand, voter: Voter) -> bool:
        """See `CoordinatorReader`: this very vote, or a reward of this stage."""
        if isinstance(command, ReportReward):
            (stages,) = await self.rewards([voter.address], command.round)
            return bool(stages >> command.stage & 1)
        if not isinstance(command, CommitVote | RevealVote | CastVote):
            return False
        state, commitment = await self.view("ballotOf", voter.address, command.round)
        least, own = own_ballot(command, voter)
        return bool(state >= least and commitment == own)

    async def inclusion(self, command: ChainCommand, voter: Voter) -> Inclusion:
        """See `CoordinatorReader`: of votes and rewards, as far as `LOOKBACK` blocks go."""
        if not isinstance(command, CommitVote | RevealVote | CastVote | ReportReward):
            return Inclusion()
        newest = int(await self._endpoint.request("eth_blockNumber"), 16)
        query = {
            "address": self._contract,
            "topics": inclusion_topics(command, voter.address),
            "fromBlock": hex(max(0, newest - LOOKBACK)),
            "toBlock": "latest",
        }
        found = await self._endpoint.request("eth_getLogs", query)
        log = next((log for log in reversed(found) if includes(log, voter.address)), None)
        return Inclusion(str(log["transactionHash"]), int(log["blockNumber"], 16)) if log else Inclusion()

    async def owner_of(self, node: Address) -> Address | None:
        """Return a node's owner, None where the register does not know the node."""
        entry = await self.node(node)
        return entry.owner.lower() if entry.since else None

    async def account_of_peer_id(self) -> Address | None:
        """Return None: a node is known by its key's own address, which nobody else can register."""
        return None
