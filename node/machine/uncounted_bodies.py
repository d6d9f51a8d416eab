"""Bodies that count for nothing: marked with the reason, counted by it, held against their sender.

If two bodies repeat each other, one is a copy. The order of the announcements shows which, if it is clear. If not,
nobody is accused: the body received first counts, and the other is a duplicate that does not.
"""

from __future__ import annotations

from msgspec.structs import replace

from node.machine.notices import BodyUncounted, PeerGraylisted
from node.machine.peer_score import is_graylisted, lower_score, score_of
from node.machine.state import BodyRecord, Output, Result, State, with_body
from protocols.identifiers import Address, Digest
from protocols.reasons import counted_as

DUPLICATE = "duplicate"
"""The reason of an arrived body that repeats another one: it is neither trained on nor ranked."""
OFF_POLICY = "off-policy"
"""The reason of a body that this node's model does not believe."""
COPY_MARGIN = 3.0
"""Seconds between two announcements whose order is clear. Gossip takes up to a second per hop where heartbeats repair
it, and there are few hops. Announcements received by catch-up have no order at all."""


def refuse(state: State, step: int, peer: Address, reason: str) -> State:
    """Return the state in which a peer's body counts for nothing, counted by its reason; nothing is held against it."""
    body = state.bodies_by_step[step][peer]
    refused = BodyRecord(
        body.digest, body.size, "refused", used=body.used, reason=reason, announced_at=body.announced_at
    )
    return count_refused(with_body(state, step, peer, refused), reason)


def count_refused(state: State, reason: str) -> State:
    """Return the state in which one more body has counted for nothing, by its reason."""
    totals = replace(state.totals, bodies_refused=state.totals.bodies_refused + 1)
    return replace(_counted(state, reason), totals=totals)


def refuse_and_penalise(state: State, step: int, peer: Address, reason: str, is_logged: bool = False) -> Result:
    """Refuse a body and lower its peer's score. `is_logged`: the input itself has told the operator."""
    state, graylisted = penalise(refuse(state, step, peer, reason), peer, reason)
    round_number, stage = divmod(step, state.parameters.stages)
    return state, (() if is_logged else (BodyUncounted(peer, round_number, stage, reason),)) + graylisted


def penalise(state: State, peer: Address, reason: str) -> Result:
    """Lower a peer's score; say so if that graylists it."""
    before = is_graylisted(state, peer)
    state = lower_score(state, peer, reason)
    if before or not is_graylisted(state, peer):
        return state, ()
    return state, (PeerGraylisted(peer, round(score_of(state, peer), 2), reason),)


def settle_copies(state: State, step: int, peer: Address, alike: tuple[Address, ...]) -> Result:
    """Decide what becomes of a body that has just arrived and of those that it repeats.

    The clearly later one of two is refused as a copy. If the order is not clear, the one received later is a duplicate.
    A body announced by catch-up is later than one that was not; two such have no order. This node's own body is never
    refused.
    """
    outputs: tuple[Output, ...] = ()
    bodies = state.bodies_by_step.get(step, {})
    for other in alike:
        mine, theirs = bodies[peer], bodies.get(other)
        if theirs is None or (mine.announced_at <= 0 and theirs.announced_at <= 0):
            continue
        late = (
            peer
            if (mine.announced_at <= 0, mine.announced_at, peer)
            > (theirs.announced_at <= 0, theirs.announced_at, other)
            else other
        )
        if late == state.me or bodies[late].state != "arrived":
            continue
        if (
            mine.announced_at > 0
            and theirs.announced_at > 0
            and abs(mine.announced_at - theirs.announced_at) > COPY_MARGIN
        ):
            state, more = refuse_and_penalise(state, step, late, "copy")
            outputs += more
        elif bodies[late].reason != DUPLICATE:
            state = _counted(with_body(state, step, late, replace(bodies[late], reason=DUPLICATE)), DUPLICATE)
        bodies = state.bodies_by_step[step]
    return state, outputs


def refuse_off_policy(state: State, digests: tuple[Digest, ...]) -> Result:
    """Refuse the external bodies that this node's own model does not believe, whoever sent them."""
    found = [
        (step, peer)
        for step, bodies in sorted(state.bodies_by_step.items())
        for peer, body in bodies.items()
        if peer != state.me and body.state == "arrived" and body.digest in digests
    ]
    outputs: tuple[Output, ...] = ()
    for step, peer in found:
        state, more = refuse_and_penalise(state, step, peer, OFF_POLICY)
        outputs += more
    return state, outputs


def _counted(state: State, reason: str) -> State:
    label = counted_as(reason)
    return replace(state, refusals={**state.refusals, label: state.refusals.get(label, 0) + 1})
