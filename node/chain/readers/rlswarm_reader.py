"""Reading RL Swarm's coordinator over RPC: its views, and in its logs what no view shows."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from typing import Any

import structlog
from eth_abi.exceptions import DecodingError

from node.chain.contract.reader import DONE, Inclusion, NoCoordinatorError, Outcome
from node.chain.contract.rlswarm_clock import DURATIONS, StageOpening, round_seed
from node.chain.contract.rlswarm_ledger import ABI, ROUNDS, SIGNED, STAGES, UNSIGNED, RLSwarmLedger, place_of
from node.chain.contract.rlswarm_peers import can_dial
from node.chain.contract.swarm import Voter
from node.chain.rpc.blocks import BlockHead, Log, parse_head
from node.chain.rpc.client import ConnectionLostError, RpcEndpoint, RpcError
from node.machine.commands import (
    AdvanceStage,
    CastVote,
    ChainCommand,
    CommitVote,
    RegisterNode,
    ReportReward,
    RevealVote,
)
from node.machine.inputs import StageOpened
from protocols.deployment import CoordinatorFacts
from protocols.identifiers import Address, Seed

log = structlog.get_logger()

NEVER = 2**256 - 1
"""A round that is always too high: a call with it reverts with a named error only where the function exists."""

FIRST_CHUNK, LAST_CHUNK = 2_000, 64_000
"""Blocks asked for logs at once, going back: doubled from one to the next while the endpoint bears it."""

ROUNDS_BACK = 2
"""Openings of rounds that are looked for: votes go to the round before the present one."""


class RLSwarmReader:
    """See `node.chain.contract.binding.CoordinatorReader`. What it finds is kept in the ledger, over connections."""

    def __init__(self, endpoint: RpcEndpoint, contract: Address, ledger: RLSwarmLedger) -> None:
        self._endpoint, self._contract, self._ledger = endpoint, contract, ledger

    async def view(self, function: str, *arguments: object) -> Any:
        """Return a view's only result. Raises `NoCoordinatorError` where the answer does not fit."""
        call = {"to": self._contract, "data": ABI.call(function, *arguments)}
        data = await self._endpoint.request("eth_call", call, "latest")
        try:
            return ABI.result(function, data)[0]
        except DecodingError as error:
            raise NoCoordinatorError(
                f"{self._contract} does not answer {function} as RL Swarm's coordinator; check [chain] contract"
            ) from error

    # --- what the contract fixed --------------------------------------------------------------------------------

    async def facts(self) -> CoordinatorFacts:
        """Return stage count and deployment: durations and manifest are nowhere on chain."""
        stages = await self.view("stageCount")
        deployed = await self._block(await self._deployed())
        self._ledger.signed = await self._has(SIGNED) or not await self._has(UNSIGNED)
        return CoordinatorFacts(
            chain_id=int(await self._endpoint.request("eth_chainId"), 16),
            contract=self._contract,
            deployment_block=deployed.number,
            deployment_block_hash=bytes.fromhex(deployed.hash[2:]),
            manifest_digest=b"",
            stage_seconds=(0,) * min(stages, 16),
            voting_mode="open",
        )

    async def _deployed(self) -> int:
        """Return the block in which the contract came to be, found once."""
        if self._ledger.deployed < 0:
            latest = int(await self._endpoint.request("eth_blockNumber"), 16)
            if not await self._has_code(latest):
                raise NoCoordinatorError(f"there is no contract at {self._contract}; check [chain] contract and urls")
            try:
                self._ledger.deployed = await self._first_block(latest)
            except RpcError:  # a pruned endpoint knows old logs but no old state
                self._ledger.deployed = await self._first_log(latest)
        return self._ledger.deployed

    async def _first_block(self, latest: int) -> int:
        low, high = 0, latest
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if await self._has_code(middle) else (middle + 1, high)
        return low

    async def _has_code(self, block: int) -> bool:
        code: str | None = await self._endpoint.request("eth_getCode", self._contract, hex(block))
        return code not in (None, "0x")

    async def _first_log(self, latest: int) -> int:
        try:
            logs = await self._logs(0, latest, [[ABI.topic("Initialized")]])
        except RpcError:
            logs = []
        if not logs:
            raise NoCoordinatorError(
                "the endpoint gives neither old state nor old logs, so the contract's first block can't be found; "
                "add an archive endpoint to [chain] urls"
            )
        return min(int(found["blockNumber"], 16) for found in logs)

    async def _has(self, function: str) -> bool:
        """Return True if the contract, or the one behind its proxy, has a reward function."""
        call = {"to": self._contract, "data": ABI.call(function, NEVER, 0, 0, self._ledger.peer_id)}
        try:
            await self._endpoint.request("eth_call", call, "latest")
        except RpcError as error:
            return ABI.revert(error.data) is not None
        return False

    # --- the clock ----------------------------------------------------------------------------------------------

    async def stage(self, block: int) -> StageOpened:
        """Return the stage that was open in a block, its seed and estimated deadline, from the openings up to it."""
        opened = self._ledger.clock.resume(await self._openings(block))
        if opened is None:
            raise NoCoordinatorError(f"the logs of {self._contract} do not show when its round began")
        return opened

    async def paused_until(self, block: int) -> int:
        """See `CoordinatorReader`: there is no pause here."""
        return 0

    async def _openings(self, last: int) -> list[StageOpening]:
        """Return the last openings, the oldest first; the deployment counts as that of round 0."""
        found: dict[tuple[int, int], Log] = {}
        async with aclosing(self._back(last, [[ROUNDS, STAGES]])) as chunks:
            async for logs in chunks:
                found |= {place: one for one in logs if (place := place_of(one)) is not None}
                if len(found) > DURATIONS and sum(stage == 0 for _, stage in found) >= ROUNDS_BACK:
                    return [await self._opening(place, found[place]) for place in _needed(found)]
        begun = await self._beginning()
        return [begun, *[await self._opening(place, found[place]) for place in _needed(found)]]

    async def _back(self, last: int, topics: list[list[str]]) -> AsyncGenerator[list[Log], None]:
        """Yield the contract's logs in ranges of blocks from `last` back to its first."""
        first, step = await self._deployed(), FIRST_CHUNK
        while last >= first:
            start = max(first, last - step + 1)
            try:
                yield await self._logs(start, last, topics)
            except RpcError:
                if step == 1:
                    raise
                step = max(1, step // 4)  # providers refuse wide ranges and long answers
                continue
            last, step = start - 1, min(LAST_CHUNK, step * 2)

    async def _logs(self, first: int, last: int, topics: list[list[str]]) -> list[Log]:
        span = {"fromBlock": hex(first), "toBlock": hex(last)}
        logs: list[Log] = await self._endpoint.request(
            "eth_getLogs", {"address": self._contract, "topics": topics, **span}
        )
        return logs

    async def _opening(self, place: tuple[int, int], found: Log) -> StageOpening:
        block = await self._endpoint.request("eth_getBlockByHash", found["blockHash"], False)
        if block is None:
            raise ConnectionLostError("the chain was reorganised while its rounds were read")
        return _opening_in(place, parse_head(block))

    async def _beginning(self) -> StageOpening:
        return _opening_in((0, 0), await self._block(await self._deployed()))

    async def _block(self, number: int) -> BlockHead:
        block = await self._endpoint.request("eth_getBlockByNumber", hex(number), False)
        if block is None:
            raise NoCoordinatorError(f"the endpoint does not know block {number}, in which the contract was deployed")
        return parse_head(block)

    async def _seed(self, round_number: int) -> Seed | None:
        """Return a round's seed, from the logs where it is not remembered; None where no such round was opened."""
        known = self._ledger.clock.seed_of(round_number)
        if known is not None:
            return known
        if round_number == 0:
            opening = await self._beginning()
            return round_seed(self._contract, 0, opening.block_hash)
        latest = int(await self._endpoint.request("eth_blockNumber"), 16)
        wanted = [[ROUNDS], ["0x" + round_number.to_bytes(32, "big").hex()]]
        async with aclosing(self._back(latest, wanted)) as chunks:
            async for logs in chunks:
                if logs:
                    return round_seed(self._contract, round_number, bytes.fromhex(logs[-1]["blockHash"][2:]))
        return None

    # --- commands -----------------------------------------------------------------------------------------------

    async def precheck(self, command: ChainCommand | None, voter: Voter, now: int) -> Outcome | None:
        """See `CoordinatorReader`. Only the stage manager opens stages, so that is done; sealed votes do not exist.

        A stage may outlive its estimated deadline: this node's turn to open the next one then does nothing.
        """
        match command:
            case AdvanceStage():
                return DONE
            case CommitVote() | RevealVote():
                return Outcome(ok=False, error="OpenVotesOnly")
            case CastVote(winners=winners) if not self._ledger.peer_ids.keys() >= set(winners):
                return Outcome(ok=False, error="UnknownWinner")
            case CastVote() | ReportReward():
                is_same = await self._seed(command.round) == command.seed
                return None if is_same else Outcome(ok=False, error="SeedChanged")
            case _:
                return None

    async def is_on_chain(self, command: ChainCommand, voter: Voter) -> bool:
        """See `CoordinatorReader`."""
        match command:
            case RegisterNode():
                account = await self.account_of_peer_id()
                if account != voter.address:
                    log.error("chain.peer_id_taken", peer_id=self._ledger.peer_id, by=account, account=voter.address)
                return account == voter.address
            case CastVote():
                cast = await self.view("getVoterVotes", command.round, self._ledger.peer_id)
                return {self._ledger.peer_ids[winner] for winner in command.winners} == set(cast)
            case _:
                return False

    async def inclusion(self, command: ChainCommand, voter: Voter) -> Inclusion:
        """See `CoordinatorReader`: nobody submits anything for others here."""
        return Inclusion()

    @property
    def relay(self) -> None:
        """See `CoordinatorReader`: each node sends its own transactions here."""
        return None

    async def owner_of(self, node: Address) -> Address | None:
        """See `CoordinatorReader`: a peer belongs to the account that registered it."""
        return None

    async def account_of_peer_id(self) -> Address | None:
        """Return the account that this node's peer id is bound to, for ever."""
        (account,) = await self.view("getEoa", [self._ledger.peer_id])
        return str(account).lower() if int(account, 16) else None

    async def bootnodes(self) -> tuple[str, ...]:
        """Return the bootnodes that can be dialled; log each other one once."""
        found = await self.view("getBootnodes")
        for bootnode in found:
            if not can_dial(bootnode) and bootnode not in self._ledger.skipped:
                self._ledger.skipped.add(bootnode)
                log.warning("chain.bootnode_skipped", bootnode=bootnode[:200], reason="not /ip4/HOST/tcp/PORT/p2p/ID")
        return tuple(bootnode for bootnode in found if can_dial(bootnode))


def _needed(places: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return those openings that estimates and seeds are made from, in order."""
    ordered = sorted(places)
    first = [place for place in ordered if place[1] == 0][-ROUNDS_BACK:]
    return sorted({*first, *ordered[-DURATIONS - 1 :]})


def _opening_in(place: tuple[int, int], head: BlockHead) -> StageOpening:
    return StageOpening(*place, head.timestamp, head.number, bytes.fromhex(head.hash[2:]))
