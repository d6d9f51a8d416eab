"""The fake chain keeps what every chain service promises."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest
import trio
from eth_account import Account
from trio.testing import MockClock

from node.chain.relay.signatures import own_delegation
from node.chain.service import ChainIdentity
from node.machine.inputs import AnyInput
from node.ports.chain import ChainService
from protocols.identifiers import Seed
from protocols.manifest import Manifest, StageSpec, VotingSpec
from protocols.signed_messages import SignedDelegation
from tests.support.chain_expectations import ChainExpectations, InputT
from tests.support.fake_chain import FakeChainService
from tests.support.fake_coordinator import FakeCoordinator

START = 1_800_000_000
MANIFEST = Manifest(
    name="fake",
    stages=(StageSpec(name="ask", seconds=60), StageSpec(name="answer", seconds=60)),
    voting=VotingSpec(mode="sealed"),
)
ME, OTHER = (Account.from_key(bytes([number]) * 32) for number in (1, 2))


class FakeChainUnderTest:
    """A fake service over a coordinator whose clock is moved by the test."""

    def __init__(self) -> None:
        self.may_sign = True
        self._skipped = 0.0
        self.inputs: list[AnyInput] = []
        self.coordinator = FakeCoordinator(MANIFEST, self.clock)
        identity = ChainIdentity(ME)
        self.me = identity.address
        self.service: ChainService = FakeChainService(self.coordinator, identity, self, relays=True)

    def clock(self) -> float:
        return START + self._skipped

    def admit(self, kind: str, round_number: int, seed: Seed, payload: bytes) -> bool:
        return self.may_sign

    async def report(self, happened: AnyInput) -> None:
        self.inputs.append(happened)

    async def until(
        self, kind: type[InputT], fits: Callable[[InputT], bool] = lambda _: True, since: int = 0
    ) -> InputT:
        with trio.fail_after(30):
            while True:
                for one in self.inputs[since:]:
                    if isinstance(one, kind) and fits(one):
                        return one
                await trio.sleep(0.1)

    def pass_deadline(self) -> None:
        self._skipped += 100.0

    def advance(self) -> None:
        self.pass_deadline()
        self.coordinator.advance()

    def pause(self, seconds: int) -> None:
        self.coordinator.pause(seconds)

    def resume(self) -> None:
        self.coordinator.resume()

    def other(self) -> SignedDelegation:
        return own_delegation(self.coordinator.facts.domain, OTHER, START * 1000)


class TestFakeChain(ChainExpectations):
    """The shared expectations, of the fake."""

    @pytest.fixture
    async def chain(self, autojump_clock: MockClock) -> AsyncIterator[FakeChainUnderTest]:
        under_test = FakeChainUnderTest()
        under_test.service.join(under_test.coordinator.facts, None)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(under_test.service.run, under_test.report)
            yield under_test
            nursery.cancel_scope.cancel()
