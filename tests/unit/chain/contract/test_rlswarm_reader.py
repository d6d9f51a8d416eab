"""Reading RL Swarm's clock from an endpoint that keeps little and answers little at a time."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from node.chain.contract.reader import NoCoordinatorError
from node.chain.contract.rlswarm_clock import DURATIONS, round_seed
from node.chain.contract.rlswarm_ledger import ABI, ROUNDS, STAGES, RLSwarmLedger
from node.chain.readers.rlswarm_reader import RLSwarmReader
from node.chain.rpc.client import RpcError
from protocols.identifiers import keccak256

CONTRACT, ME = "0x" + "c0" * 20, "0x" + "01" * 20
DEPLOYED, STAGE_BLOCKS, BLOCK_SECONDS = 5_000, 90, 2
STAGES_OPENED = 30


class Endpoint:
    """A chain of 30 stages of 90 blocks and a long silence, as an `Endpoint`."""

    heads: trio.MemoryReceiveChannel[dict[str, Any]]

    def __init__(self, *, widest: int = 10**6, pruned: bool = False, silence: int = 20_000) -> None:
        self.widest, self.pruned = widest, pruned
        self.latest = DEPLOYED + STAGES_OPENED * STAGE_BLOCKS + silence
        self.asked = 0
        self.logs = [self._log(DEPLOYED, ABI.topic("Initialized"))]
        for number in range(1, STAGES_OPENED + 1):
            place, block = divmod(number, 3), DEPLOYED + number * STAGE_BLOCKS
            if place[1] == 0:
                self.logs.append(self._log(block, ROUNDS, place[0]))
            self.logs.append(self._log(block, STAGES, place[0], data=place[1]))

    @staticmethod
    def hash_of(block: int) -> str:
        return "0x" + keccak256(block.to_bytes(8, "big")).hex()

    def _log(self, block: int, *topics: Any, data: int = 0) -> dict[str, Any]:
        words = [one if isinstance(one, str) else f"0x{one:064x}" for one in topics]
        return {
            "blockNumber": hex(block),
            "blockHash": self.hash_of(block),
            "logIndex": "0x0",
            "topics": words,
            "data": f"0x{data:064x}",
        }

    async def request(self, method: str, *parameters: Any) -> Any:
        self.asked += 1
        match method, parameters:
            case "eth_blockNumber", ():
                return hex(self.latest)
            case "eth_getCode", (_, tag):
                if self.pruned and int(tag, 16) < self.latest - 128:
                    raise RpcError(-32000, "missing trie node")
                return "0x60" if int(tag, 16) >= DEPLOYED else "0x"
            case "eth_getBlockByNumber", (tag, _):
                return self._block(int(tag, 16))
            case "eth_getBlockByHash", (name, _):
                blocks = {log["blockHash"]: int(log["blockNumber"], 16) for log in self.logs}
                return self._block(blocks[name])
            case "eth_getLogs", (query,):
                return self._logs(query)
        raise AssertionError(method)

    def _block(self, number: int) -> dict[str, Any]:
        return {
            "number": hex(number),
            "hash": self.hash_of(number),
            "parentHash": self.hash_of(number - 1),
            "timestamp": hex(number * BLOCK_SECONDS),
        }

    def _logs(self, query: dict[str, Any]) -> list[dict[str, Any]]:
        first, last = int(query["fromBlock"], 16), int(query["toBlock"], 16)
        if last - first >= self.widest:
            raise RpcError(-32005, "range too wide")
        return [
            log
            for log in self.logs
            if first <= int(log["blockNumber"], 16) <= last
            and all(topic in wanted for topic, wanted in zip(log["topics"], query["topics"], strict=False))
        ]


def reader(endpoint: Endpoint) -> RLSwarmReader:
    return RLSwarmReader(endpoint, CONTRACT, RLSwarmLedger(CONTRACT, ME, "peer", [600] * 3))


@pytest.mark.parametrize("endpoint", [Endpoint(), Endpoint(widest=500), Endpoint(pruned=True), Endpoint(widest=37)])
async def test_the_stage_is_read_whatever_the_endpoint_bears(endpoint: Endpoint) -> None:
    """Round, seed, opening and the pace of the last stages; a long silence behind them changes nothing."""
    stage = await reader(endpoint).stage(endpoint.latest)
    opened = DEPLOYED + STAGES_OPENED * STAGE_BLOCKS
    seed = round_seed(CONTRACT, 10, bytes.fromhex(endpoint.hash_of(opened)[2:]))
    assert (stage.round, stage.stage, stage.seed, stage.block) == (10, 0, seed, opened)
    assert stage.opened == opened * BLOCK_SECONDS
    assert stage.deadline - stage.opened == STAGE_BLOCKS * BLOCK_SECONDS


async def test_a_silent_swarm_is_read_in_few_requests() -> None:
    """Ranges grow while the endpoint bears them: a million blocks take some dozens of requests, not hundreds."""
    endpoint = Endpoint(silence=1_000_000)
    await reader(endpoint).stage(endpoint.latest)
    assert endpoint.asked < 75


@pytest.mark.parametrize("stages", range(DURATIONS + 4))
async def test_every_stage_of_the_past_can_be_read(stages: int) -> None:
    """From the deployment on: the manifest's seconds at first, then what was seen."""
    endpoint = Endpoint()
    stage = await reader(endpoint).stage(DEPLOYED + stages * STAGE_BLOCKS + 3)
    assert (stage.round, stage.stage) == divmod(stages, 3)
    assert stage.deadline - stage.opened == (STAGE_BLOCKS * BLOCK_SECONDS if stages else 600)
    first = DEPLOYED + stages // 3 * 3 * STAGE_BLOCKS
    assert stage.seed == round_seed(CONTRACT, stages // 3, bytes.fromhex(endpoint.hash_of(first)[2:]))


@pytest.mark.parametrize("widest", [500, 10**6])
async def test_an_endpoint_without_any_history_is_named(widest: int) -> None:
    """Neither old state nor old logs: the error says what kind of endpoint is needed."""
    endpoint = Endpoint(pruned=True, widest=widest)
    endpoint.logs = []
    with pytest.raises(NoCoordinatorError, match="archive endpoint"):
        await reader(endpoint).stage(endpoint.latest)
