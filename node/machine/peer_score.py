"""What this node thinks of its peers: credit for bodies that passed, blame for those that did not, forgotten in time.

A score is a number in [`LEAST`, `MOST`], 0 for a stranger. It is this node's own opinion, made of nothing but what it
checked itself: nobody can praise or slander others. Within a round the order of what happened changes a score only
where it meets a bound or where credit is lost.
"""

from __future__ import annotations

from msgspec.structs import replace

from node.machine.state import State
from protocols.identifiers import Address
from protocols.reasons import Blame, blame_of

MOST, LEAST = 10.0, -100.0
"""Credit is capped at ten good bodies: a long good record must not buy a single lie."""
CREDIT = 1.0
"""For a body that passed every check."""
COST: dict[Blame, float] = {"none": 0.0, "mild": 1.0, "rare": 12.0, "plain": 20.0, "grave": 60.0}
"""For one that did not, by blame. What the honest never do also takes all credit away at once."""
MILD_FLOOR = -20.0
"""Mild faults alone lead no lower, however many: a node behind a bad line keeps its place."""
SHUNNED_AT = -35.0
"""At and below it a peer is shunned: two plain faults in one round, four rare ones in a row, or an equivocation."""
KEPT = 0.95
"""Share of a score that is left after a round. Two plain faults are out for 3 rounds, an equivocation for 11."""
FORGOTTEN = 0.05
"""What is nearer to zero is not kept."""


def credited(score: float) -> float:
    """Return a score after a body that passed."""
    return min(MOST, score + CREDIT)


def blamed(score: float, blame: Blame) -> float:
    """Return a score after a body that did not pass."""
    if blame == "mild":
        return min(score, max(MILD_FLOOR, score - COST[blame]))
    if blame == "rare":
        return max(LEAST, score - COST[blame])
    if blame in ("plain", "grave"):
        return max(LEAST, min(score, 0.0) - COST[blame])
    return score


def decayed(score: float, rounds: int) -> float:
    """Return a score after so many rounds, nearer to zero."""
    return score * KEPT ** max(0, rounds)


def credit(state: State, peer: Address) -> State:
    """Return the state in which a peer's body has passed."""
    return _with_score(state, peer, credited(score_of(state, peer)))


def hold_against(state: State, peer: Address, reason: str) -> State:
    """Return the state in which a peer's body has not passed, for a reason of `protocols.reasons`."""
    return _with_score(state, peer, blamed(score_of(state, peer), blame_of(reason)))


def forgive(state: State, rounds: int) -> State:
    """Return the state some rounds later: scores fade, and those of peers that are gone are dropped."""
    faded = ((peer, decayed(score, rounds)) for peer, score in state.standing.items() if peer in state.peers)
    return replace(state, standing={peer: score for peer, score in faded if abs(score) > FORGOTTEN})


def score_of(state: State, peer: Address) -> float:
    """Return a peer's score, 0.0 for a stranger."""
    return state.standing.get(peer, 0.0)


def is_shunned(state: State, peer: Address) -> bool:
    """Tell whether a peer's bodies are neither fetched, nor trained on, nor voted for."""
    return score_of(state, peer) <= SHUNNED_AT


def has_credit(state: State, peer: Address) -> bool:
    """Tell whether a peer is no stranger: more of its bodies than not have passed lately."""
    return score_of(state, peer) > 0.0


def _with_score(state: State, peer: Address, score: float) -> State:
    """Return the state with a peer's score. Who is not registered has none, so that there are no more than peers."""
    if peer == state.me or peer not in state.peers or score == score_of(state, peer):
        return state
    return replace(state, standing={**state.standing, peer: score})
