"""What the chain tells: stages, peers, transactions, and whether it can be reached at all."""

from __future__ import annotations

from msgspec.structs import replace

from node.machine import inputs as i
from node.machine.advancing import wait_for_turn
from node.machine.announcing import announce_messages
from node.machine.joining import join, registration_settled
from node.machine.pausing import wait_for_lapse
from node.machine.relaying import owned_by, wait_for_relay
from node.machine.stage_transition import Opening, open_stage
from node.machine.state import MAX_PEERS, Result, State, in_turn
from node.machine.transaction_keys import MessageKey, RegistrationKey
from node.machine.voting import vote_settled
from node.machine.work import pursue, wait_for_rollouts
from protocols.signed_messages import MessageKind, MessageTopic

RESUME = (wait_for_lapse, wait_for_turn, wait_for_relay, wait_for_rollouts, pursue)
"""What is done when the stage is known to be open still: the offset may have changed, so timers are set anew."""


def stage_opened(state: State, opened: i.StageOpened, at: float) -> Result:
    """Go to the stage; while the watcher is still catching up, only remember it: the newest one counts."""
    if opened.round < 0 or not 0 <= opened.stage < state.terms.stages:
        return state, ()
    opening = (opened.round, opened.stage, opened.seed, opened.deadline, opened.rewound)
    if state.chain != "present":
        return replace(state, pending=_newest(state.pending, opening)), ()
    first = not state.heard
    return _go_to(replace(state, heard=True), opening, at, first)


def chain_restored(state: State, restored: i.ChainRestored, at: float) -> Result:
    """The chain answers and the gap is filled: go to where the contract is.

    After a silence the watcher repeats the stage: until it did, nothing begins in one that may be long over. Where
    the chain was there all along, only the offset is new.
    """
    pending = state.pending
    heard = pending is not None or (state.heard and state.chain == "present")
    state = replace(
        state,
        chain="present",
        offset=restored.offset,
        overdue=False,
        advance_tries=0,
        resumed=at if state.chain == "absent" else state.resumed,
        pending=None,
        heard=heard,
    )
    if pending is not None:
        return _go_to(state, pending, at, resume=True)
    return in_turn(state, at, join, *RESUME) if heard else join(state, at)


def chain_lost(state: State, lost: i.ChainLost, at: float) -> Result:
    """Go on with the current stage; nothing new can begin without the chain."""
    return pursue(replace(state, chain="absent", gap=state.gap or "the chain was away"), at)


def peer_registered(state: State, registered: i.PeerRegistered, at: float) -> Result:
    """Note from which round on a peer counts, and whose it is."""
    peer, since = registered.peer, registered.since_round
    if peer in state.peers:
        state = owned_by(state, peer, registered.owner)
    if state.peers.get(peer) == since or (len(state.peers) >= MAX_PEERS and peer not in (*state.peers, state.me)):
        return state, ()
    state = owned_by(replace(state, peers={**state.peers, peer: since}), peer, registered.owner)
    if peer != state.me:
        return state, ()
    return pursue(replace(state, registering=False, register_tries=0, register_error=""), at)


def transaction_settled(state: State, settled: i.TransactionSettled, at: float) -> Result:
    """Note what became of a transaction, by its kind."""
    match settled.key:
        case RegistrationKey():
            return registration_settled(state, settled, at)
        case MessageKey(topic=MessageTopic(kind=MessageKind.REWARD) as topic):
            if (topic.round, topic.stage) == (state.round, state.stage):
                state = replace(state, work=replace(state.work, reported=True))
            return state, ()
        case MessageKey() as key:
            return in_turn(state, at, lambda s, t: vote_settled(s, key, settled, t), announce_messages, pursue)
        case _:
            return state, ()


def _go_to(state: State, opening: Opening, at: float, resume: bool) -> Result:
    """Go to a stage. Where it is the one that was known, `resume` takes its work up again after a silence."""
    before = (state.round, state.stage, state.seed)
    state, commands = in_turn(state, at, lambda s, t: open_stage(s, opening, t), join)
    if resume and (state.round, state.stage, state.seed) == before:
        state, more = in_turn(state, at, *RESUME)
        commands += more
    return state, commands


def _newest(known: Opening | None, opening: Opening) -> Opening:
    """Return the later of two stages; a reorg wins over what was known before it, and stays marked as one."""
    if known is None or opening[4]:
        return opening
    if known[:2] > opening[:2]:
        return known
    return (*opening[:4], known[4])
