"""Relaying: submitting signed messages of nodes without gas, in turns, one batch of each kind per turn.

A node that can pay says so in its announcements, so that all nodes know the same relayers and turns. Messages were only
decoded: the chain service checks each of them, and leaves out what is on chain.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from msgspec.structs import replace

from node.machine import inputs as i
from node.machine.commands import RelayMessages, SetTimer
from node.machine.delegation import renewals
from node.machine.pacing import local_time_at
from node.machine.state import Result, State, current_step, is_eligible
from protocols.carried import (
    Carried,
    CarriedCommitment,
    CarriedDelegation,
    CarriedReveal,
    CarriedRevocation,
    CarriedReward,
    CarriedVote,
    Load,
    kind_of,
)
from protocols.identifiers import Address, Seed
from protocols.schedule import RELAY_END, RELAY_START, commit_step, relay_turns, reveal_step, turn_order

SLACK = 0.05
"""Seconds by which a timer may fire early and still count."""
MAX_POOLED_PEERS = 1024
"""Peers whose messages of a stage are kept in the pool."""
MAX_INTRODUCED = 64
"""New nodes whose delegations are kept; the oldest are dropped first, since they are shown again."""
MAX_BATCH = 100
"""Messages in one command."""
OWNER_QUOTA = 8
"""Messages in one command from announcements of one owner's nodes."""
MAX_NEWCOMERS = 4
"""Registrations in one command, drawn by the seed. Owner keys are free, so a quota per owner would not bound them,
and a registration costs three times what a vote does: `MAX_INTRODUCED` of them would use a day's gas in four turns."""
STEPS_REMEMBERED = 2
"""Stages for which a peer still counts as a relayer after it announced that it is one."""


# --- who relays -----------------------------------------------------------------------------------------------------


def funds_changed(state: State, changed: i.FundsChanged, at: float) -> Result:
    """Relay from now on, or stop relaying."""
    state, commands = set_relay_timer(replace(state, relays=changed.relays), at)
    return state, (*commands, *renewals(state))


def may_relay(state: State) -> bool:
    """Return True if this node relays in the current stage."""
    return state.relays and not (state.draining or state.stopping) and is_eligible(state, state.me, state.round)


def sent_after(state: State) -> float:
    """Return the local time before which this node leaves its own messages of this stage to the relayers.

    0.0 if there is no relayer, or if this node will not be there to see whether they were submitted.
    """
    if state.draining or not (may_relay(state) or state.relayers):
        return 0.0
    return local_time_at(state, RELAY_END)


def reset_message_pool(state: State) -> State:
    """Return the state without messages of an earlier stage, and without relayers that fell silent."""
    oldest = current_step(state) - STEPS_REMEMBERED
    relayers = {peer: step for peer, step in state.relayers.items() if step >= oldest}
    return replace(state, relayers=relayers, message_pool={}, relay_turn=0)


# --- the message pool ----------------------------------------------------------------------------------------------


def with_announced_messages(state: State, announcement: i.RolloutsAnnounced, step: int) -> State:
    """Return the state with a peer's relaying and its messages; those that the contract does not take now are left
    out."""
    if announcement.relays and state.relayers.get(announcement.peer, -1) < step:
        state = replace(state, relayers={**state.relayers, announcement.peer: step})
    if (
        step != current_step(state)
        or announcement.peer in state.message_pool
        or len(state.message_pool) >= MAX_POOLED_PEERS
    ):
        return state
    found: dict[object, Carried] = {}
    for message in announcement.attached:
        if is_timely(state, message):
            found.setdefault(message if _is_unbound(message) else kind_of(message), message)
    return (
        replace(state, message_pool={**state.message_pool, announcement.peer: tuple(found.values())})
        if found
        else state
    )


def is_timely(state: State, message: Carried) -> bool:
    """Return True if the contract takes such a message in the current stage."""
    step, stages, sealed = current_step(state), state.parameters.stages, state.parameters.sealed
    match message:
        case CarriedDelegation() | CarriedRevocation():
            return True
        case CarriedReward():
            return (message.round, message.stage) == (state.round, state.stage)
        case CarriedReveal():
            return sealed and message.round in state.seeds and step == reveal_step(message.round, stages)
        case CarriedCommitment() | CarriedVote():
            due = message.round in state.seeds and step == commit_step(message.round, stages)
            return due and sealed == isinstance(message, CarriedCommitment)


def node_introduced(state: State, introduced: i.NodeIntroduced, at: float) -> Result:
    """Keep a new node's delegation for the next turn."""
    node = introduced.node
    if node == state.me or node in state.peers or introduced.message.node != node:
        return state, ()
    others = [(other, message) for other, message in state.introduced.items() if other != node]
    return replace(state, introduced=dict([*others, (node, introduced.message)][-MAX_INTRODUCED:])), ()


def with_owner(state: State, peer: Address, owner: Address) -> State:
    """Return the state with a peer's owner, and without the peer among the new nodes."""
    if owner and state.owners.get(peer) != owner:
        state = replace(state, owners={**state.owners, peer: owner})
    if peer in state.introduced:
        rest = {other: message for other, message in state.introduced.items() if other != peer}
        state = replace(state, introduced=rest)
    return state


# --- turns ----------------------------------------------------------------------------------------------------------


def set_relay_timer(state: State, at: float) -> Result:
    """Set the timer for this node's next relay turn in the current stage."""
    if not may_relay(state) or state.relay_turn >= len(_turns(state)):
        return state, ()
    share = RELAY_START if state.relay_turn == 0 else _turns(state)[state.relay_turn]
    return state, (SetTimer("relay", local_time_at(state, share)),)


def relay_timer(state: State, at: float) -> Result:
    """Submit what is in the pool if it is this node's turn; of missed turns only the last one is taken."""
    if not may_relay(state):
        return state, ()
    if state.chain != "present":
        return state, ()  # the turn is taken when the chain is back
    turns = _turns(state)
    due = [turn for turn in range(state.relay_turn, len(turns)) if local_time_at(state, turns[turn]) <= at + SLACK]
    commands: tuple[RelayMessages, ...] = ()
    if due and state.synced:
        commands = tuple(_batches(state, due[-1], turns[due[-1]]))
        state = replace(state, introduced={})
    state = replace(state, relay_turn=due[-1] + 1 if due else state.relay_turn)
    if state.relay_turn >= len(turns):
        return state, commands
    return state, (*commands, SetTimer("relay", local_time_at(state, turns[state.relay_turn])))


def _turns(state: State) -> tuple[float, ...]:
    return relay_turns(state.me, (state.me, *state.relayers), state.seed, state.round, state.stage)


def _batches(state: State, turn: int, share: float) -> Iterator[RelayMessages]:
    """Yield a command for each kind of message, in the order of the kinds' names.

    If there are more messages than a batch holds, each turn begins at another place among them: at the same share of
    the messages as the turn's share of the turns. So all are reached, whichever nodes have the turns.
    """
    kinds: dict[str, list[Load]] = {}
    for load in _ordered(state):
        kinds.setdefault(kind_of(load.message), []).append(load)
    progress = (share - RELAY_START) / (RELAY_END - RELAY_START)
    for kind, loads in sorted(kinds.items()):
        within = _within_quota(state, loads)
        first = int(round(progress * len(within), 6)) if len(within) > MAX_BATCH else 0
        batch = (*within[first:], *within[:first])[:MAX_BATCH]
        yield RelayMessages(kind, state.round, state.stage, _seed_of(state, batch[0].message), turn, batch)


def _ordered(state: State) -> list[Load]:
    """Return the messages of the pool: first of peers whose rollouts were accepted lately, then of the others.

    Votes for the same winners are next to each other: a batch pays for each winner it names (contracts/GAS.md).
    """
    by_stage = [state.bodies_by_step.get(current_step(state) - back, {}) for back in (0, 1)]
    accepted = {peer for bodies in by_stage for peer, body in bodies.items() if body.state == "arrived"}
    announcers = sorted(state.message_pool, key=lambda peer: (peer not in accepted, peer))
    loads = [Load(peer, message) for peer in announcers for message in state.message_pool[peer]]
    loads += [Load(node, message) for node, message in sorted(state.introduced.items())]
    loads.sort(key=lambda load: (load.peer not in accepted, _winners(load.message)))
    unbound: dict[Carried, Load] = {}
    for load in loads:
        if _is_unbound(load.message):
            unbound.setdefault(load.message, load)
    return [load for load in loads if not _is_unbound(load.message)] + list(unbound.values())


def _within_quota(state: State, loads: list[Load]) -> list[Load]:
    """Return the messages within the quota of each owner and within the number of new nodes.

    A message counts for the peer that announced it, not for its alleged signer: forged ones use up the forger's quota.
    """
    newcomers = {_newcomer(state, load.message) for load in loads} - {""}
    drawn = turn_order(newcomers, state.seed, state.round, state.stage)[:MAX_NEWCOMERS]
    taken: Counter[Address] = Counter()
    within = []
    for load in loads:
        if _newcomer(state, load.message) not in ("", *drawn):
            continue
        owner = state.owners.get(load.peer, load.peer)
        taken[owner] += 1
        if taken[owner] <= OWNER_QUOTA:
            within.append(load)
    return within


def _newcomer(state: State, message: Carried) -> Address:
    """Return the node that a message registers; empty if it is of another kind."""
    return message.node if isinstance(message, CarriedDelegation) and message.node not in state.peers else ""


def _winners(message: Carried) -> tuple[Address, ...]:
    return message.winners if isinstance(message, CarriedVote | CarriedReveal) else ()


def _is_unbound(message: Carried) -> bool:
    """Return True if a message is bound to no round: it is about the node that it names, whichever peer announced
    it."""
    return isinstance(message, CarriedDelegation | CarriedRevocation)


def _seed_of(state: State, message: Carried) -> Seed:
    if isinstance(message, CarriedDelegation | CarriedRevocation):
        return state.seed
    return state.seeds[message.round]
