"""The contract through whichever endpoint answers: its interface, found out once, and questions to its views."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TypeAlias, TypeVar

import structlog
from eth_abi.exceptions import DecodingError

from node.chain.contract.reader import CoordinatorReader, NoCoordinatorError
from node.chain.readers.detection import ContractInterface, detect, rlswarm_interface, swarm_interface
from node.chain.rpc.client import ConnectionLostError, RpcEndpoint, RpcError
from node.config import ChainSettings
from node.errors import first
from node.ports.chain import ChainUnavailableError
from protocols.identifiers import Address

log = structlog.get_logger()

FAULTS = (ConnectionLostError, RpcError, NoCoordinatorError, DecodingError)
"""What endpoints do wrong. Anything else is a fault of this node's, and ends the service visibly."""

AnswerT = TypeVar("AnswerT")
Dial: TypeAlias = Callable[[str, float], AbstractAsyncContextManager[RpcEndpoint]]


class ContractAccess:
    """One contract. `me` and `peer_id` are this node's, `seconds` the manifest's for each stage; `dial` connects."""

    def __init__(self, settings: ChainSettings, me: Address, peer_id: str, seconds: Sequence[int], dial: Dial) -> None:
        self.address: Address = settings.contract.lower()
        self.dial = dial
        self._settings, self._me, self._peer_id, self._seconds = settings, me, peer_id, tuple(seconds)
        self._interface: ContractInterface | None = None

    async def interface(self, endpoint: RpcEndpoint) -> ContractInterface:
        """Return the contract's interface. Raises `FAULTS` where it has to be found out and can't be."""
        chosen = self._settings.binding
        name = await detect(endpoint, self.address) if chosen == "auto" and self._interface is None else chosen
        if self._interface is None:  # else somebody asked at the same time and was answered first
            is_swarm = name == "swarm"
            self._interface = (
                swarm_interface(self.address)
                if is_swarm
                else rlswarm_interface(self.address, self._me, self._peer_id, self._seconds)
            )
            log.info("chain.bound", binding=self._interface.name)
        return self._interface

    async def ask(self, question: Callable[[CoordinatorReader], Awaitable[AnswerT]]) -> AnswerT:
        """Ask the first endpoint that answers. Raises `ChainUnavailableError` with the last one's fault."""
        failure: Exception = ConnectionLostError("no endpoint is configured; set [chain] urls")
        for url in self._settings.urls:
            try:
                async with self._reader(url) as reader:
                    return await question(reader)
            except* FAULTS as group:
                failure = first(group, Exception) or failure
        if isinstance(failure, ChainUnavailableError):
            raise failure
        raise ChainUnavailableError(str(failure)) from failure

    @asynccontextmanager
    async def _reader(self, url: str) -> AsyncGenerator[CoordinatorReader, None]:
        async with self.dial(url, math.inf) as endpoint:
            yield (await self.interface(endpoint)).reader(endpoint)
