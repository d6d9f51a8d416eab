"""Inputs of the chain: stages, peers, transactions, and whether it can be reached."""

from __future__ import annotations

from msgspec.structs import replace

from node.machine import inputs as i
from node.machine.advancing import set_advance_timer
from node.machine.announcing import announce_messages_only
from node.machine.joining import registration_settled, request_registration
from node.machine.pausing import set_pause_timer
from node.machine.relaying import set_relay_timer, with_owner
from node.machine.stage_transition import open_stage
from node.machine.state import MAX_PEERS, ContractStage, Result, State, apply_transitions
from node.machine.transaction_keys import MessageKey, RegistrationKey
from node.machine.voting import vote_settled
from node.machine.work import schedule_next_task, set_rollouts_timer
from protocols.signed_messages import MessageKind, MessageTopic

RESUME = (set_pause_timer, set_advance_timer, set_relay_timer, set_rollouts_timer, schedule_next_task)
"""Applied when the stage is known to be open still. The offset may have changed, so timers are set again."""


def stage_opened(state: State, opened: i.StageOpened, at: float) -> Result:
    """Go to the stage; while the watcher is catching up, only remember the newest one."""
    if opened.round < 0 or not 0 <= opened.stage < state.parameters.stages:
        return state, ()
    contract = ContractStage(opened.round, opened.stage, opened.seed, opened.deadline, opened.rewound)
    if state.chain != "present":
        return replace(state, pending=_newest(state.pending, contract)), ()
    first = not state.synced
    return _go_to(replace(state, synced=True), contract, at, first)


def chain_restored(state: State, restored: i.ChainRestored, at: float) -> Result:
    """The chain answers and the gap is filled: go to where the contract is.

    After an outage the watcher reports the stage again. Until then nothing begins: the stage may be long over. If the
    chain was never away, only the offset is new.
    """
    pending = state.pending
    synced = pending is not None or (state.synced and state.chain == "present")
    state = replace(
        state,
        chain="present",
        offset=restored.offset,
        overdue=False,
        advance_tries=0,
        resumed=at if state.chain == "absent" else state.resumed,
        pending=None,
        synced=synced,
    )
    if pending is not None:
        return _go_to(state, pending, at, resume=True)
    return apply_transitions(state, at, request_registration, *RESUME) if synced else request_registration(state, at)


def chain_lost(state: State, lost: i.ChainLost, at: float) -> Result:
    """Go on with the current stage; nothing new can begin without the chain."""
    return schedule_next_task(replace(state, chain="absent", gap_reason=state.gap_reason or "the chain was away"), at)


def peer_registered(state: State, registered: i.PeerRegistered, at: float) -> Result:
    """Note from which round on a peer counts, and its owner."""
    peer, since = registered.peer, registered.since_round
    if peer in state.peers:
        state = with_owner(state, peer, registered.owner)
    if state.peers.get(peer) == since or (len(state.peers) >= MAX_PEERS and peer not in (*state.peers, state.me)):
        return state, ()
    state = with_owner(replace(state, peers={**state.peers, peer: since}), peer, registered.owner)
    if peer != state.me:
        return state, ()
    return schedule_next_task(replace(state, registering=False, register_tries=0, register_error=""), at)


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
            return apply_transitions(
                state, at, lambda s, t: vote_settled(s, key, settled, t), announce_messages_only, schedule_next_task
            )
        case _:
            return state, ()


def _go_to(state: State, opened: ContractStage, at: float, resume: bool) -> Result:
    """Go to a stage. `resume`: if it is the stage that was known, continue its work after an outage."""
    before = (state.round, state.stage, state.seed)
    state, commands = apply_transitions(state, at, lambda s, t: open_stage(s, opened, t), request_registration)
    if resume and (state.round, state.stage, state.seed) == before:
        state, more = apply_transitions(state, at, *RESUME)
        commands += more
    return state, commands


def _newest(known: ContractStage | None, opened: ContractStage) -> ContractStage:
    """Return the later of two stages. A reorg replaces what was known before it, and stays marked as one."""
    if known is None or opened.rewound:
        return opened
    if known.place > opened.place:
        return known
    return replace(opened, rewound=known.rewound)
