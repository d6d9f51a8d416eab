"""Votes on a round's winners: planned once per round and seed, committed, revealed once the commitment has settled.

Source of the windows: `protocols.schedule`. What was ever signed is guarded once more by the vote protection on disk.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import replace

from node.machine import inputs as i
from node.machine.commands import CastVote, CommitVote, OwnMessage, RevealVote
from node.machine.external_bodies import round_scores
from node.machine.peer_score import is_graylisted
from node.machine.phases import CLOSED, VoteEvent, becomes_vote
from node.machine.relaying import sent_after
from node.machine.state import MAX_TRANSACTIONS, MAX_VOTES, Result, State, VoteRecord, current_step, is_eligible
from node.machine.transaction_keys import MessageKey
from protocols.identifiers import Address
from protocols.ranking import Score, winners
from protocols.schedule import commit_step, reveal_step

ALREADY = "AlreadyVoted"
"""The contract's error for a vote that is there already: this node's own, sent before a crash or a reorg."""


def advance_votes(state: State, at: float) -> Result:
    """Advance every vote to what the stage that has just opened allows; plan the one that is due."""
    state = _planned(state)
    votes = tuple(vote if vote.phase in CLOSED else _moved(state, vote) for vote in state.votes)
    commands = tuple(
        _command(state, after)
        for before, after in zip(state.votes, votes, strict=True)
        if before is not after and after.phase in ("committing", "revealing")
    )
    return _counted(state, votes), commands


def resend_votes(state: State) -> tuple[OwnMessage, ...]:
    """Send again, after a restart, every vote that is not known to be done; without waiting for relayers.

    A node that was cut off once may be cut off again before their time is over, and the stage may be short.
    """
    waiting = (_command(state, vote) for vote in state.votes if vote.phase in ("committing", "revealing"))
    return tuple(replace(command, after=0.0) for command in waiting)


def due_votes(state: State) -> tuple[OwnMessage, ...]:
    """Return the commands of votes that the contract takes in the current stage and that are not known to be done."""
    step, stages = current_step(state), state.parameters.stages
    windows = {"committing": commit_step, "revealing": reveal_step}
    return tuple(
        _command(state, vote)
        for vote in state.votes
        if vote.phase in windows and windows[vote.phase](vote.round, stages) == step
    )


def reopen_votes(state: State) -> State:
    """After a reorg: votes whose window lies ahead or is open again are sent once more, with the same winners."""
    step, stages = current_step(state), state.parameters.stages
    votes = tuple(
        _becomes(vote, "window opened again")
        if vote.phase != "failed" and step <= commit_step(vote.round, stages)
        else vote
        for vote in state.votes
    )
    return _counted(state, votes)


def vote_settled(state: State, key: MessageKey, settled: i.TransactionSettled, at: float) -> Result:
    """Move a vote on when one of its transactions is mined or refused for good."""
    for place in reversed(range(len(state.votes))):
        vote = state.votes[place]
        if (vote.round, vote.seed) == (key.topic.round, key.seed):
            return _settle(state, place, key.topic.kind, settled)
    return state, ()


def is_voting(state: State) -> bool:
    """Return True if a vote of this node is on its way to the chain."""
    return any(vote.phase in ("planned", "committing", "revealing") for vote in state.votes[-4:])


def votable_scores(state: State, scores: Mapping[Address, Score]) -> list[Score]:
    """Return the scores of peers that this node would vote for: none of them is graylisted."""
    return [score for peer, score in scores.items() if not is_graylisted(state, peer)]


def _planned(state: State) -> State:
    """Rank the round that has just ended, unless a vote on it was planned before or no peer could win."""
    voted_on = state.round - 1
    seed = state.seeds.get(voted_on)
    if seed is None or current_step(state) != commit_step(voted_on, state.parameters.stages):
        return state
    if not is_eligible(state, state.me, voted_on) or any((v.round, v.seed) == (voted_on, seed) for v in state.votes):
        return state
    parameters = state.parameters
    chosen = winners(
        votable_scores(state, round_scores(state, voted_on)), state.me, parameters.winners, parameters.minimum_groups
    )
    if not chosen:
        return state
    return replace(
        state, votes=(*state.votes, VoteRecord(voted_on, seed, chosen, becomes_vote(None, "round ranked")))[-MAX_VOTES:]
    )


def _moved(state: State, vote: VoteRecord) -> VoteRecord:
    step, stages = current_step(state), state.parameters.stages
    closes = reveal_step(vote.round, stages) if state.parameters.sealed else commit_step(vote.round, stages)
    if step > closes or state.seeds.get(vote.round, vote.seed) != vote.seed:
        return _becomes(vote, "window closed")
    if vote.phase == "planned" and step == commit_step(vote.round, stages):
        return _becomes(vote, "vote stage opened")
    if vote.phase == "committed" and step == reveal_step(vote.round, stages):
        return _becomes(vote, "reveal stage opened")
    return vote


def _settle(state: State, place: int, kind: str, settled: i.TransactionSettled) -> Result:
    vote = state.votes[place]
    moved = _advanced(state, vote, kind, settled.ok or settled.error.startswith(ALREADY))
    if settled.transaction and settled.transaction not in moved.transactions:
        moved = replace(moved, transactions=(*moved.transactions, settled.transaction)[-MAX_TRANSACTIONS:])
    state = _counted(state, (*state.votes[:place], moved, *state.votes[place + 1 :]))
    return state, (_command(state, moved),) if moved.phase == "revealing" != vote.phase else ()


def _advanced(state: State, vote: VoteRecord, kind: str, ok: bool) -> VoteRecord:
    """Return the vote after a transaction settled. A transaction that was mined after its window still counts."""
    awaited = {"committing": "commit" if state.parameters.sealed else "vote", "revealing": "reveal"}.get(vote.phase)
    if ok and (kind == "vote" or kind == "reveal") and (kind == awaited or vote.phase == "failed"):
        return _becomes(vote, "reveal settled" if kind == "reveal" else "open vote settled")
    if kind != awaited:
        return vote
    if not ok:
        return _becomes(vote, "refused")
    return _moved(state, _becomes(vote, "commitment settled"))


def _becomes(vote: VoteRecord, event: VoteEvent) -> VoteRecord:
    return replace(vote, phase=becomes_vote(vote.phase, event))


def _counted(state: State, votes: tuple[VoteRecord, ...]) -> State:
    """Return the state with these votes in place of its own; totals follow those that changed their phase."""
    done = failed = 0
    changed = False
    for before, after in zip(state.votes, votes, strict=True):
        if before is not after:
            changed = True
            done += (after.phase == "done") - (before.phase == "done")
            failed += (after.phase == "failed") - (before.phase == "failed")
    if not changed:
        return state
    if not (done or failed):
        return replace(state, votes=votes)
    before_totals = state.totals
    totals = replace(before_totals, votes=before_totals.votes + done, votes_failed=before_totals.votes_failed + failed)
    return replace(state, votes=votes, totals=totals)


def _command(state: State, vote: VoteRecord) -> OwnMessage:
    after = sent_after(state)
    if vote.phase == "revealing":
        return RevealVote(vote.round, vote.seed, vote.winners, after)
    return (CommitVote if state.parameters.sealed else CastVote)(vote.round, vote.seed, vote.winners, after)
