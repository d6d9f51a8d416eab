"""A real anvil for the contract's tests: one process, a snapshot around each test."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
from eth_account import Account
from eth_account.signers.local import LocalAccount

from contracts import Parameters, creation_code, load_artifact
from node.chain.contract.abi import DecodedEvent
from node.chain.contract.swarm import ABI, signed_words
from node.chain.relay.batch_calls import registrations_call, skipped
from node.chain.relay.signatures import sign
from node.localnet.local_chain import ChainCallError, LocalChain, developer_keys
from protocols.identifiers import Address
from protocols.schedule import step_number
from protocols.signed_messages import SignedDelegation, SignedRevocation
from protocols.tally import Voted, read_votes
from protocols.typed_data import Delegation, Domain, Revocation, TypedMessage

__all__ = ["ACCOUNTS", "STAGE", "Refused", "Swarm", "key", "parameters", "skipped", "votes_in"]

STAGE = 60
ACCOUNTS = 40


class Refused(Exception):  # noqa: N818 - reads as in `pytest.raises(Refused, match="TooEarly")`
    """The contract refused a call with this custom error."""


class Swarm:
    """A deployed coordinator, spoken to from unlocked accounts by their number; account 0 is the organiser."""

    def __init__(self, chain: LocalChain, parameters: Parameters) -> None:
        self.chain = chain
        self.accounts: list[Address] = [str(account).lower() for account in chain.call("eth_accounts")]
        self.receipt = self._mined(0, {"data": creation_code(parameters)})
        self.address = str(self.receipt["contractAddress"]).lower()
        self.domain = Domain(int(chain.call("eth_chainId"), 16), self.address, self.view("eip712Domain")[5])
        self._serial = time.time_ns() // 1_000_000

    def send(self, sender: int, function: str, *arguments: object) -> list[DecodedEvent]:
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

    def step(self, stages: int) -> int:
        """Return the number of the open stage, counted from the first round's first."""
        number, stage = self.view("current")[:2]
        return step_number(number, stage, stages)

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

    def create(self, name: str, *words: bytes) -> Address:
        """Deploy a contract of `contracts/test`; its constructor's arguments as words."""
        receipt = self._mined(9, {"data": load_artifact(name).bytecode + b"".join(words).hex()})
        return str(receipt["contractAddress"]).lower()

    # --- signed messages ----------------------------------------------------------------------------------------

    def sign(self, number: int, message: TypedMessage) -> bytes:
        """Sign with an account's key."""
        return sign(self.domain, message, key(number))

    def serial(self) -> int:
        """Return a serial above all before it."""
        self._serial += 1
        return self._serial

    def delegation(self, node: int, owner: int | None = None, expiry: int = 2**64 - 1) -> SignedDelegation:
        """Return a delegation signed by both; without an owner the node is its own."""
        owner = node if owner is None else owner
        said = Delegation(self.accounts[owner], self.accounts[node], self.serial(), expiry)
        return SignedDelegation.of(said, self.sign(owner, said), self.sign(node, said))

    def revocation(self, node: int, owner: int | None = None) -> SignedRevocation:
        """Return a signed revocation."""
        owner = node if owner is None else owner
        said = Revocation(self.accounts[owner], self.accounts[node], self.serial())
        return SignedRevocation.of(said, self.sign(owner, said))

    def register(self, node: int, owner: int | None = None, expiry: int = 2**64 - 1) -> list[DecodedEvent]:
        """Register an account as a node; anybody submits it."""
        return self.send(9, "register", signed_words(self.delegation(node, owner, expiry)))

    def submit(self, data: str, sender: int = 9) -> list[DecodedEvent]:
        """Mine encoded calls of `node.chain.relay.batch_calls`; return the events. Raises `Refused`."""
        receipt = self._mined(sender, {"to": self.address, "data": data})
        return [event for log in receipt["logs"] if (event := ABI.event(log))]

    def counted(self, *numbers: int) -> None:
        """Register accounts and go on until they count; `current` is then the first round of theirs."""
        self.submit(registrations_call([self.delegation(number) for number in numbers]))
        since = max(self.view("nodes", self.accounts[number])[1] for number in numbers)
        while self.view("current")[0] < since:
            self.next_stage()

    def now(self) -> int:
        """Return the chain's time."""
        return int(self.chain.call("eth_getBlockByNumber", "latest", False)["timestamp"], 16)

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


@cache
def key(number: int) -> LocalAccount:
    """Return an account's key."""
    made: LocalAccount = Account.from_key(keys()[number])
    return made


@cache
def keys() -> list[str]:
    return developer_keys(ACCOUNTS)


def votes_in(events: list[DecodedEvent]) -> dict[Address, tuple[Address, ...]]:
    """Return who voted for whom in `VotesCounted` events."""
    return {vote.voter: vote.winners for event in events for vote in counted_votes(event)}


def counted_votes(event: DecodedEvent) -> tuple[Voted, ...]:
    if event.name != "VotesCounted":
        return ()
    return read_votes(event.fields["round"], event.fields["names"], event.fields["votes"])


def parameters(
    stages: int = 2, mode: str = "sealed", winners: int = 3, anchor: int = 1, quorum: int = 0, earliest: int = 0
) -> Parameters:
    """Return parameters of a swarm whose stages all last `STAGE` seconds."""
    return Parameters(
        stage_seconds=(STAGE,) * stages,
        manifest_digest=b"m" * 32,
        voting_mode=mode,
        winners=winners,
        anchor_blocks=anchor,
        quorum=quorum,
        earliest=earliest,
    )


@pytest.fixture(scope="session")
def anvil() -> Iterator[LocalChain]:
    with LocalChain(block_seconds=None, accounts=ACCOUNTS) as chain:
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
