"""Keys of chain commands: one for each transaction, in the database, the journal and the log."""

from __future__ import annotations

import msgspec
import pytest

from node.machine.commands import (
    AdvanceStage,
    CastVote,
    ChainCommand,
    CommitVote,
    RegisterNode,
    RelayMessages,
    RenewDelegation,
    ReportReward,
    RevealVote,
)
from node.machine.inputs import TransactionSettled
from node.machine.transaction_keys import encode_key
from protocols.signed_messages import MessageKind, MessageTopic

SEED, ADA = bytes(range(32)), "0x" + "aa" * 20
COMMANDS: dict[ChainCommand, str] = {
    RegisterNode(): "register",
    RenewDelegation(5): "renew:5",
    AdvanceStage(7, 1): "advance:7:1",
    CommitVote(7, SEED, (ADA,)): "commit:7:0001020304050607",
    RevealVote(7, SEED, (ADA,)): "reveal:7:0001020304050607",
    CastVote(7, SEED, (ADA,)): "vote:7:0001020304050607",
    ReportReward(7, 1, SEED, 0.5): "reward:7:1",
    RelayMessages(MessageTopic(MessageKind.COMMIT, 6), 7, 1, SEED, 2, ()): "relay:commit:6:7:1:2",
}


@pytest.mark.parametrize(("command", "text"), COMMANDS.items(), ids=COMMANDS.values())
def test_a_key_reads_back_from_the_journal(command: ChainCommand, text: str) -> None:
    """As it was; its text is what an operator reads."""
    settled = TransactionSettled(command.key, ok=True, transaction="0x1")
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(settled), type=TransactionSettled) == settled
    assert str(command.key) == text


def test_two_commands_have_one_key_only_where_they_are_one_transaction() -> None:
    """When a command is to be sent, and for whom a vote is, makes no other transaction of it; another seed does."""
    assert len({encode_key(command.key) for command in COMMANDS}) == len(COMMANDS)
    assert CommitVote(7, SEED, ()).key == CommitVote(7, SEED, (ADA,), after=9.0).key
    assert CommitVote(7, bytes(32), (ADA,)).key != CommitVote(7, SEED, (ADA,)).key
