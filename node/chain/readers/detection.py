"""Which coordinator is at an address, and the binding and reader for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from node.chain.contract.binding import CoordinatorBinding, SwarmBinding
from node.chain.contract.reader import CoordinatorReader, NoCoordinatorError
from node.chain.contract.rlswarm import RLSwarmBinding
from node.chain.readers.rlswarm_reader import RLSwarmReader
from node.chain.readers.swarm_reader import SwarmReader
from node.chain.rpc.client import RpcEndpoint, RpcError
from protocols.identifiers import Address, keccak256

ContractName = Literal["swarm", "rl-swarm"]


async def detect(endpoint: RpcEndpoint, contract: Address) -> ContractName:
    """Return which interface a contract has, by a view that only it has. Raises `NoCoordinatorError` for neither."""
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


@dataclass(frozen=True)
class ContractInterface:
    """One contract's interface: its pure half, and what reads its views over an endpoint."""

    name: ContractName
    binding: CoordinatorBinding
    reader: Callable[[RpcEndpoint], CoordinatorReader]


def swarm_interface(contract: Address) -> ContractInterface:
    """Return the interface of our own contract."""
    return ContractInterface("swarm", SwarmBinding(), lambda endpoint: SwarmReader(endpoint, contract))


def rlswarm_interface(contract: Address, me: Address, peer_id: str, seconds: Sequence[int]) -> ContractInterface:
    """Return the interface of RL Swarm's contract; `seconds` as in `RLSwarmBinding`."""
    binding = RLSwarmBinding(contract, me, peer_id, seconds)
    return ContractInterface("rl-swarm", binding, lambda endpoint: RLSwarmReader(endpoint, contract, binding.ledger))
