"""The account of a round: frozen when the round is ranked, followed until its vote is done."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from node.machine import inputs as i
from node.machine.round_report import (
    MAX_ENTRIES,
    RoundReport,
    build_round_report,
    changed_votes,
    ended_rounds,
    with_vote,
)
from node.machine.state import BodyRecord, State, initial, with_body
from node.machine.step import step
from node.machine.transaction_keys import MessageKey
from protocols.identifiers import body_digest
from protocols.manifest import GameSpec, Manifest, StageSpec, VotingSpec
from protocols.signed_messages import MessageKind, MessageTopic

SEEDS = {number: body_digest(str(number).encode()) for number in range(8)}
ME, ADA, BOB, CYD, DAN = (f"0x{number:040x}" for number in range(1, 6))
OWNERS = {ADA: "0x" + "aa" * 20}
DEBATE = Manifest(
    name="t",
    game=GameSpec(name="debate"),
    stages=tuple(StageSpec(name=name, seconds=60) for name in ("answer", "critique", "resolve")),
)


def at(state: State, *happened: i.AnyInput) -> State:
    for each in happened:
        state, _ = step(state, i.Stamped(0.0, each))
    return state


def opened(number: int, stage: int = 0) -> i.StageOpened:
    return i.StageOpened(number, stage, SEEDS[number], 60 * number + 60, 60 * number, 1)


def playing(manifest: Manifest, *peers: str) -> State:
    """Return a node in round 2 among these peers, which count from round 1 on."""
    state = replace(initial(ME, manifest), peers=dict.fromkeys((ME, *peers), 1), owners=OWNERS)
    return at(state, i.NodeStarted(), i.ChainRestored(0.0), opened(2))


def arrived(groups: int, mean: float) -> BodyRecord:
    return BodyRecord(body_digest(bytes([groups])), 100, "arrived", groups, groups * mean)


def share(minimum_groups: int = 2) -> State:
    """Return round 2 of `share`: ada and bob can win, bob better; cyd made too few groups, dan was refused."""
    manifest = Manifest(name="t", voting=VotingSpec(winners=1, minimum_groups=minimum_groups))
    state = playing(manifest, ADA, BOB, CYD, DAN)
    bodies = {ME: arrived(4, 0.9), ADA: arrived(4, 0.5), BOB: arrived(3, 0.75), CYD: arrived(1, 1.0)}
    for peer, body in bodies.items():
        state = with_body(state, 2, peer, body)
    return with_body(state, 2, DAN, BodyRecord(bytes(32), 9, "refused", reason="assignment"))


def account(before: State, after: State, number: int = 2) -> RoundReport:
    return build_round_report(before, after, number, 7.0, {BOB: "16Uiu2bob"})


def test_ranks_are_those_of_the_vote_and_every_body_keeps_its_reason() -> None:
    """Who can win comes first, in the order of the vote; own rollouts, too few groups and refusals have no rank."""
    before = share()
    found = account(before, at(before, opened(3)))
    assert [(entry.peer, entry.rank) for entry in found.entries] == [(BOB, 1), (ADA, 2), (CYD, 0), (ME, 0), (DAN, 0)]
    assert found.vote is not None
    assert found.vote.winners == (BOB,)
    assert found.entries[0].peer_id == "16Uiu2bob"
    assert found.entries[1].owner == OWNERS[ADA]
    refused = found.entries[-1].bodies[0]
    assert refused is not None
    assert refused.reason == "assignment"
    assert (found.opened, found.at, found.no_vote) == (120, 7.0, "")


@given(
    st.dictionaries(st.sampled_from([ME, ADA, BOB, CYD, DAN]), st.tuples(st.integers(0, 4), st.integers(0, 4))),
    st.dictionaries(st.sampled_from([ADA, BOB, CYD, DAN]), st.sampled_from([-60.0, 1.0])),
    st.integers(1, 4),
)
def test_the_first_ranks_are_the_votes_winners(
    played: dict[str, tuple[int, int]], peer_scores: dict[str, float], most: int
) -> None:
    """Whatever the peers did and are thought of, the account shows the order that the vote was made by."""
    manifest = Manifest(name="t", voting=VotingSpec(winners=most, minimum_groups=2))
    before = replace(playing(manifest, ADA, BOB, CYD, DAN), peer_scores=peer_scores)
    for peer, (groups, quarters) in played.items():
        before = with_body(before, 2, peer, arrived(groups, quarters / 4))
    found = account(before, at(before, opened(3)))
    first = [entry.peer for entry in found.entries if 0 < entry.rank <= most]
    assert (found.vote.winners if found.vote else ()) == tuple(sorted(first))
    assert bool(found.no_vote) == (found.vote is None)


def test_a_graylisted_peer_has_no_rank() -> None:
    """The account ranks as the vote does: by the peer scores of the moment in which the round was ranked."""
    before = replace(share(), peer_scores={BOB: -60.0})
    found = account(before, at(before, opened(3)))
    assert [(entry.peer, entry.rank) for entry in found.entries[:2]] == [(ADA, 1), (CYD, 0)]
    assert found.vote is not None
    assert found.vote.winners == (ADA,)
    assert next(entry for entry in found.entries if entry.peer == BOB).peer_score == -57.0


def test_what_arrives_after_the_ranking_changes_no_account() -> None:
    """The account is taken from the state before the round was over; a late body is no part of it."""
    before = with_body(share(), 2, DAN, BodyRecord(body_digest(b"late"), 9, "fetching"))
    after = at(before, opened(3), i.RolloutsArrived(DAN, 2, 0, body_digest(b"late"), 4, 4.0))
    late = after.bodies_by_step[2][DAN]
    assert late.state == "arrived"
    assert next(entry for entry in account(before, after).entries if entry.peer == DAN).score == 0.0


def test_a_round_without_a_vote_says_why() -> None:
    """Nobody could win; the node did not count; it was away when votes were due."""
    before = share(minimum_groups=9)
    assert account(before, at(before, opened(3))).no_vote == "no other peer could win"
    assert "away" in account(share(), at(share(), opened(5))).no_vote
    newcomer = replace(share(), peers={**share().peers, ME: 9})
    assert "did not count" in account(newcomer, at(newcomer, opened(3))).no_vote


def test_a_score_over_several_stages_shows_each_of_them() -> None:
    """A stage of which nothing was heard has an empty place and counts as nothing."""
    before = at(playing(DEBATE, ADA), opened(2, 1), opened(2, 2))
    before = with_body(with_body(before, 6, ADA, arrived(4, 0.6)), 8, ADA, arrived(4, 0.9))
    ada = next(entry for entry in account(before, at(before, opened(3))).entries if entry.peer == ADA)
    assert [body and body.groups for body in ada.bodies] == [4, None, 4]
    assert ada.groups == 8
    assert round(ada.score, 6) == 0.5


def test_rounds_that_have_ended_are_found_once_they_have() -> None:
    """The round that was open, and older ones whose rollouts are kept; none while it goes on or a reorg leads back."""
    before = share()
    assert ended_rounds(before, before) == ()
    assert ended_rounds(before, at(before, opened(3))) == (2,)
    assert ended_rounds(before, at(before, opened(6))) == (2,)
    assert ended_rounds(at(before, opened(3)), before) == ()


def test_an_account_follows_its_vote_and_no_other() -> None:
    """A settled commitment changes the vote; one under another seed does not."""
    before = share()
    after = at(before, opened(3))
    settled = at(after, i.TransactionSettled(MessageKey(MessageTopic(MessageKind.COMMIT, 2), SEEDS[2]), True, "0xc0"))
    (vote,) = changed_votes(after, settled)
    found = account(before, after)
    assert found.vote is not None
    assert found.vote.phase == "committing"
    assert with_vote(found, vote).vote == vote
    assert vote.transactions == ("0xc0",)
    assert with_vote(found, replace(vote, seed=SEEDS[5])) == found
    assert changed_votes(None, settled) == settled.votes
    assert changed_votes(settled, settled) == ()


def test_an_account_is_bounded() -> None:
    """In a large swarm silent peers beyond the bound are counted, not listed; those that were heard stay."""
    strangers = [f"0x{number:040x}" for number in range(100, 100 + MAX_ENTRIES)]
    before = with_body(playing(Manifest(name="t"), *strangers), 2, strangers[-1], arrived(4, 0.5))
    found = account(before, at(before, opened(3)))
    assert len(found.entries) == MAX_ENTRIES
    assert found.silent == 1
    assert found.entries[0].peer == strangers[-1]
