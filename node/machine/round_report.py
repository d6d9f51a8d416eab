"""Round report: what each number of a round was made of when the round was ranked. Pure.

It is built from the state when a later round opens and does not change: rollouts that arrive after the ranking count
for training, not for the vote. Only the outcome of the vote is added later.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from msgspec.structs import replace

from node.machine.external_bodies import round_scores
from node.machine.peer_score import score_of
from node.machine.state import MAX_BODIES, BodyRecord, State, VoteRecord, current_step, is_eligible
from node.machine.voting import votable_scores
from protocols.identifiers import Address, Seed
from protocols.ranking import Score, ranked
from protocols.schedule import commit_step, step_number

MAX_ENTRIES = MAX_BODIES
"""Peers in a report; those with rollouts come first."""


class PeerRoundReport(msgspec.Struct, frozen=True, array_like=True):
    """A peer in a round. `bodies` has a place for each stage, None if nothing was announced; `rank` is its place
    among those that could win, from 1, else 0. `peer_score` is what this node
    thought of it then; `owner` and `peer_id` are empty where they are not known."""

    peer: Address
    owner: Address
    since: int
    bodies: tuple[BodyRecord | None, ...]
    groups: int
    score: float
    rank: int
    peer_score: float = 0.0
    peer_id: str = ""


class RoundReport(msgspec.Struct, frozen=True, kw_only=True):
    """A round as this node knew it when it ranked it.

    `at` is local time in Unix seconds, `opened` the chain's when the last stage that this node saw of the round opened,
    0 where it saw none. `winners` and `minimum_groups` are the rule's; `silent` counts peers beyond the entries. `vote`
    is None for the reason `no_vote`.
    """

    round: int
    seed: Seed
    me: Address
    at: float
    opened: int
    game: str
    sealed: bool
    winners: int
    minimum_groups: int
    entries: tuple[PeerRoundReport, ...]
    silent: int = 0
    vote: VoteRecord | None = None
    no_vote: str = ""


def ended_rounds(before: State, after: State) -> tuple[int, ...]:
    """Return the rounds that `before` knows and that are over in `after`, the oldest first."""
    stages = before.parameters.stages
    known = {step // stages for step in before.bodies_by_step} | {before.round, after.round - 1}
    return tuple(sorted(number for number in known if number < after.round and number in before.seeds))


def build_round_report(
    before: State, after: State, number: int, at: float, peer_ids: Mapping[Address, str]
) -> RoundReport:
    """Return the report of a round that is over: its rollouts as in `before`, the vote as in `after`."""
    parameters, seed = before.parameters, before.seeds[number]
    scores = round_scores(before, number)
    places = ranked(votable_scores(after, scores), before.me, parameters.minimum_groups)
    announcers = _announcers(before, number)
    silent = sorted(peer for peer, since in before.peers.items() if since <= number and peer not in announcers)
    order = [score.peer for score in places]
    order += sorted(announcers - set(order), key=lambda peer: (-scores[peer].mean if peer in scores else 0.0, peer))
    ranks = {peer: rank for rank, peer in enumerate(order[: len(places)], 1)}
    entries = tuple(
        _entry(before, after, number, scores.get(peer, Score(peer, 0, 0.0)), ranks.get(peer, 0), peer_ids.get(peer, ""))
        for peer in (order + silent)[:MAX_ENTRIES]
    )
    vote = next((vote for vote in after.votes if (vote.round, vote.seed) == (number, seed)), None)
    return RoundReport(
        round=number,
        seed=seed,
        me=before.me,
        at=at,
        opened=before.deadline - parameters.seconds[before.stage] if before.round == number else 0,
        game=parameters.game,
        sealed=parameters.sealed,
        winners=parameters.winners,
        minimum_groups=parameters.minimum_groups,
        entries=entries,
        silent=max(0, len(order) + len(silent) - MAX_ENTRIES),
        vote=vote,
        no_vote="" if vote else _why_not(after, number, bool(places)),
    )


def changed_votes(before: State | None, after: State) -> tuple[VoteRecord, ...]:
    """Return the votes that have changed; all of them if nothing is known of before."""
    if before is None:
        return after.votes
    return () if before.votes is after.votes else tuple(vote for vote in after.votes if vote not in before.votes)


def with_vote(report: RoundReport, vote: VoteRecord) -> RoundReport:
    """Return the report with the outcome of its vote; a vote on another round or seed changes nothing."""
    own = (report.round, report.seed) == (vote.round, vote.seed)
    return replace(report, vote=vote, no_vote="") if own else report


def _announcers(state: State, number: int) -> set[Address]:
    first = step_number(number, 0, state.parameters.stages)
    return {
        peer for step in range(first, first + state.parameters.stages) for peer in state.bodies_by_step.get(step, {})
    }


def _entry(state: State, after: State, number: int, score: Score, rank: int, peer_id: str) -> PeerRoundReport:
    peer, first = score.peer, step_number(number, 0, state.parameters.stages)
    return PeerRoundReport(
        peer=peer,
        owner=state.owners.get(peer, ""),
        since=state.peers.get(peer, -1),
        bodies=tuple(
            state.bodies_by_step.get(step, {}).get(peer) for step in range(first, first + state.parameters.stages)
        ),
        groups=score.groups,
        score=score.mean,
        rank=rank,
        peer_score=round(score_of(after, peer), 2),
        peer_id=peer_id,
    )


def _why_not(state: State, number: int, anybody: bool) -> str:
    if not is_eligible(state, state.me, number):
        return "this node did not count in the round"
    if not anybody:
        return "no other peer could win"
    if current_step(state) != commit_step(number, state.parameters.stages):
        return "this node was away when votes on the round were due"
    return "no vote was planned"
