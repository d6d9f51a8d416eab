"""What transactions are sent over while one connection lasts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from node.chain.contract.binding import CoordinatorBinding
from node.chain.contract.reader import CoordinatorReader
from node.chain.contract.swarm import Voter
from node.chain.relay.relayer import Relayer
from node.chain.rpc.client import RpcEndpoint
from protocols.identifiers import Address

GAS_MARGIN = 1.3
"""Gas allowed, as a multiple of the estimate: the state may have changed until the transaction is mined."""


@dataclass
class ChainSession:
    """One endpoint, the contract seen through it, and who sends. `voter` changes with a new delegation."""

    endpoint: RpcEndpoint
    binding: CoordinatorBinding
    reader: CoordinatorReader
    sender: Address
    contract: Address
    chain_id: int
    voter: Voter
    relayer: Relayer | None = None

    async def request(self, method: str, *parameters: object) -> Any:
        """See `RpcEndpoint.request`."""
        return await self.endpoint.request(method, *parameters)

    async def gas_of(self, data: str) -> int:
        """Simulate a call of the contract; return the gas to allow. Raises `RpcError` with the revert."""
        call = {"from": self.sender, "to": self.contract, "data": data}
        return math.ceil(int(await self.request("eth_estimateGas", call), 16) * GAS_MARGIN)
