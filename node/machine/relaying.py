"""Bringing other nodes' signed messages on chain, for those that have no gas: by turns, a batch of each kind in one.

Whoever can pay says so in its announcements, so that everybody knows the same relayers and whose turn it is. What is
carried was only decoded: the chain service checks each message, and leaves out what is on chain.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from msgspec.structs import replace

from node.machine import inputs as i
from node.machine.commands import RelayMessages, SetTimer
from node.machine.delegation import renewals
from node.machine.pacing import moment_of
from node.machine.state import Result, State, counts, current_step
from protocols.identifiers import Address
from protocols.schedule import RELAY_END, RELAY_START, relay_turns, turn_order
from protocols.signed_messages import (
    MessageTopic,
    RelayedMessage,
    SignedDelegation,
    SignedMessage,
    SignedVote,
    StageView,
    VoteReveal,
    in_window,
    topic_of,
)

SLACK = 0.05
"""Seconds by which a timer may fire early and still count."""
MAX_CARGO = 1024
"""Peers whose messages of a stage are kept."""
MAX_INTRODUCED = 64
"""Newcomers whose delegations are kept; the oldest go first, since they come again."""
MAX_BATCH = 100
"""Messages in one command."""
OWNER_QUOTA = 8
"""Messages in one command that nodes of one owner carry."""
MAX_NEWCOMERS = 4
"""Newcomers in one command, drawn by lot, whoever carries their delegations. Owners' keys cost nothing, so that a quota
of each owner bounds nothing here, and a registration costs three times what a vote does: all that are kept would spend
a day's gas in four turns."""
STEPS_REMEMBERED = 2
"""Stages for which a peer that said it relays is taken for a relayer still."""


# --- who relays -----------------------------------------------------------------------------------------------------


def funds_changed(state: State, changed: i.FundsChanged, at: float) -> Result:
    """Relay from now on, or no longer."""
    state, commands = wait_for_relay(replace(state, relays=changed.relays), at)
    return state, (*commands, *renewals(state))


def may_relay(state: State) -> bool:
    """Tell whether this node brings messages in the current stage."""
    return state.relays and not (state.draining or state.stopping) and counts(state, state.me, state.round)


def sent_after(state: State) -> float:
    """Return the local time before which this node leaves its own messages of this stage to the relayers.

    0.0 where there is none, or where this node will not be there to see whether they came.
    """
    if state.draining or not (may_relay(state) or state.relayers):
        return 0.0
    return moment_of(state, RELAY_END)


def stage_began(state: State) -> State:
    """Return the state without what was carried in an earlier stage, and without relayers that fell silent."""
    oldest = current_step(state) - STEPS_REMEMBERED
    relayers = {peer: step for peer, step in state.relayers.items() if step >= oldest}
    return replace(state, relayers=relayers, cargo={}, relay_turn=0)


# --- what is to be brought ------------------------------------------------------------------------------------------


def with_cargo(state: State, said: i.RolloutsAnnounced, step: int) -> State:
    """Return the state with what a peer's announcement says of relaying; what can't be brought now is left out."""
    if said.relays and state.relayers.get(said.peer, -1) < step:
        state = replace(state, relayers={**state.relayers, said.peer: step})
    if step != current_step(state) or said.peer in state.cargo or len(state.cargo) >= MAX_CARGO:
        return state
    found: dict[object, SignedMessage] = {}
    for message in said.carried:
        if is_timely(state, message):
            topic = topic_of(message)
            found.setdefault(topic if topic.has_round else message, message)
    return replace(state, cargo={**state.cargo, said.peer: tuple(found.values())}) if found else state


def is_timely(state: State, message: SignedMessage) -> bool:
    """Return True if the contract takes such a message in the current stage."""
    terms = state.terms
    return in_window(message, StageView(state.round, state.stage, terms.stages, terms.sealed, state.seeds.keys()))


def node_introduced(state: State, introduced: i.NodeIntroduced, at: float) -> Result:
    """Keep a newcomer's delegation for the next turn."""
    node = introduced.node
    if node == state.me or node in state.peers or introduced.message.node != node:
        return state, ()
    others = [(other, message) for other, message in state.introduced.items() if other != node]
    return replace(state, introduced=dict([*others, (node, introduced.message)][-MAX_INTRODUCED:])), ()


def owned_by(state: State, peer: Address, owner: Address) -> State:
    """Return the state that knows a peer's owner, and the peer for no newcomer."""
    if owner and state.owners.get(peer) != owner:
        state = replace(state, owners={**state.owners, peer: owner})
    if peer in state.introduced:
        rest = {other: message for other, message in state.introduced.items() if other != peer}
        state = replace(state, introduced=rest)
    return state


# --- turns ----------------------------------------------------------------------------------------------------------


def wait_for_relay(state: State, at: float) -> Result:
    """Set the timer for the first turn in which this node could relay in the current stage."""
    if not may_relay(state) or state.relay_turn >= len(_turns(state)):
        return state, ()
    share = RELAY_START if state.relay_turn == 0 else _turns(state)[state.relay_turn]
    return state, (SetTimer("relay", moment_of(state, share)),)


def relay_timer(state: State, at: float) -> Result:
    """Bring what is there if it is this node's turn; of turns that were missed the last one is taken."""
    if not may_relay(state):
        return state, ()
    if state.chain != "present":
        return state, ()  # the turn is taken when the chain is back
    turns = _turns(state)
    due = [turn for turn in range(state.relay_turn, len(turns)) if moment_of(state, turns[turn]) <= at + SLACK]
    commands: tuple[RelayMessages, ...] = ()
    if due and state.heard:
        commands = tuple(_batches(state, due[-1], turns[due[-1]]))
        state = replace(state, introduced={})
    state = replace(state, relay_turn=due[-1] + 1 if due else state.relay_turn)
    if state.relay_turn >= len(turns):
        return state, commands
    return state, (*commands, SetTimer("relay", moment_of(state, turns[state.relay_turn])))


def _turns(state: State) -> tuple[float, ...]:
    return relay_turns(state.me, (state.me, *state.relayers), state.seed, state.round, state.stage)


def _batches(state: State, turn: int, share: float) -> Iterator[RelayMessages]:
    """Yield a command for each kind of message, in the order of the kinds' names.

    Where there are more than one batch holds, each turn begins at another place among them: at the share of the
    messages at which it stands among the turns. So all of them are reached, whoever's turns they are.
    """
    topics: dict[MessageTopic, list[RelayedMessage]] = {}
    for load in _ordered(state):
        topics.setdefault(topic_of(load.message), []).append(load)
    progress = (share - RELAY_START) / (RELAY_END - RELAY_START)
    for topic, loads in sorted(topics.items()):
        within = _within_quota(state, loads)
        first = int(round(progress * len(within), 6)) if len(within) > MAX_BATCH else 0
        batch = (*within[first:], *within[:first])[:MAX_BATCH]
        seed = state.seeds[topic.round] if topic.has_round else state.seed
        yield RelayMessages(topic, state.round, state.stage, seed, turn, batch)


def _ordered(state: State) -> list[RelayedMessage]:
    """Return what is to be brought: first of those whose rollouts were accepted lately, then of the others.

    Votes for the same winners stand together: a batch pays for each winner that it names (contracts/GAS.md).
    """
    pools = [state.pools.get(current_step(state) - back, {}) for back in (0, 1)]
    accepted = {peer for pool in pools for peer, body in pool.items() if body.state == "arrived"}
    carriers = sorted(state.cargo, key=lambda peer: (peer not in accepted, peer))
    loads = [RelayedMessage(peer, message) for peer in carriers for message in state.cargo[peer]]
    loads += [RelayedMessage(node, message) for node, message in sorted(state.introduced.items())]
    loads.sort(key=lambda load: (load.peer not in accepted, _winners(load.message)))
    lasting: dict[SignedMessage, RelayedMessage] = {}
    for load in loads:
        if not topic_of(load.message).has_round:
            lasting.setdefault(load.message, load)
    return [load for load in loads if topic_of(load.message).has_round] + list(lasting.values())


def _within_quota(state: State, loads: list[RelayedMessage]) -> list[RelayedMessage]:
    """Return the messages without those beyond a carrier's owner's quota, and without those of too many newcomers.

    What counts is who carries a message, not whose it says it is: forged ones must use up their forger's quota.
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


def _newcomer(state: State, message: SignedMessage) -> Address:
    """Return the node that a message is to register; empty where it is about another matter."""
    return message.node if isinstance(message, SignedDelegation) and message.node not in state.peers else ""


def _winners(message: SignedMessage) -> tuple[Address, ...]:
    return message.winners if isinstance(message, SignedVote | VoteReveal) else ()
