"""A real anvil for the contract's tests: one process, a snapshot around each test."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from contracts import Parameters, load_artifact
from node.chain.abi import Event
from node.chain.binding import ABI
from protocols.identifiers import Address
from tools.local_chain import ChainCallError, LocalChain

STAGE = 60


class Refused(Exception):  # noqa: N818 - reads as in `pytest.raises(Refused, match="TooEarly")`
    """The contract refused a call with this custom error."""


class Swarm:
    """A deployed coordinator, spoken to from unlocked accounts by their number; account 0 is the organiser."""

    def __init__(self, chain: LocalChain, parameters: Parameters) -> None:
        self.chain = chain
        self.accounts: list[Address] = [str(account).lower() for account in chain.call("eth_accounts")]
        arguments = [list(parameters.stage_seconds), parameters.manifest_digest, int(parameters.voting_mode == "open")]
        values = [*arguments, parameters.winners, parameters.anchor()]
        self.receipt = self._mined(0, {"data": load_artifact().bytecode + encoded(values)})
        self.address = str(self.receipt["contractAddress"]).lower()

    def send(self, sender: int, function: str, *arguments: object) -> list[Event]:
        """Mine a call; return its events. Raises `Refused`."""
        return [event for log in self.mined(sender, function, *arguments)["logs"] if (event := ABI.event(log))]

    def mined(self, sender: int, function: str, *arguments: object) -> dict[str, Any]:
        """Mine a call; return its receipt. Raises `Refused`."""
        return self._mined(sender, {"to": self.address, "data": ABI.call(function, *arguments)})

    def view(self, function: str, *arguments: object) -> Any:
        """Return a view's result, a tuple where there are several."""
        data = self.chain.call("eth_call", {"to": self.address, "data": ABI.call(function, *arguments)}, "latest")
        results = ABI.result(function, data)
        return results[0] if len(results) == 1 else results

    def wait(self, seconds: int) -> None:
        """Let chain time pass, and a block come."""
        self.chain.call("evm_increaseTime", seconds)
        self.chain.call("evm_mine")

    def mine(self, blocks: int) -> None:
        """Let blocks come, one second each."""
        self.chain.call("anvil_mine", hex(blocks), hex(1))

    def next_stage(self, sender: int = 9) -> None:
        """Wait for the deadline and open the next stage."""
        self.wait(STAGE + 1)
        self.send(sender, "advance")

    def next_round(self) -> None:
        """Go on to the first stage of the next round."""
        current = self.view("current")[0]
        while self.view("current")[0] == current:
            self.next_stage()

    def counted(self, *numbers: int) -> None:
        """Register accounts and go on until they count; `current` is then the first round of theirs."""
        for number in numbers:
            self.send(number, "register")
        since = max(self.view("nodes", self.accounts[number])[1] for number in numbers)
        while self.view("current")[0] < since:
            self.next_stage()

    def _mined(self, sender: int, call: dict[str, str]) -> dict[str, Any]:
        call = {"from": self.accounts[sender], **call}
        try:
            call["gas"] = hex(int(self.chain.call("eth_estimateGas", call), 16) * 2)
            name = self.chain.call("eth_sendTransaction", call)
        except ChainCallError as error:
            revert = ABI.revert(error.data)
            if revert is None:
                raise
            raise Refused(revert.name) from error
        receipt = None
        while receipt is None:
            receipt = self.chain.call("eth_getTransactionReceipt", name)
        assert receipt["status"] == "0x1"
        return dict(receipt)


def encoded(values: list[object]) -> str:
    """Encode the constructor's arguments."""
    from eth_abi.abi import encode

    return encode(["uint32[]", "bytes32", "uint8", "uint8", "uint8"], values).hex()


def parameters(stages: int = 2, mode: str = "sealed", winners: int = 3, anchor: int = 1) -> Parameters:
    """Return parameters of a swarm whose stages all last `STAGE` seconds."""
    return Parameters(
        stage_seconds=(STAGE,) * stages,
        manifest_digest=b"m" * 32,
        voting_mode=mode,
        winners=winners,
        anchor_blocks=anchor,
    )


@pytest.fixture(scope="session")
def anvil() -> Iterator[LocalChain]:
    with LocalChain(block_seconds=None, accounts=40) as chain:
        chain.call("anvil_mine", "0x5")
        yield chain


@pytest.fixture
def chain(anvil: LocalChain) -> Iterator[LocalChain]:
    """The session's chain, put back after the test."""
    snapshot = anvil.call("evm_snapshot")
    yield anvil
    anvil.call("evm_revert", snapshot)


@pytest.fixture
def swarm(chain: LocalChain) -> Swarm:
    """Two stages a round, sealed votes."""
    return Swarm(chain, parameters())


@pytest.fixture
def open_swarm(chain: LocalChain) -> Swarm:
    """Two stages a round, open votes."""
    return Swarm(chain, parameters(mode="open"))
