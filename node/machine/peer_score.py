"""What this node thinks of its peers: one score each, raised by valid bodies, lowered by faults, decaying every round.

A score is a number in [`MIN_SCORE`, `MAX_SCORE`], 0 for an unknown peer. A node makes it from its own checks alone and
never sends it: no peer can praise or slander another. Within a round the order of events changes a score only at a
bound, or where a positive score is lost.

Source: GossipSub v1.1 (graylist threshold, decay) and the severities of the Ethereum consensus clients.
"""

from __future__ import annotations

from msgspec.structs import replace

from node.machine.state import State
from protocols.identifiers import Address
from protocols.reasons import Severity, severity_of

MAX_SCORE, MIN_SCORE = 10.0, -100.0
"""Ten valid bodies reach the highest score: a long good record must not pay for a single lie."""
VALID_BODY = 1.0
"""Added for a body that passed every check."""
PENALTIES: dict[Severity, float] = {
    "none": 0.0,
    "high_tolerance": 1.0,
    "mid_tolerance": 12.0,
    "low_tolerance": 20.0,
    "fatal": 60.0,
}
"""Subtracted for a fault. The last two, which honest software never commits, also take a positive score away first."""
HIGH_TOLERANCE_FLOOR = -20.0
"""Faults of high tolerance alone lead no lower, however many: a bad connection graylists nobody."""
GRAYLIST_THRESHOLD = -35.0
"""At and below it a peer is graylisted: two faults of low tolerance in one round, four of mid tolerance in a row, or an
equivocation."""
DECAY = 0.95
"""Factor on every score after a round. Two faults of low tolerance last 3 rounds, an equivocation 11."""
DECAY_TO_ZERO = 0.05
"""A score nearer to zero is dropped."""


def raised(score: float) -> float:
    """Return a score after a valid body."""
    return min(MAX_SCORE, score + VALID_BODY)


def penalised(score: float, severity: Severity) -> float:
    """Return a score after a fault."""
    match severity:
        case "none":
            return score
        case "high_tolerance":
            return min(score, max(HIGH_TOLERANCE_FLOOR, score - PENALTIES[severity]))
        case "mid_tolerance":
            return max(MIN_SCORE, score - PENALTIES[severity])
        case "low_tolerance" | "fatal":
            return max(MIN_SCORE, min(score, 0.0) - PENALTIES[severity])


def decayed(score: float, rounds: int) -> float:
    """Return a score after so many rounds, nearer to zero."""
    return score * DECAY ** max(0, rounds)


def raise_score(state: State, peer: Address) -> State:
    """Return the state after a valid body of a peer."""
    return _with_score(state, peer, raised(score_of(state, peer)))


def lower_score(state: State, peer: Address, reason: str) -> State:
    """Return the state after a fault of a peer; `reason` is a code of `protocols.reasons`."""
    return _with_score(state, peer, penalised(score_of(state, peer), severity_of(reason)))


def decay_scores(state: State, rounds: int) -> State:
    """Return the state some rounds later: scores decay; those of peers that are no longer registered are dropped."""
    scores = ((peer, decayed(score, rounds)) for peer, score in state.peer_scores.items() if peer in state.peers)
    return replace(state, peer_scores={peer: score for peer, score in scores if abs(score) > DECAY_TO_ZERO})


def score_of(state: State, peer: Address) -> float:
    """Return a peer's score, 0.0 for an unknown peer."""
    return state.peer_scores.get(peer, 0.0)


def is_graylisted(state: State, peer: Address) -> bool:
    """Return True if a peer's bodies are neither fetched, nor trained on, nor voted for."""
    return score_of(state, peer) <= GRAYLIST_THRESHOLD


def has_positive_score(state: State, peer: Address) -> bool:
    """Return True if lately more of a peer's bodies were valid than not."""
    return score_of(state, peer) > 0.0


def _with_score(state: State, peer: Address, score: float) -> State:
    """Return the state with a peer's score. Only registered peers have one, so there are no more scores than peers."""
    if peer == state.me or peer not in state.peers or score == score_of(state, peer):
        return state
    return replace(state, peer_scores={**state.peer_scores, peer: score})
