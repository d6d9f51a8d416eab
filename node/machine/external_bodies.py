"""Other peers' rollouts: asked for once, kept with what they were worth, used for updates and for the ranking."""

from __future__ import annotations

from msgspec.structs import replace

from node.machine import inputs as i
from node.machine.commands import AnyCommand, FetchRollouts
from node.machine.peer_score import credit, has_credit, is_shunned
from node.machine.relaying import with_announced_messages
from node.machine.state import MAX_BODIES, BodyRecord, Output, Result, State, counts, current_step, with_body
from node.machine.uncounted_bodies import TWIN, count_refused, discount, held_against, refuse, settle_copies
from protocols.games import game_named
from protocols.games.quoting import drawn
from protocols.identifiers import Address, Digest
from protocols.ranking import Score
from protocols.schedule import step_number

MAX_EXTERNAL = 32
"""Foreign bodies in one training."""
MAX_STRANGERS, MAX_STRANGE_BYTES = 128, 128 << 20
"""Places and bytes in a stage that peers without credit have together, whatever they announce: new names cost nothing,
so that their number must not keep those out who have proven good."""
MAX_EXTERNAL_BYTES = 32 << 20
"""Bytes of foreign bodies in one training: they travel to the trainer in one frame of at most 64 MiB."""


def body_announced(state: State, said: i.RolloutsAnnounced, at: float) -> Result:
    """Ask for a body that is new, in the window and from a peer that counts; note an equivocation, and what it carries.

    Who made no rollouts is not waited for, nor who is shunned; who finds no place counts as not heard.
    """
    step = _step_in_window(state, said.round, said.stage)
    if step is None or said.peer == state.me or not counts(state, said.peer, said.round):
        return state, ()
    state = with_announced_messages(state, said, step)
    pool = state.pools.get(step, {})
    known = pool.get(said.peer)
    if known is not None:
        return (state, ()) if known.digest == said.body else _equivocated(state, step, said, known)
    if _is_crowded(state, said, pool):
        return count_refused(state, "crowded"), ()
    if said.size == 0:
        return with_body(state, step, said.peer, BodyRecord(said.body, 0, "refused", reason="nothing")), ()
    state = with_body(
        state, step, said.peer, BodyRecord(said.body, said.size, "fetching", heard=0.0 if said.late else at)
    )
    if is_shunned(state, said.peer):
        return refuse(state, step, said.peer, "shunned"), ()
    return state, (_fetch(state, step, said.peer),)


def _is_crowded(state: State, said: i.RolloutsAnnounced, pool: dict[Address, BodyRecord]) -> bool:
    """Tell whether a stage has no place for one more announcement, or none for a stranger's."""
    if len(pool) >= MAX_BODIES:
        return True
    if has_credit(state, said.peer):
        return False
    strange = [body for peer, body in pool.items() if peer != state.me and not has_credit(state, peer)]
    asked_for = sum(body.size for body in strange if body.reason != "shunned")
    return len(strange) >= MAX_STRANGERS or asked_for + said.size > MAX_STRANGE_BYTES


def body_arrived(state: State, arrived: i.RolloutsArrived) -> Result:
    """Keep what a checked body is worth, and credit its peer, unless it is a copy or in doubt."""
    found = _awaited(state, arrived)
    if found is None:
        return state, ()
    step, body = found
    body = BodyRecord(body.digest, body.size, "arrived", arrived.groups, arrived.reward, heard=body.heard)
    totals = replace(state.totals, bodies_accepted=state.totals.bodies_accepted + 1)
    state = replace(with_body(state, step, arrived.peer, body), totals=totals)
    if arrived.doubt:
        state, commands = held_against(state, arrived.peer, arrived.doubt)
    else:
        state, commands = credit(state, arrived.peer), ()
    state, more = settle_copies(state, step, arrived.peer, arrived.alike)
    return state, (*commands, *more)


def body_refused(state: State, refused: i.RolloutsRefused) -> Result:
    """Give a peer no credit for a body that can't be had or does not pass.

    One that quotes what is not here waits for it: what has come meanwhile is a reason to ask again, once.
    """
    found = _awaited(state, refused)
    if found is None:
        return state, ()
    step, body = found
    if not refused.missing:
        return discount(state, step, refused.peer, refused.reason, told=True)
    waiting = replace(body, state="waiting", missing=refused.missing, reason=refused.reason)
    state = with_body(state, step, refused.peer, waiting)
    come = any(_has_arrived(state, step, digest) for digest in refused.missing)
    return _ask_again(state, step, refused.peer) if come and body.missing != refused.missing else (state, ())


def quoting_again(state: State, arrived: i.RolloutsArrived) -> Result:
    """Ask again for the bodies of later stages that could not be checked without this one."""
    first = step_number(arrived.round, arrived.stage, state.terms.stages)
    last = step_number(arrived.round + 1, 0, state.terms.stages)
    commands: tuple[Output, ...] = ()
    for step in range(first + 1, last):
        for peer, body in state.pools.get(step, {}).items():
            if body.state == "waiting" and arrived.body in body.missing:
                state, more = _ask_again(state, step, peer)
                commands += more
    return state, commands


def fetch_again(state: State) -> tuple[AnyCommand, ...]:
    """Ask again for every body that has neither arrived nor been refused."""
    return tuple(
        _fetch(state, step, peer)
        for step, pool in sorted(state.pools.items())
        if _step_in_window(state, *divmod(step, state.terms.stages)) is not None
        for peer, body in pool.items()
        if body.state in ("fetching", "waiting")
    )


def everybody_is_in(state: State) -> bool:
    """Tell whether waiting longer can bring nothing: each peer that counts has arrived or was refused."""
    pool = state.pools.get(current_step(state), {})
    if any(body.state == "fetching" for body in pool.values()):
        return False
    if len(pool) >= MAX_BODIES:
        return True
    return all(peer in pool for peer, since in state.peers.items() if since <= state.round)


def may_wait(state: State) -> bool:
    """Tell whether the current stage quotes earlier ones and has not waited for them long enough."""
    return bool(_quoted_steps(state)) and not state.work.quote


def quotes_wait(state: State) -> bool:
    """Tell whether the current stage should wait for rollouts of earlier ones that it quotes.

    It waits for the bodies that are announced, and for the announcements of those who have played since the last round
    began; where nobody is known to have played in the last round, of all who count.
    """
    if not may_wait(state):
        return False
    begin, stages = step_number(state.round, 0, state.terms.stages), state.terms.stages
    last = {peer for step in range(begin - stages, begin) for peer in state.pools.get(step, {})}
    now = {peer for step in range(begin, current_step(state)) for peer in state.pools.get(step, {})}
    awaited = (last | now if last else set(state.peers)) - {state.me}
    for step in _quoted_steps(state):
        pool = state.pools.get(step, {})
        if any(body.state == "fetching" for body in pool.values()):
            return True
        if any(peer not in pool and counts(state, peer, state.round) for peer in awaited):
            return True
    return False


def to_quote(state: State) -> tuple[Digest, ...] | None:
    """Return the bodies that the current stage quotes, drawn by the round's seed from what has arrived, this node's own
    among them; None where one of the stages that it quotes has brought nothing."""
    chosen: tuple[Digest, ...] = ()
    for step in _quoted_steps(state):
        here = [body.digest for body in state.pools.get(step, {}).values() if body.state == "arrived"]
        if not here:
            return None
        chosen += drawn(state.seed, step % state.terms.stages, here, state.terms.quoted)
    return chosen


def unused_bodies(state: State) -> tuple[Digest, ...]:
    """Return the foreign bodies for the next training: this stage's first, then what earlier ones left over.

    Within a stage peers with credit come before strangers; apart from that the order is that of the digests, so that no
    peer is preferred where there are too many.
    """
    if not state.terms.external:
        return ()
    chosen: list[Digest] = []
    size = 0
    for step in sorted((step for step in state.pools if step <= current_step(state)), reverse=True):
        for _, digest, length in sorted(_fresh(state, step)):
            if len(chosen) < MAX_EXTERNAL and size + length <= MAX_EXTERNAL_BYTES:
                chosen.append(digest)
                size += length
    return tuple(chosen)


def mark_used(state: State, digests: tuple[Digest, ...]) -> State:
    """Return the state in which these foreign bodies are not offered to a later training."""
    taken = set(digests)
    if not taken:
        return state
    pools = {
        step: {
            peer: replace(body, used=True) if peer != state.me and body.digest in taken else body
            for peer, body in pool.items()
        }
        for step, pool in state.pools.items()
    }
    return replace(state, pools=pools)


def round_scores(state: State, round_number: int) -> dict[str, Score]:
    """Return what was measured of each peer in a round, this node included, over all its stages."""
    first = step_number(round_number, 0, state.terms.stages)
    pools = [state.pools.get(step, {}) for step in range(first, first + state.terms.stages)]
    nothing = BodyRecord(b"", 0, "refused")
    score = game_named(state.terms.game).score
    return {
        peer: score(peer, [_measured(pool.get(peer, nothing)) for pool in pools])
        for peer in dict.fromkeys(peer for pool in pools for peer, body in pool.items() if body.state == "arrived")
    }


def _measured(body: BodyRecord) -> tuple[int, float]:
    return (body.groups, body.reward) if body.state == "arrived" and body.reason != TWIN else (0, 0.0)


def _quoted_steps(state: State) -> list[int]:
    """Return the steps of this round that the current stage quotes."""
    quotes = state.terms.quotes[state.stage] if 0 <= state.stage < len(state.terms.quotes) else ()
    return [step_number(state.round, stage, state.terms.stages) for stage in quotes]


def _has_arrived(state: State, before: int, digest: Digest) -> bool:
    """Tell whether a body of an earlier stage of the same round has arrived."""
    first = before - before % state.terms.stages
    pools = (state.pools.get(step, {}) for step in range(first, before))
    return any(body.digest == digest and body.state == "arrived" for pool in pools for body in pool.values())


def _ask_again(state: State, step: int, peer: str) -> Result:
    state = with_body(state, step, peer, replace(state.pools[step][peer], state="fetching"))
    return state, (_fetch(state, step, peer),)


def _fresh(state: State, step: int) -> list[tuple[bool, Digest, int]]:
    """Return the foreign bodies of a stage to train on, none twice: whether a stranger's, digest, size."""
    pool = state.pools[step]
    own = pool.get(state.me)
    found = {
        body.digest: (not has_credit(state, peer), body.digest, body.size)
        for peer, body in pool.items()
        if peer != state.me and body.state == "arrived" and not body.used and body.reason != TWIN
        if not is_shunned(state, peer) and (own is None or own.digest != body.digest)
    }
    return list(found.values())


def _step_in_window(state: State, round_number: int, stage: int) -> int | None:
    """Return the step of a stage whose rollouts are accepted now: not of the future, not older than is kept."""
    if not 0 <= stage < state.terms.stages or round_number not in state.seeds:
        return None
    if round_number < state.round - state.terms.rounds_kept:
        return None
    step = step_number(round_number, stage, state.terms.stages)
    return step if step <= current_step(state) else None


def _awaited(state: State, said: i.RolloutsArrived | i.RolloutsRefused) -> tuple[int, BodyRecord] | None:
    step = _step_in_window(state, said.round, said.stage)
    body = None if step is None else state.pools.get(step, {}).get(said.peer)
    if step is None or body is None or body.state not in ("fetching", "waiting") or body.digest != said.body:
        return None
    return step, body


def _equivocated(state: State, step: int, said: i.RolloutsAnnounced, known: BodyRecord) -> Result:
    """Give no credit to a peer that announced two bodies for one stage."""
    if known.state == "refused":
        return state, ()
    return discount(state, step, said.peer, "equivocation")


def _fetch(state: State, step: int, peer: str) -> FetchRollouts:
    round_number, stage = divmod(step, state.terms.stages)
    body = state.pools[step][peer]
    return FetchRollouts(peer, round_number, stage, state.seeds[round_number], body.digest, body.size)
