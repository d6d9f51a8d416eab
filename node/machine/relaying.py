"""Relaying: submitting other nodes' signed messages, for those that have no gas. Relayers take turns, a batch a topic.

Nodes with funds say so in their announcements, so that all know the same relayers and whose turn it is. Messages in the
pool were only decoded: the chain service checks each one, and leaves out what is on chain.
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
MAX_POOLED_PEERS = 1024
"""Peers whose messages of a stage are kept."""
MAX_INTRODUCED = 64
"""Newcomers whose delegations are kept. The oldest are dropped first: they introduce themselves again."""
MAX_BATCH = 100
"""Messages in one command."""
OWNER_QUOTA = 8
"""Messages in one command that nodes of one owner announced."""
MAX_NEWCOMERS = 4
"""Newcomers in one command, drawn by lot, whoever announced their delegations."""
# Registrations are capped on their own: owners' keys are free, so that a quota per owner bounds nothing here. One costs
# three times as much as a vote: all that are kept would spend a day's gas in four turns.
STEPS_REMEMBERED = 2
"""Stages for which a peer that said it relays still counts as a relayer."""


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

    0.0 where there are none, or where this node will not be there to see whether they submitted them.
    """
    if state.draining or not (may_relay(state) or state.relayers):
        return 0.0
    return local_time_at(state, RELAY_END)


def reset_message_pool(state: State) -> State:
    """Return the state without an earlier stage's messages, and without relayers that fell silent."""
    oldest = current_step(state) - STEPS_REMEMBERED
    relayers = {peer: step for peer, step in state.relayers.items() if step >= oldest}
    return replace(state, relayers=relayers, message_pool={}, relay_turn=0)


# --- the message pool -----------------------------------------------------------------------------------------------


def with_announced_messages(state: State, announcement: i.RolloutsAnnounced, step: int) -> State:
    """Return the state with an announcement's messages in the pool, those whose window is open, and its peer's offer
    to relay."""
    if announcement.relays and state.relayers.get(announcement.peer, -1) < step:
        state = replace(state, relayers={**state.relayers, announcement.peer: step})
    if (
        step != current_step(state)
        or announcement.peer in state.message_pool
        or len(state.message_pool) >= MAX_POOLED_PEERS
    ):
        return state
    found: dict[object, SignedMessage] = {}
    for message in announcement.attached:
        if is_timely(state, message):
            topic = topic_of(message)
            found.setdefault(topic if topic.has_round else message, message)
    return (
        replace(state, message_pool={**state.message_pool, announcement.peer: tuple(found.values())})
        if found
        else state
    )


def is_timely(state: State, message: SignedMessage) -> bool:
    """Return True if the contract takes such a message in the current stage."""
    parameters = state.parameters
    return in_window(
        message, StageView(state.round, state.stage, parameters.stages, parameters.sealed, state.seeds.keys())
    )


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
    """Relay what is in the pool if it is this node's turn; of missed turns the last one is taken."""
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
    """Yield a command for each topic, in order.

    Where there are more messages than a batch holds, each turn starts at another one: at the same share of the messages
    as the turn's share of the turns. So all of them are reached, whoever's turns they are.
    """
    topics: dict[MessageTopic, list[RelayedMessage]] = {}
    for one in _ordered(state):
        topics.setdefault(topic_of(one.message), []).append(one)
    progress = (share - RELAY_START) / (RELAY_END - RELAY_START)
    for topic, relayed in sorted(topics.items()):
        within = _within_quota(state, relayed)
        first = int(round(progress * len(within), 6)) if len(within) > MAX_BATCH else 0
        batch = (*within[first:], *within[:first])[:MAX_BATCH]
        seed = state.seeds[topic.round] if topic.has_round else state.seed
        yield RelayMessages(topic, state.round, state.stage, seed, turn, batch)


def _ordered(state: State) -> list[RelayedMessage]:
    """Return what is to be relayed: first of peers whose rollouts were accepted lately, then of the others.

    Votes for the same winners are next to each other: a batch pays for each winner that it names (contracts/GAS.md).
    """
    by_stage = [state.bodies_by_step.get(current_step(state) - back, {}) for back in (0, 1)]
    accepted = {peer for bodies in by_stage for peer, body in bodies.items() if body.state == "arrived"}
    announcers = sorted(state.message_pool, key=lambda peer: (peer not in accepted, peer))
    relayed = [RelayedMessage(peer, message) for peer in announcers for message in state.message_pool[peer]]
    relayed += [RelayedMessage(node, message) for node, message in sorted(state.introduced.items())]
    relayed.sort(key=lambda one: (one.peer not in accepted, _winners(one.message)))
    lasting: dict[SignedMessage, RelayedMessage] = {}
    for one in relayed:
        if not topic_of(one.message).has_round:
            lasting.setdefault(one.message, one)
    return [one for one in relayed if topic_of(one.message).has_round] + list(lasting.values())


def _within_quota(state: State, relayed: list[RelayedMessage]) -> list[RelayedMessage]:
    """Return the messages within the quota of each announcer's owner, and those of a few newcomers.

    The quota is the announcer's, not that of the node that a message names: forgeries must use up their forger's quota.
    """
    newcomers = {_newcomer(state, one.message) for one in relayed} - {""}
    drawn = turn_order(newcomers, state.seed, state.round, state.stage)[:MAX_NEWCOMERS]
    taken: Counter[Address] = Counter()
    within = []
    for one in relayed:
        if _newcomer(state, one.message) not in ("", *drawn):
            continue
        owner = state.owners.get(one.peer, one.peer)
        taken[owner] += 1
        if taken[owner] <= OWNER_QUOTA:
            within.append(one)
    return within


def _newcomer(state: State, message: SignedMessage) -> Address:
    """Return the node that a message would register; empty for any other message."""
    return message.node if isinstance(message, SignedDelegation) and message.node not in state.peers else ""


def _winners(message: SignedMessage) -> tuple[Address, ...]:
    return message.winners if isinstance(message, SignedVote | VoteReveal) else ()
