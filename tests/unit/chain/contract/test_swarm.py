"""Calls, verdicts and batches of the coordinator, without a chain."""

from __future__ import annotations

import pytest
from eth_account import Account

from node.chain.contract.abi import Revert
from node.chain.contract.swarm import SettlementVerdict, Voter, classify, is_registered
from node.chain.relay.signatures import compact, own_delegation, sign, signer_of
from node.machine.commands import AdvanceStage, CastVote, ChainCommand, RegisterNode, ReportReward
from protocols.delegation import FOR_EVER
from protocols.deployment import NodeEntry
from protocols.signed_messages import SignedDelegation
from protocols.typed_data import Commitment, Delegation, Domain

DOMAIN = Domain(1, "0x" + "c0" * 20, b"s" * 32)
ACCOUNT = Account.from_key(b"k" * 32)
ME, OWNER = str(ACCOUNT.address).lower(), "0x" + "aa" * 20
NOW = 1_000


def voter(delegation: SignedDelegation | None) -> Voter:
    return Voter(ME, b"k" * 32, bytes(32), delegation)


@pytest.mark.parametrize(
    ("entry", "registered"),
    [
        (NodeEntry("0x" + "00" * 20, 0, 0, 0), False),
        (NodeEntry(OWNER, 1, 5_000, 1), True),
        (NodeEntry(OWNER, 1, FOR_EVER, 1), True),
        (NodeEntry(OWNER, 1, 4_999, 1), False),
        (NodeEntry(OWNER, 1, NOW, 9), False),
        (NodeEntry(ME, 1, FOR_EVER, 1), False),
    ],
)
def test_a_delegation_is_brought_where_it_adds_something(entry: NodeEntry, registered: bool) -> None:
    """Not where the register has the same owner for at least as long; where it has not, the contract decides."""
    mine = voter(SignedDelegation.of(Delegation(OWNER, ME, 1, 5_000), b"", b""))
    assert is_registered(mine, entry, NOW) == registered


def test_a_node_of_its_own_is_registered_for_ever() -> None:
    """The largest expiry of a message is the largest that the contract keeps."""
    mine = voter(own_delegation(DOMAIN, ACCOUNT, 1))
    assert is_registered(mine, NodeEntry(ME, 1, FOR_EVER, 1), NOW)
    assert not is_registered(voter(None), NodeEntry(ME, 1, FOR_EVER, 1), NOW)


@pytest.mark.parametrize(
    ("command", "revert", "said"),
    [
        (RegisterNode(), Revert("OldSerial", {}), "done"),
        (RegisterNode(), Revert("OtherOwner", {}), "failed"),
        (RegisterNode(), Revert("Paused", {"until": 1}), "wait"),
        (AdvanceStage(1, 0), Revert("Paused", {"until": 1}), "wait"),
        (CastVote(1, bytes(32), (OWNER,)), Revert("DelegationOver", {}), "failed"),
        (ReportReward(1, 0, bytes(32), 0.5), Revert("RewardAlreadySubmitted", {}), "done"),
    ],
)
def test_a_refusal_is_done_to_be_tried_again_or_final(
    command: ChainCommand, revert: Revert, said: SettlementVerdict
) -> None:
    """What somebody else has done is done; a pause passes; the rest has failed."""
    assert classify(command, revert) == said


def test_the_short_form_keeps_a_signature_whole() -> None:
    """EIP-2098: r, and s with the parity in its top bit."""
    for number in range(8):
        message = Commitment(number, bytes(32), bytes(32))
        full = sign(DOMAIN, message, ACCOUNT)
        short = compact(full)
        s = int.from_bytes(short[32:], "big")
        back = short[:32] + (s & (2**255 - 1)).to_bytes(32, "big") + bytes([27 + (s >> 255)])
        assert (len(short), back) == (64, full)
        assert signer_of(DOMAIN, message, full) == ME


@pytest.mark.parametrize("broken", [b"", bytes(65), b"\xff" * 65, b"\x01" * 64 + b"\x1d"])
def test_what_is_no_signature_is_nobodys(broken: bytes) -> None:
    """A peer sends what it likes: no error, no signer."""
    assert signer_of(DOMAIN, Commitment(1, bytes(32), bytes(32)), broken) is None
