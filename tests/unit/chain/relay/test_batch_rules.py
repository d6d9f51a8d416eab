"""The chain's half of the table of kinds, and the signatures that it is checked with."""

from __future__ import annotations

from eth_account import Account

from node.chain.contract.swarm import COMMITTED, EMPTY, KEPT_BYTES, VOTED, Voter
from node.chain.relay.batch_rules import BATCH_RULES, OWN_MESSAGES
from node.chain.relay.signatures import is_signed, own_delegation, sign
from node.machine.commands import CastVote, CommitVote, OwnMessage, ReportReward, RevealVote
from protocols.signed_messages import MessageKind, RelayedMessage, topic_of
from protocols.typed_data import Domain, TypedMessage

DOMAIN = Domain(1, "0x" + "c0" * 20, b"s" * 32)
ACCOUNT = Account.from_key(b"k" * 32)
ME, OTHER = str(ACCOUNT.address).lower(), "0x" + "aa" * 20
SEED = b"e" * 32
VOTER = Voter(ME, b"k" * 32, bytes(32))
COMMANDS: tuple[OwnMessage, ...] = (
    CommitVote(7, SEED, (OTHER,)),
    RevealVote(7, SEED, (OTHER,)),
    CastVote(7, SEED, (OTHER,)),
    ReportReward(8, 1, SEED, 0.5),
)


def signed(said: TypedMessage) -> bytes:
    return sign(DOMAIN, said, ACCOUNT)


def relayed(command: OwnMessage) -> RelayedMessage:
    return RelayedMessage(ME, OWN_MESSAGES[type(command)].make(command, VOTER, signed))


def test_every_kind_has_a_row() -> None:
    """A new kind is known here as well."""
    assert set(BATCH_RULES) == set(MessageKind)
    assert set(OWN_MESSAGES) == {type(command) for command in COMMANDS}


def test_a_message_settles_under_its_commands_key() -> None:
    """So that a relayer finds its own messages among those of others."""
    for command in COMMANDS:
        assert topic_of(relayed(command).message) == command.key.topic


def test_a_message_counts_for_its_signer_seed_and_round_only() -> None:
    """A reveal needs no signature; the others are nobody else's, and of no other seed."""
    for command in COMMANDS:
        one = relayed(command)
        is_reveal = isinstance(command, RevealVote)
        assert is_signed(DOMAIN, one, SEED)
        assert is_signed(DOMAIN, one, b"x" * 32) == is_reveal
        assert is_signed(DOMAIN, RelayedMessage(OTHER, one.message), SEED) == is_reveal
    assert is_signed(DOMAIN, RelayedMessage(OTHER, own_delegation(DOMAIN, ACCOUNT, 1)), SEED)


def test_what_stands_on_chain_is_not_missing() -> None:
    """Votes where the ballot is empty, reveals of the ballot's own commitment, rewards whose bit is not set."""
    commit, reveal, vote, reward = map(relayed, COMMANDS)
    own = commit.message.commitment[:KEPT_BYTES]  # type: ignore[union-attr]
    for one in (commit, vote):
        rules = BATCH_RULES[topic_of(one.message).kind]
        assert [rules.is_missing(one, SEED, (state, own)) for state in (EMPTY, COMMITTED, VOTED)] == [
            True,
            False,
            False,
        ]
    opens = BATCH_RULES[MessageKind.REVEAL].is_missing
    assert [opens(reveal, SEED, (state, own)) for state in (EMPTY, COMMITTED, VOTED)] == [False, True, False]
    assert not opens(reveal, SEED, (COMMITTED, bytes(KEPT_BYTES)))
    unreported = BATCH_RULES[MessageKind.REWARD].is_missing
    assert [unreported(reward, SEED, stages) for stages in (0b00, 0b01, 0b10, 0b11)] == [True, True, False, False]
