"""Bodies that count for nothing: marked with their reason, counted by it, and held against who sent them.

Of two bodies that repeat each other one is a copy; which one is told by the order in which they were announced, where
that is clear. Where it isn't, nobody is accused: then the first that was heard counts, and the other is left aside.
"""

from __future__ import annotations

from msgspec.structs import replace

from node.machine import peer_score as standing
from node.machine.notices import BodyUncounted, PeerGraylisted
from node.machine.state import BodyRecord, Output, Result, State, with_body
from protocols.identifiers import Address, Digest
from protocols.reasons import counted_as

TWIN = "twin"
"""The reason that an arrived body has which repeats another one: it is neither trained on nor ranked."""
INCREDIBLE = "incredible"
"""The reason of a body that this node's model does not believe."""
COPY_MARGIN = 3.0
"""Seconds by which an announcement must come after another one to be clearly later: gossip takes up to a second a hop
where it is repaired by heartbeats, and few hops. Announcements that came by catching up have no order at all."""


def refuse(state: State, step: int, peer: Address, reason: str) -> State:
    """Return the state in which a peer's body counts for nothing, counted by its reason; nothing is held against it."""
    body = state.pools[step][peer]
    refused = BodyRecord(body.digest, body.size, "refused", used=body.used, reason=reason, heard=body.heard)
    return count_refused(with_body(state, step, peer, refused), reason)


def count_refused(state: State, reason: str) -> State:
    """Return the state in which one more body has counted for nothing, by its reason."""
    totals = replace(state.totals, bodies_refused=state.totals.bodies_refused + 1)
    return replace(_counted(state, reason), totals=totals)


def discount(state: State, step: int, peer: Address, reason: str, told: bool = False) -> Result:
    """Refuse a body and hold it against its peer. `told` says that the operator has it from the input already."""
    state, shunned = held_against(refuse(state, step, peer, reason), peer, reason)
    round_number, stage = divmod(step, state.terms.stages)
    return state, (() if told else (BodyUncounted(peer, round_number, stage, reason),)) + shunned


def held_against(state: State, peer: Address, reason: str) -> Result:
    """Hold a reason against a peer; say so where it is shunned from now on."""
    before = standing.is_shunned(state, peer)
    state = standing.hold_against(state, peer, reason)
    if before or not standing.is_shunned(state, peer):
        return state, ()
    return state, (PeerGraylisted(peer, round(standing.score_of(state, peer), 2), reason),)


def settle_copies(state: State, step: int, peer: Address, alike: tuple[Address, ...]) -> Result:
    """Decide what becomes of a body that has just arrived and of those that it repeats.

    The clearly later one of two is refused as a copy. Where the order is not clear the later heard is a twin; one that
    came by catching up is later than one that came in time, and of two such nothing is known. This node's own body is
    never either.
    """
    outputs: tuple[Output, ...] = ()
    pool = state.pools.get(step, {})
    for other in alike:
        mine, theirs = pool[peer], pool.get(other)
        if theirs is None or (mine.heard <= 0 and theirs.heard <= 0):
            continue
        late = peer if (mine.heard <= 0, mine.heard, peer) > (theirs.heard <= 0, theirs.heard, other) else other
        if late == state.me or pool[late].state != "arrived":
            continue
        if mine.heard > 0 and theirs.heard > 0 and abs(mine.heard - theirs.heard) > COPY_MARGIN:
            state, more = discount(state, step, late, "copy")
            outputs += more
        elif pool[late].reason != TWIN:
            state = _counted(with_body(state, step, late, replace(pool[late], reason=TWIN)), TWIN)
        pool = state.pools[step]
    return state, outputs


def disbelieve(state: State, digests: tuple[Digest, ...]) -> Result:
    """Discount the foreign bodies that this node's own model does not believe, whoever sent them."""
    found = [
        (step, peer)
        for step, pool in sorted(state.pools.items())
        for peer, body in pool.items()
        if peer != state.me and body.state == "arrived" and body.digest in digests
    ]
    outputs: tuple[Output, ...] = ()
    for step, peer in found:
        state, more = discount(state, step, peer, INCREDIBLE)
        outputs += more
    return state, outputs


def _counted(state: State, reason: str) -> State:
    label = counted_as(reason)
    return replace(state, refusals={**state.refusals, label: state.refusals.get(label, 0) + 1})
