"""Bodies of other peers: fetched once, kept with what they were worth, used for updates and for the ranking."""

from __future__ import annotations

from msgspec.structs import replace

from node.machine import inputs as i
from node.machine.commands import AnyCommand, FetchRollouts
from node.machine.peer_score import has_positive_score, is_graylisted, raise_score
from node.machine.places import place_for
from node.machine.relaying import with_announced_messages
from node.machine.state import MAX_BODIES, BodyRecord, Output, Result, State, current_step, is_eligible, with_body
from node.machine.uncounted_bodies import DUPLICATE, count_refused, penalise, refuse, refuse_and_penalise, settle_copies
from protocols.games import game_named
from protocols.games.quoting import drawn
from protocols.identifiers import Address, Digest
from protocols.ranking import Score
from protocols.schedule import step_number

MAX_EXTERNAL = 32
"""External bodies in one training."""
MAX_EXTERNAL_BYTES = 32 << 20
"""Bytes of external bodies in one training: they are sent to the trainer in one frame of at most 64 MiB."""


def body_announced(state: State, announcement: i.RolloutsAnnounced, at: float) -> Result:
    """Fetch a body that is new, in the window and from an eligible peer; note equivocations and attached messages.

    A peer without rollouts is not waited for, nor one that is graylisted. Where places are scarce they go by lot
    (`node.machine.places`): without one the announcement is ignored, and a better lot displaces a worse one.
    """
    step = _step_in_window(state, announcement.round, announcement.stage)
    if step is None or announcement.peer == state.me or not is_eligible(state, announcement.peer, announcement.round):
        return state, ()
    state = with_announced_messages(state, announcement, step)
    bodies = state.bodies_by_step.get(step, {})
    known = bodies.get(announcement.peer)
    if known is not None:
        return (state, ()) if known.digest == announcement.body else _equivocated(state, step, announcement, known)
    place = place_for(state, announcement, bodies)
    if not place.free:
        return count_refused(state, "crowded"), ()
    if place.displaced:
        state = _without(state, step, place.displaced)
    if announcement.size == 0:
        return with_body(
            state, step, announcement.peer, BodyRecord(announcement.body, 0, "refused", reason="nothing")
        ), ()
    state = with_body(
        state,
        step,
        announcement.peer,
        BodyRecord(announcement.body, announcement.size, "fetching", announced_at=0.0 if announcement.late else at),
    )
    if is_graylisted(state, announcement.peer):
        return refuse(state, step, announcement.peer, "graylisted"), ()
    return state, (_fetch(state, step, announcement.peer),)


def _without(state: State, step: int, peers: tuple[Address, ...]) -> State:
    """Return the state in which these peers have lost their places to others with better lots."""
    for _ in peers:
        state = count_refused(state, "crowded")
    kept = {peer: body for peer, body in state.bodies_by_step.get(step, {}).items() if peer not in peers}
    return replace(state, bodies_by_step={**state.bodies_by_step, step: kept})


def body_arrived(state: State, arrived: i.RolloutsArrived) -> Result:
    """Keep what a checked body is worth, and raise its peer's score, unless it is a copy or in doubt."""
    found = _awaited(state, arrived)
    if found is None:
        return state, ()
    step, body = found
    body = BodyRecord(body.digest, body.size, "arrived", arrived.groups, arrived.reward, announced_at=body.announced_at)
    totals = replace(state.totals, bodies_accepted=state.totals.bodies_accepted + 1)
    state = replace(with_body(state, step, arrived.peer, body), totals=totals)
    if arrived.doubt:
        state, commands = penalise(state, arrived.peer, arrived.doubt)
    else:
        state, commands = raise_score(state, arrived.peer), ()
    state, more = settle_copies(state, step, arrived.peer, arrived.alike)
    return state, (*commands, *more)


def body_refused(state: State, refused: i.RolloutsRefused) -> Result:
    """Lower a peer's score for a body that is unavailable or invalid.

    A body that quotes what is not here waits for it. It is asked for again, once, if that has arrived meanwhile.
    """
    found = _awaited(state, refused)
    if found is None:
        return state, ()
    step, body = found
    if not refused.missing:
        return refuse_and_penalise(state, step, refused.peer, refused.reason, is_logged=True)
    waiting = replace(body, state="waiting", missing=refused.missing, reason=refused.reason)
    state = with_body(state, step, refused.peer, waiting)
    come = any(_has_arrived(state, step, digest) for digest in refused.missing)
    return _ask_again(state, step, refused.peer) if come and body.missing != refused.missing else (state, ())


def recheck_quoting(state: State, arrived: i.RolloutsArrived) -> Result:
    """Fetch again the bodies of later stages that could not be checked without this one."""
    first = step_number(arrived.round, arrived.stage, state.parameters.stages)
    last = step_number(arrived.round + 1, 0, state.parameters.stages)
    commands: tuple[Output, ...] = ()
    for step in range(first + 1, last):
        for peer, body in state.bodies_by_step.get(step, {}).items():
            if body.state == "waiting" and arrived.body in body.missing:
                state, more = _ask_again(state, step, peer)
                commands += more
    return state, commands


def refetch_bodies(state: State) -> tuple[AnyCommand, ...]:
    """Fetch again every body that has neither arrived nor been refused."""
    return tuple(
        _fetch(state, step, peer)
        for step, bodies in sorted(state.bodies_by_step.items())
        if _step_in_window(state, *divmod(step, state.parameters.stages)) is not None
        for peer, body in bodies.items()
        if body.state in ("fetching", "waiting")
    )


def all_bodies_settled(state: State) -> bool:
    """Return True if there is nothing to wait for: every eligible peer's body has arrived or was refused."""
    bodies = state.bodies_by_step.get(current_step(state), {})
    if any(body.state == "fetching" for body in bodies.values()):
        return False
    if len(bodies) >= MAX_BODIES:
        return True
    return all(peer in bodies for peer, since in state.peers.items() if since <= state.round)


def may_wait_for_quotes(state: State) -> bool:
    """Return True if the current stage quotes earlier ones and may still wait for them."""
    return bool(_quoted_steps(state)) and not state.work.quote_now


def waits_for_quotes(state: State) -> bool:
    """Return True if the current stage should wait for rollouts of earlier ones that it quotes.

    It waits for announced bodies, and for announcements of peers that have announced anything since the last round
    began. If no peer announced anything in the last round, it waits for all that are eligible.
    """
    if not may_wait_for_quotes(state):
        return False
    begin, stages = step_number(state.round, 0, state.parameters.stages), state.parameters.stages
    last = {peer for step in range(begin - stages, begin) for peer in state.bodies_by_step.get(step, {})}
    now = {peer for step in range(begin, current_step(state)) for peer in state.bodies_by_step.get(step, {})}
    awaited = (last | now if last else set(state.peers)) - {state.me}
    for step in _quoted_steps(state):
        bodies = state.bodies_by_step.get(step, {})
        if any(body.state == "fetching" for body in bodies.values()):
            return True
        if any(peer not in bodies and is_eligible(state, peer, state.round) for peer in awaited):
            return True
    return False


def bodies_to_quote(state: State) -> tuple[Digest, ...] | None:
    """Return the bodies that the current stage quotes, drawn by the round's seed from those that have arrived, this
    node's own among them. None if no body of one of the quoted stages has arrived."""
    chosen: tuple[Digest, ...] = ()
    for step in _quoted_steps(state):
        here = [body.digest for body in state.bodies_by_step.get(step, {}).values() if body.state == "arrived"]
        if not here:
            return None
        chosen += drawn(state.seed, step % state.parameters.stages, here, state.parameters.quoted)
    return chosen


def unused_bodies(state: State) -> tuple[Digest, ...]:
    """Return the external bodies for the next training: this stage's first, then unused ones of earlier stages.

    Within a stage peers with a positive score come first. Apart from that the order is that of the digests, so that no
    peer is preferred if there are too many.
    """
    if not state.parameters.external:
        return ()
    chosen: list[Digest] = []
    size = 0
    for step in sorted((step for step in state.bodies_by_step if step <= current_step(state)), reverse=True):
        for _, digest, length in sorted(_fresh(state, step)):
            if len(chosen) < MAX_EXTERNAL and size + length <= MAX_EXTERNAL_BYTES:
                chosen.append(digest)
                size += length
    return tuple(chosen)


def mark_used(state: State, digests: tuple[Digest, ...]) -> State:
    """Return the state in which these external bodies are not offered to a later training."""
    taken = set(digests)
    if not taken:
        return state
    bodies_by_step = {
        step: {
            peer: replace(body, used=True) if peer != state.me and body.digest in taken else body
            for peer, body in bodies.items()
        }
        for step, bodies in state.bodies_by_step.items()
    }
    return replace(state, bodies_by_step=bodies_by_step)


def round_scores(state: State, round_number: int) -> dict[str, Score]:
    """Return what was measured of each peer in a round, this node included, over all its stages."""
    first = step_number(round_number, 0, state.parameters.stages)
    by_stage = [state.bodies_by_step.get(step, {}) for step in range(first, first + state.parameters.stages)]
    nothing = BodyRecord(b"", 0, "refused")
    score = game_named(state.parameters.game).score
    return {
        peer: score(peer, [_measured(bodies.get(peer, nothing)) for bodies in by_stage])
        for peer in dict.fromkeys(
            peer for bodies in by_stage for peer, body in bodies.items() if body.state == "arrived"
        )
    }


def _measured(body: BodyRecord) -> tuple[int, float]:
    return (body.groups, body.reward) if body.state == "arrived" and body.reason != DUPLICATE else (0, 0.0)


def _quoted_steps(state: State) -> list[int]:
    """Return the steps of this round that the current stage quotes."""
    quotes = state.parameters.quotes[state.stage] if 0 <= state.stage < len(state.parameters.quotes) else ()
    return [step_number(state.round, stage, state.parameters.stages) for stage in quotes]


def _has_arrived(state: State, before: int, digest: Digest) -> bool:
    """Return True if a body of an earlier stage of the same round has arrived."""
    first = before - before % state.parameters.stages
    by_stage = (state.bodies_by_step.get(step, {}) for step in range(first, before))
    return any(body.digest == digest and body.state == "arrived" for bodies in by_stage for body in bodies.values())


def _ask_again(state: State, step: int, peer: str) -> Result:
    state = with_body(state, step, peer, replace(state.bodies_by_step[step][peer], state="fetching"))
    return state, (_fetch(state, step, peer),)


def _fresh(state: State, step: int) -> list[tuple[bool, Digest, int]]:
    """Return the external bodies of a stage to train on, none twice: without a positive score, digest, size."""
    bodies = state.bodies_by_step[step]
    own = bodies.get(state.me)
    found = {
        body.digest: (not has_positive_score(state, peer), body.digest, body.size)
        for peer, body in bodies.items()
        if peer != state.me and body.state == "arrived" and not body.used and body.reason != DUPLICATE
        if not is_graylisted(state, peer) and (own is None or own.digest != body.digest)
    }
    return list(found.values())


def _step_in_window(state: State, round_number: int, stage: int) -> int | None:
    """Return the step of a stage whose rollouts are accepted now: not of the future, not older than is kept."""
    if not 0 <= stage < state.parameters.stages or round_number not in state.seeds:
        return None
    if round_number < state.round - state.parameters.rounds_kept:
        return None
    step = step_number(round_number, stage, state.parameters.stages)
    return step if step <= current_step(state) else None


def _awaited(state: State, checked: i.RolloutsArrived | i.RolloutsRefused) -> tuple[int, BodyRecord] | None:
    step = _step_in_window(state, checked.round, checked.stage)
    body = None if step is None else state.bodies_by_step.get(step, {}).get(checked.peer)
    if step is None or body is None or body.state not in ("fetching", "waiting") or body.digest != checked.body:
        return None
    return step, body


def _equivocated(state: State, step: int, announcement: i.RolloutsAnnounced, known: BodyRecord) -> Result:
    """Refuse the body of a peer that announced two for one stage."""
    if known.state == "refused":
        return state, ()
    return refuse_and_penalise(state, step, announcement.peer, "equivocation")


def _fetch(state: State, step: int, peer: str) -> FetchRollouts:
    round_number, stage = divmod(step, state.parameters.stages)
    body = state.bodies_by_step[step][peer]
    return FetchRollouts(peer, round_number, stage, state.seeds[round_number], body.digest, body.size)
