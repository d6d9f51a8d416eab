"""The chain service on a real anvil keeps what every chain service promises: the fake is held to the same."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import trio

from contracts import send
from node.localnet.local_chain import LocalChain
from node.machine.inputs import AnyInput
from node.ports.chain import ChainService
from protocols.signed_messages import SignedDelegation
from tests.integration.chain_place import KEYS, Permissive, Place, Reports, place_on
from tests.support.chain_expectations import ChainExpectations, InputT

pytestmark = pytest.mark.integration


class ChainServiceUnderTest:
    """The real service, whose chain's clock is moved by the test; `KEYS[0]` is the organiser."""

    def __init__(self, place: Place) -> None:
        self._place, self._guard = place, Permissive()
        real = place.service(self._guard)
        self._reports = Reports(real)
        self.service: ChainService = real
        self.report = self._reports.report
        self.me = str(place.account.address).lower()

    @property
    def inputs(self) -> list[AnyInput]:
        return self._reports.inputs

    @property
    def may_sign(self) -> bool:
        return self._guard.answer

    @may_sign.setter
    def may_sign(self, answer: bool) -> None:
        self._guard.answer = answer

    async def until(
        self, kind: type[InputT], fits: Callable[[InputT], bool] = lambda _: True, since: int = 0
    ) -> InputT:
        return await self._reports.until(kind, fits, since)

    def pass_deadline(self) -> None:
        self._place.chain.call("evm_increaseTime", 100)
        self._place.chain.call("anvil_mine", "0x2")

    def advance(self) -> None:
        self._place.advance()

    def pause(self, seconds: int) -> None:
        self._organise("pause", seconds)

    def resume(self) -> None:
        self._organise("resume")

    def other(self) -> SignedDelegation:
        return self._place.delegation(KEYS[2], KEYS[2])

    def _organise(self, function: str, *arguments: object) -> None:
        send(self._place.chain.url, KEYS[0], self._place.deployment.address, function, *arguments)


class TestChainService(ChainExpectations):
    """The shared expectations, of the real service."""

    @pytest.fixture
    async def chain(self, tmp_path: Path) -> AsyncIterator[ChainServiceUnderTest]:
        with LocalChain(block_seconds=None) as local:
            under_test = ChainServiceUnderTest(place_on(local, tmp_path, mode="sealed"))
            under_test.service.join(await under_test.service.read_facts(), None)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(under_test.service.run, under_test.report)
                yield under_test
                nursery.cancel_scope.cancel()
