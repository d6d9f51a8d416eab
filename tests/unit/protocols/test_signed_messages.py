"""The table of signed messages: every kind has its row, and its window."""

from __future__ import annotations

from typing import get_args

import pytest

from protocols.signed_messages import (
    MESSAGE_RULES,
    MessageKind,
    MessageTopic,
    RelayedMessage,
    SignedCommitment,
    SignedDelegation,
    SignedMessage,
    SignedRevocation,
    SignedReward,
    SignedVote,
    StageView,
    VoteReveal,
    in_window,
    kind_of,
    signer_named,
    topic_of,
)

OWNER, NODE, PEER = (f"0x{number:040x}" for number in (1, 2, 3))
SIGNATURE, WORD = bytes(65), bytes(32)
COMMIT, REVEAL = SignedCommitment(7, WORD, SIGNATURE), VoteReveal(7, (PEER,), WORD)
VOTE, REWARD = SignedVote(7, (PEER,), SIGNATURE), SignedReward(8, 1, 5, SIGNATURE)
DELEGATION = SignedDelegation(OWNER, NODE, 1, 2, SIGNATURE, SIGNATURE)
REVOCATION = SignedRevocation(OWNER, NODE, 1, SIGNATURE)


def test_every_kind_has_a_row_for_its_struct() -> None:
    """The kind is the wire tag, so that a message finds its row."""
    assert set(MESSAGE_RULES) == set(MessageKind)
    assert {rules.message for rules in MESSAGE_RULES.values()} == set(get_args(SignedMessage))
    for kind, rules in MESSAGE_RULES.items():
        assert rules.message.__struct_config__.tag == kind


@pytest.mark.parametrize(
    ("message", "topic", "text"),
    [
        (COMMIT, MessageTopic(MessageKind.COMMIT, 7), "commit:7"),
        (REWARD, MessageTopic(MessageKind.REWARD, 8, 1), "reward:8:1"),
        (REVOCATION, MessageTopic(MessageKind.REVOCATION), "revocation"),
    ],
)
def test_a_topic_is_kind_round_and_stage(message: SignedMessage, topic: MessageTopic, text: str) -> None:
    """An owner's order is bound to no round."""
    assert topic_of(message) == topic
    assert str(topic) == text
    assert topic.has_round == (kind_of(message) != MessageKind.REVOCATION)


@pytest.mark.parametrize(
    ("stage", "sealed", "taken"),
    [
        ((8, 0), True, {COMMIT}),
        ((8, 1), True, {REVEAL, REWARD}),
        ((9, 0), True, set()),
        ((8, 0), False, {VOTE}),
        ((8, 1), False, {REWARD}),
    ],
)
def test_each_kind_has_its_window(stage: tuple[int, int], sealed: bool, taken: set[SignedMessage]) -> None:
    """Votes in the stage after their round, reveals in the next, rewards in their own; owners' orders always."""
    now = StageView(*stage, stages=2, sealed=sealed, rounds={7, 8})
    assert {each for each in (COMMIT, REVEAL, VOTE, REWARD) if in_window(each, now)} == taken
    assert in_window(DELEGATION, now)
    assert in_window(REVOCATION, now)


def test_a_vote_on_a_round_without_a_known_seed_is_not_relayed() -> None:
    """Its signature can't be checked."""
    assert not in_window(COMMIT, StageView(8, 0, stages=2, sealed=True, rounds={8}))


def test_the_owner_signs_orders_and_the_announcer_the_rest() -> None:
    """Whoever announces an order."""
    assert signer_named(RelayedMessage(PEER, DELEGATION)) == OWNER
    assert signer_named(RelayedMessage(PEER, REWARD)) == PEER
