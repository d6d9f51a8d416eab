"""Measure what the coordinator costs on a real chain: `python -m tools.gas_report [--check]` writes contracts/GAS.md.

Messages are signed and submitted as by a relayer. Every figure is a receipt's gas; a batch's is divided by its size.
"""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path
from typing import Any

from eth_account import Account
from eth_account.signers.local import LocalAccount

import contracts
from contracts import Parameters, creation_code, load_artifact
from node.chain.contract.swarm import ABI, signed_words
from node.chain.relay import batch_calls as batches
from node.chain.relay.signatures import own_delegation, sign
from node.localnet.local_chain import LocalChain
from protocols.identifiers import Address, keccak256
from protocols.signed_messages import (
    SignedCommitment,
    SignedDelegation,
    SignedRevocation,
    SignedReward,
    SignedVote,
    VoteReveal,
)
from protocols.typed_data import Commitment, Delegation, Domain, Revocation, Reward, Vote
from protocols.voting import vote_commitment

REPORT = Path(contracts.__file__).parent / "GAS.md"
STAGE = 60
BATCH, WINNERS = 100, 5
FEW, MANY = 100, 10_000
BEST = 20
"""Voters agree more or less: the winners of a batch are among so many."""
TOLERANCE = 0.02
SALT = b"s" * 32
SENDER = "0xf39fd6e51aad88f6f4ce6ab8827279cfffb92266"

VOTE_OPEN = "vote, open"
VOTE_SEALED = "vote, sealed, both phases"
REGISTER = "registration, delegated, alone"
SPREAD = "vote, open, winners spread over all nodes"
ADVANCE = "advance to the next round"
TARGETS = {VOTE_OPEN: 14_000, VOTE_SEALED: 30_000, REGISTER: 80_000, ADVANCE: 35_000}
"""Gas at most; for votes: each in a batch of `BATCH` with `WINNERS` winners, from a peer's second vote on."""

Gas = dict[str, int]


class Meter:
    """A coordinator of one-stage rounds, and the nodes registered there."""

    def __init__(self, chain: LocalChain, mode: str) -> None:
        self.chain, self.mode = chain, mode
        terms = Parameters(stage_seconds=(STAGE,), manifest_digest=b"m" * 32, voting_mode=mode, anchor_blocks=1)
        receipt = self._mined({"data": creation_code(terms)})
        self.address = str(receipt["contractAddress"]).lower()
        self.deployment = int(receipt["gasUsed"], 16)
        self.domain = Domain(int(chain.call("eth_chainId"), 16), self.address, self.view("eip712Domain")[5])
        self.nodes: list[LocalAccount] = []
        self._dice = random.Random(1)

    # --- the chain ----------------------------------------------------------------------------------------------

    def gas(self, data: str, sender: Address = SENDER) -> int:
        """Mine a call; return the gas it used. Raises RuntimeError where it failed."""
        return int(self._mined({"to": self.address, "data": data, "from": sender})["gasUsed"], 16)

    def view(self, function: str, *arguments: object) -> tuple[Any, ...]:
        """Return a view's results."""
        data = self.chain.call("eth_call", {"to": self.address, "data": ABI.call(function, *arguments)}, "latest")
        return ABI.result(function, data)

    def advance(self) -> int:
        """Open the next round."""
        self.chain.call("evm_increaseTime", STAGE + 1)
        self.chain.call("anvil_mine", "0x2")
        return self.gas(ABI.call("advance"))

    def _mined(self, call: dict[str, str]) -> dict[str, Any]:
        name = self.chain.call("eth_sendTransaction", {"from": SENDER, "gas": hex(16_000_000), **call})
        receipt = None
        while receipt is None:
            receipt = self.chain.call("eth_getTransactionReceipt", name)
        if receipt["status"] != "0x1":
            raise RuntimeError(f"a measured call failed: {call['data'][:10]}")
        return dict(receipt)

    # --- nodes --------------------------------------------------------------------------------------------------

    def register(self, count: int) -> int:
        """Register nodes, each its own owner, until there are `count`; return the gas of the last one in a batch."""
        each = 0
        serial = time.time_ns() // 1_000_000
        while len(self.nodes) < count:
            new = [account(len(self.nodes) + number) for number in range(min(BATCH, count - len(self.nodes)))]
            signed = [own_delegation(self.domain, node, serial) for node in new]
            each = self.gas(batches.registrations_call(signed)) // len(new)
            self.nodes += new
        return each

    def settle(self) -> None:
        """Go on until every node counts."""
        for _ in range(4):
            self.advance()

    def winners(self, voter: LocalAccount, among: int) -> tuple[Address, ...]:
        """Return some of the first `among` nodes, ascending, never the voter."""
        others = [name(node) for node in self.nodes[:among] if node is not voter]
        return tuple(sorted(self._dice.sample(others, WINNERS)))


def name(node: LocalAccount) -> Address:
    """Return an account's address."""
    return str(node.address).lower()


def account(number: int) -> LocalAccount:
    """Return a node's key: the same in each run."""
    made: LocalAccount = Account.from_key(keccak256(b"gas" + number.to_bytes(4, "big")))
    return made


# --- what is measured -------------------------------------------------------------------------------------------------


def open_votes(meter: Meter, voters: list[LocalAccount], among: int) -> int:
    """Submit a batch of votes on the round before the present one; return the gas of each."""
    round_number = meter.view("current")[0] - 1
    seed = meter.view("seedOf", round_number)[0]
    votes = [Vote(round_number, seed, meter.winners(voter, among)) for voter in voters]
    signed = [SignedVote.of(vote, sign(meter.domain, vote, voter)) for vote, voter in zip(votes, voters, strict=True)]
    return meter.gas(batches.votes_call(round_number, signed)) // len(signed)


def sealed_votes(meter: Meter, voters: list[LocalAccount], among: int) -> tuple[int, int]:
    """Submit a batch of commitments, and the next round their reveals; return the gas of each."""
    round_number = meter.view("current")[0] - 1
    seed = meter.view("seedOf", round_number)[0]
    reveals = [(name(voter), VoteReveal(round_number, meter.winners(voter, among), SALT)) for voter in voters]
    made = [
        Commitment(round_number, seed, vote_commitment(round_number, seed, node, one.winners, SALT))
        for node, one in reveals
    ]
    signed = [SignedCommitment.of(one, sign(meter.domain, one, voter)) for one, voter in zip(made, voters, strict=True)]
    commit = meter.gas(batches.commitments_call(round_number, signed)) // len(signed)
    meter.advance()
    return commit, meter.gas(batches.reveals_call(round_number, reveals)) // len(reveals)


def rewards(meter: Meter, voters: list[LocalAccount]) -> int:
    """Submit a batch of rewards of the present round; return the gas of each."""
    now, stage, seed = meter.view("current")[:3]
    typed = Reward(now, stage, seed, 500_000)
    signed = [SignedReward.of(typed, sign(meter.domain, typed, voter)) for voter in voters]
    return meter.gas(batches.rewards_call(now, stage, signed)) // len(signed)


def delegations(meter: Meter, number: int) -> Gas:
    """Register, renew and revoke one node of a delegating owner."""
    owner, node = account(1_000_000 + number), account(2_000_000 + number)
    serial = time.time_ns() // 1_000_000
    typed = Delegation(name(owner), name(node), serial, 2**64 - 1)
    both = SignedDelegation.of(typed, sign(meter.domain, typed, owner), sign(meter.domain, typed, node))
    newer = Delegation(name(owner), name(node), serial + 1, 2**64 - 1)
    renewal = SignedDelegation.of(newer, sign(meter.domain, newer, owner), b"")
    end = Revocation(name(owner), name(node), serial + 2)
    ended = SignedRevocation.of(end, sign(meter.domain, end, owner))
    return {
        REGISTER: meter.gas(ABI.call("register", signed_words(both))),
        "renewal, alone": meter.gas(ABI.call("register", signed_words(renewal))),
        "revocation, in a batch of 1": meter.gas(batches.revocations_call([ended])),
    }


def direct(meter: Meter, voter: LocalAccount) -> int:
    """Send one vote from the node's own account."""
    round_number = meter.view("current")[0] - 1
    seed = meter.view("seedOf", round_number)[0]
    meter.chain.call("anvil_impersonateAccount", name(voter))
    meter.chain.fund(name(voter))
    data = ABI.call("submitWinners", round_number, seed, list(meter.winners(voter, BEST)))
    return meter.gas(data, name(voter))


def measure_open(meter: Meter, registered: int) -> Gas:
    """Measure what there is in the open mode, with so many nodes registered."""
    each = meter.register(registered)
    meter.settle()
    voters = meter.nodes[-BATCH:]
    first = open_votes(meter, voters, BEST)
    rewards(meter, voters)
    turned = meter.advance()
    found = {VOTE_OPEN: open_votes(meter, voters, BEST), "reward, from the second on": rewards(meter, voters)}
    meter.advance()
    spread = open_votes(meter, voters, registered)
    meter.advance()
    return {
        **found,
        "vote, open, a peer's first": first,
        SPREAD: spread,
        "vote, open, sent by the node itself": direct(meter, voters[0]),
        **delegations(meter, registered),
        "registration, own, in a batch": each,
        ADVANCE: turned,
    }


def measure_sealed(meter: Meter, registered: int) -> Gas:
    """Measure what there is in the sealed mode."""
    meter.register(registered)
    meter.settle()
    voters = meter.nodes[-BATCH:]
    first = sealed_votes(meter, voters, BEST)
    commit, reveal = sealed_votes(meter, voters, BEST)
    return {
        "commitment": commit,
        "reveal": reveal,
        VOTE_SEALED: commit + reveal,
        "vote, sealed, both phases, a peer's first": sum(first),
    }


def measure(few: int = FEW, many: int = MANY) -> tuple[Gas, Gas]:
    """Return gas by action with `few` and then with `many` nodes registered."""
    first: Gas = {}
    second: Gas = {}
    with LocalChain(block_seconds=None) as chain:
        for mode, what in (("open", measure_open), ("sealed", measure_sealed)):
            meter = Meter(chain, mode)
            first |= what(meter, few)
            if many > few:
                second |= what(meter, many)
            first["deployment"] = meter.deployment
    return first, second


# --- the report -------------------------------------------------------------------------------------------------------

HEAD = f"""# What the coordinator costs

Gas of mined transactions on a local chain, written by `python -m tools.gas_report`; a test measures it again. Votes
name {WINNERS} winners among the {BEST} best nodes unless the row says otherwise. Votes, rewards and registrations are
submitted in batches of {BATCH}; the table gives gas per entry, from a peer's second entry on unless the row says
"first". Rounds have one stage, which is the most expensive case for sealed votes. The deployed code has {{runtime}}
bytes of the 24,576 that EIP-170 allows.

A batch pays about 3,660 gas for each distinct winner, however many votes name it, because the contract looks up
whether the winner is registered. Votes for many different winners are therefore expensive, and clever batching hardly
helps: for 1,000 voters with winners drawn from all nodes, greedy batches by common winners would save 7 % at 100 nodes
and 8 % at 10,000. Relayers submit votes in the order of their winners, which costs nothing: that saves 1 to 4 % here,
and 36 % if voters fall into 20 camps. Nodes that rank by the same rollouts agree (first row). A swarm whose voters see
different peers pays more, and its manifest may allow fewer winners.

| action | {FEW} nodes | {MANY:,} nodes | target |
| --- | ---: | ---: | ---: |
"""


def report(few: Gas, many: Gas) -> str:
    """Return the text of contracts/GAS.md."""
    lines = [
        f"| {action} | {gas:,} | {_shown(many.get(action))} | {_shown(TARGETS.get(action))} |"
        for action, gas in few.items()
    ]
    return HEAD.format(runtime=f"{load_artifact().runtime_bytes:,}") + "\n".join(lines) + "\n"


def _shown(gas: int | None) -> str:
    return "" if gas is None else f"{gas:,}"


def read_report() -> tuple[Gas, Gas]:
    """Return the committed figures."""
    few: Gas = {}
    many: Gas = {}
    for line in REPORT.read_text().splitlines():
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        figures = [cell.replace(",", "") for cell in cells[1:3]]
        if figures and figures[0].isdigit():
            few[cells[0]] = int(figures[0])
            many |= {cells[0]: int(figures[1])} if figures[1] else {}
    return few, many


def problems(measured: Gas, committed: Gas) -> list[str]:
    """Return where measured gas misses a target, or the committed report by more than `TOLERANCE`."""
    over = [
        f"{action}: {gas} gas, the target is {TARGETS[action]}"
        for action, gas in measured.items()
        if gas > TARGETS.get(action, gas)
    ]
    stale = [
        f"{action}: {gas} gas, the report says {committed.get(action)}"
        for action, gas in measured.items()
        if abs(gas - committed.get(action, 0)) > TOLERANCE * gas
    ]
    return over + stale


def main(arguments: list[str]) -> int:
    """Measure and write the report, or with `--check` only compare it. Return the exit code."""
    few, many = measure()
    if "--check" not in arguments:
        REPORT.write_text(report(few, many))
    committed = read_report()
    found = problems(few, committed[0]) + problems(many, committed[1])
    print("\n".join(found) or f"{REPORT.name} is current and meets its targets")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
