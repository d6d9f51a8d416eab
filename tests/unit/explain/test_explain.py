"""What `swarm explain` says of a round: every number, and what is not known."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from node.explain.regrade import Regraded, RegradedGroup
from node.explain.report_text import PEERS_SHOWN, WIDTH, delivered, overview, peer_text
from node.explain.round_facts import Delivery, Explanation, PeerFact, explanation
from node.identity import name_of
from node.machine.state import VoteRecord
from tests.support.explained_rounds import ADA, BOB, ME, NUMBER, PEER_IDS, SEED, STAGES, account, explained, records

GOLDEN = Path(__file__).parent


def is_golden(name: str, text: str) -> bool:
    """Return True if a text is the one that is kept; write it where none is kept yet."""
    path = GOLDEN / name
    if not path.exists():
        path.write_text(text + "\n")
    return path.read_text() == text + "\n"


def peer(facts: Explanation, address: str) -> PeerFact:
    return next(each for each in facts.peers if each.node.address == address)


def test_a_round_is_one_screen() -> None:
    """The golden texts are what operators read; a round fits a terminal of forty lines."""
    text = overview(explained())
    assert is_golden("overview.txt", text)
    assert is_golden("offline.txt", overview(explained(online=False)))
    assert len(text.splitlines()) < 40
    assert max(map(len, text.splitlines())) <= WIDTH


def test_a_peer_shows_each_stage_and_its_groups() -> None:
    """Accepted groups as they are graded now, refusals with a sentence."""
    groups = tuple(
        RegradedGroup(slot=slot, question=40 + slot, rewards=(1.0, 0.0, 0.1, 0.9), mean=0.5, ranked=slot > 0)
        for slot in range(3)
    )
    again = (
        Regraded(stage="answer", note="graded again: 2 groups, mean 0.500, as then", groups=groups),
        Regraded(stage="critique", note="can't be graded again: the body is not in this node's cache"),
        Regraded(stage="resolve"),
    )
    facts = explained()
    assert is_golden("peer.txt", peer_text(facts, peer(facts, BOB), again))


def test_an_offline_reader_knows_who_sent_what_from_the_outbox() -> None:
    """Own transactions are among those it signed; what stands under another's hash was brought by somebody."""
    commit, reveal, answer, critique = explained(online=False).deliveries
    assert (commit.by, commit.block, commit.state) == ("this node", 120, "mined")
    assert (reveal.by, reveal.block, reveal.sender) == ("another node", 0, None)
    assert (answer.what, answer.stage, answer.state, answer.error) == ("reward", "answer", "refused", "WrongRound")
    assert (critique.stage, critique.state) == ("critique", "not sent")


def test_the_chain_names_whoever_brought_a_message() -> None:
    """Block and sender come from the chain, the sender by name."""
    reveal = explained().deliveries[1]
    assert reveal.sender is not None
    assert (reveal.block, reveal.by, reveal.sender.name) == (131, "another node", name_of(PEER_IDS[ADA]))


def test_the_tally_caps_owners_and_knows_its_own_vote() -> None:
    """Ada has two votes and leads; this node's vote is among three."""
    tally = explained().tally
    assert tally is not None
    assert (tally.votes, tally.own) == (3, True)
    assert [(each.node.address, each.votes, each.leads) for each in tally.weights] == [
        (ADA, 2.0, True),
        (ME, 1.0, False),
    ]


def test_a_round_without_a_vote_has_no_ballots() -> None:
    """Its reason is told, and nothing is said of messages that never were."""
    facts = explanation(account(None, "no other peer could win"), STAGES, records(), None, PEER_IDS[ME], "-")
    assert "vote       none: no other peer could win" in overview(facts)
    assert [each.stage for each in facts.deliveries] == ["answer", "critique"]


def test_an_open_swarm_casts_one_vote() -> None:
    """Where votes are not sealed there is one message."""
    vote = VoteRecord(NUMBER, SEED, (ADA,), "committing")
    facts = explanation(replace(account(vote), sealed=False), STAGES, {}, None, PEER_IDS[ME], "-")
    assert [(each.what, each.state) for each in facts.deliveries[:2]] == [("vote", "not sent"), ("reward", "not sent")]


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (Delivery(what="reveal", state="under way", transaction="0x1"), "under way 0x1"),
        (Delivery(what="reveal", state="mined"), "on chain, transaction not known"),
        (Delivery(what="reveal", state="refused", error="SeedChanged"), "refused (SeedChanged) "),
        (Delivery(what="reveal", state="mined", transaction="0x1", by="this node"),
         "block not known, by this node: 0x1"),
    ],
)  # fmt: skip
def test_what_became_of_a_message(message: Delivery, text: str) -> None:
    """Whatever is not known is said to be."""
    assert delivered(message) == text


def test_many_peers_are_counted_beyond_the_screen() -> None:
    """The table ends, and says how many more there are."""
    facts = explained()
    many = replace(facts, peers=facts.peers * 10, silent=3)
    assert f"and {40 - PEERS_SHOWN + 3} more" in overview(many)


def test_facts_are_json() -> None:
    """`--json` gives the same facts back."""
    facts = explained()
    assert msgspec.json.decode(msgspec.json.encode(facts), type=Explanation) == facts
