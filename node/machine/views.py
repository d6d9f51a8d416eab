"""Reading the machine: the only way for others to look at its state."""

from __future__ import annotations

from datetime import UTC, datetime

from node.machine.external_bodies import round_scores
from node.machine.memo import remembered
from node.machine.pacing import local_deadline, local_pause_end
from node.machine.peer_score import score_of
from node.machine.state import State, own_body
from node.machine.status import PeerStatus, Phase, Presence, Status, VoteStatus
from node.machine.voting import is_voting
from protocols.delegation import FOR_EVER
from protocols.identifiers import Address, Seed
from protocols.ranking import Score

MAX_SHOWN = 256
"""Peers in a status; those with rollouts come first."""


def status(state: State) -> Status:
    """Return the one picture of the node that every surface shows."""
    body = own_body(state)
    latest = body.reward / body.groups if body and body.groups else (state.rewards[-1].reward if state.rewards else 0.0)
    return Status(
        address=state.me,
        phase=phase(state),
        round=state.round,
        stage=state.stage,
        deadline=local_deadline(state) if state.round >= 0 else 0.0,
        paused_until=local_pause_end(state),
        registered=state.me in state.peers,
        delegated_until=state.expiry - state.offset if 0 < state.expiry < FOR_EVER else 0.0,
        chain=state.chain,
        network=network(state),
        trainer=state.trainer,
        connected=max(0, state.connected),
        reward=latest,
        accuracy=state.curve[-1].accuracy if state.curve else 0.0,
        peers=_peers(state),
        votes=tuple(
            VoteStatus(round=vote.round, winners=vote.winners, phase=vote.phase, transactions=vote.transactions)
            for vote in state.votes
        ),
        curve=state.curve,
        rewards=state.rewards,
        totals=state.totals,
        refused=state.refusals,
        last_skip=state.last_skip,
        note=note(state),
    )


def phase(state: State) -> Phase:
    """Return what the node is doing, in one word."""
    if state.draining or state.stopping:
        return "draining"
    if state.round < 0:
        return "starting" if state.chain == "unknown" else "syncing"
    if not state.synced and state.chain != "absent":
        return "syncing"
    if state.doppelganger_watch is not None:
        return "doppelganger-protection"
    if state.task is not None and state.task.kind in ("generate", "train"):
        return "working"
    if state.work.phase == "train":
        return "publishing"
    return "voting" if is_voting(state) else "idle"


def network(state: State) -> Presence:
    """Return whether other peers can be reached."""
    if state.connected < 0:
        return "unknown"
    return "present" if state.connected else "absent"


def note(state: State) -> str:
    """Return what keeps the node from its full work, in one line; empty where nothing does."""
    since = state.peers.get(state.me)
    notes = (
        (
            state.doppelganger_watch is not None,
            "restored or copied: doppelganger protection waits a whole round before it takes part",
        ),
        (state.paused_until > 0, f"the organiser paused the swarm until {_time(state.paused_until)}; training goes on"),
        (state.ending == "over", "the owner's delegation is over: votes are refused; renew it (swarm login)"),
        (bool(state.register_error), f"registration was refused ({state.register_error}); it is tried again"),
        (state.overdue, "the chain is away past the deadline: the last known stage goes on, nothing new can begin"),
        (state.chain == "absent", "the chain is away: the current stage goes on"),
        (state.trainer == "absent", "the trainer is away: votes and stages go on without it"),
        (state.trainer == "unknown" and state.round >= 0, "the trainer is not up yet"),
        (state.connected == 0, "no peer is connected: training goes on alone"),
        (state.ending == "soon" and not state.renewal, "the owner's delegation ends soon; renew it (swarm login)"),
        (since is not None and 0 <= state.round < since, f"this node counts from round {since} on"),
    )
    return next((text for holds, text in notes if holds), "")


def window_seeds(state: State) -> dict[int, Seed]:
    """Return the seed of every round whose rollouts are accepted now."""
    oldest = state.round - state.parameters.rounds_kept
    return {number: seed for number, seed in state.seeds.items() if oldest <= number <= state.round}


def eligible(state: State) -> frozenset[Address]:
    """Return the peers that are registered and count in the current round."""
    return _eligible(state.peers, state.round)


@remembered
def _eligible(peers: dict[Address, int], number: int) -> frozenset[Address]:
    return frozenset(peer for peer, since in peers.items() if since <= number)


def _time(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"


def _peers(state: State) -> tuple[PeerStatus, ...]:
    scores = round_scores(state, state.round)
    counting = sorted(eligible(state), key=lambda peer: (peer not in scores, peer))[:MAX_SHOWN]
    shown = (scores.get(peer, Score(peer, 0, 0.0)) for peer in counting)
    return tuple(
        PeerStatus(
            address=score.peer, groups=score.groups, reward=score.mean, peer_score=round(score_of(state, score.peer), 2)
        )
        for score in shown
    )
