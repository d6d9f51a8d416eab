"""What a relayer brings in a turn: bounded, fair, and in the end everything. When it does stands in tests/scenarios."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from node.machine import inputs as i
from node.machine.commands import RelayMessages
from node.machine.relaying import MAX_BATCH, MAX_INTRODUCED, MAX_NEWCOMERS, MAX_POOLED_PEERS, OWNER_QUOTA
from node.machine.state import BodyRecord, State, initial
from node.machine.step import step
from protocols.identifiers import body_digest
from protocols.manifest import Manifest
from protocols.signed_messages import SignedCommitment, SignedDelegation, SignedReward, SignedVote
from protocols.wire import NOTHING

SEEDS = {number: body_digest(str(number).encode()) for number in range(3)}


def address(number: int) -> str:
    return f"0x{number:040x}"


ME = address(1)
COMMITMENT = SignedCommitment(1, bytes(32), bytes(65))


def relayer(peers: int) -> State:
    """Return a relayer at the beginning of round 2 among registered peers 2 to `peers`."""
    state = replace(initial(ME, Manifest(name="relay")), peers={address(each): 0 for each in range(1, peers + 1)})
    for happened in (i.NodeStarted(), i.ChainRestored(0.0), i.FundsChanged(True)):
        state, _ = step(state, i.Stamped(0.0, happened))
    for number in (1, 2):
        opened = i.StageOpened(number, 0, SEEDS[number], 60 * number, 60 * number - 60, 1)
        state, _ = step(state, i.Stamped(60.0 * number - 60, opened))
    return state


def announcing(state: State, number: int, *attached: SignedCommitment | SignedReward | SignedDelegation) -> State:
    announcement = i.RolloutsAnnounced(address(number), 2, 0, NOTHING, 0, inline=False, attached=attached)
    return step(state, i.Stamped(61.0, announcement))[0]


def turns(state: State) -> list[list[RelayMessages]]:
    """Return what each of the turns of a lone relayer brings."""
    brought = []
    for at in (84.0, 94.0, 104.0):
        state, commands = step(state, i.Stamped(at, i.TimerFired("relay")))
        brought.append([each for each in commands if isinstance(each, RelayMessages)])
    return brought


@given(st.integers(0, 3 * MAX_BATCH))
def test_three_turns_reach_everybody(carriers: int) -> None:
    """Up to three batches of peers are all brought within a lone relayer's turns, none twice in one command."""
    state = relayer(3 * MAX_BATCH + 1)
    state = replace(state, message_pool={address(number): (COMMITMENT,) for number in range(2, carriers + 2)})
    batches = [command for turn in turns(state) for command in turn]
    reached = Counter(load.peer for command in batches for load in command.messages)

    assert set(reached) == set(state.message_pool)
    for command in batches:
        assert len(command.messages) == min(carriers, MAX_BATCH) == len({load.peer for load in command.messages})
        assert (str(command.topic), command.seed) == ("commit:1", SEEDS[1])


def test_an_owner_has_a_quota_in_each_command() -> None:
    """Of a ring of nodes with one owner no more are brought than the quota; a peer of unknown owner has its own."""
    state = replace(relayer(30), owners={address(number): "0x" + "f" * 40 for number in range(2, 22)})
    for number in range(2, 26):
        state = announcing(state, number, COMMITMENT)
    (first,), *_ = turns(state)

    assert [load.peer for load in first.messages] == [
        address(each) for each in (*range(2, 2 + OWNER_QUOTA), *range(22, 26))
    ]


def test_those_who_worked_come_first() -> None:
    """Peers whose rollouts of this stage or the last were accepted come before others; each message comes once."""
    state = relayer(9)
    for number in (2, 3, 4, 5):
        state = announcing(state, number, COMMITMENT, COMMITMENT, replace(COMMITMENT, round=2))
    arrived = BodyRecord(bytes(32), 10, "arrived", 4, 1.0)
    bodies_by_step = {1: {address(5): arrived}, 2: {**state.bodies_by_step[2], address(3): arrived}}
    (first,), *_ = turns(replace(state, bodies_by_step=bodies_by_step))

    assert [load.peer for load in first.messages] == [address(each) for each in (3, 5, 2, 4)]


def test_votes_for_the_same_winners_stand_together() -> None:
    """Where voters fall into camps, a batch of many names few winners; who worked still comes before who did not."""
    camps, dice = [range(at, at + 20) for at in range(1_000, 1_400, 20)], random.Random(1)
    voters = [address(number) for number in range(2, 402)]
    state = relayer(402)
    state = replace(state, message_pool={voter: (vote(dice, camps),) for voter in voters})
    arrived = BodyRecord(bytes(32), 10, "arrived", 4, 1.0)
    state = replace(state, bodies_by_step={2: dict.fromkeys(voters[::2], arrived)})
    (first,), *_ = turns(state)
    named = {
        winner for load in first.messages if isinstance(load.message, SignedVote) for winner in load.message.winners
    }

    assert len(first.messages) == MAX_BATCH
    assert {load.peer for load in first.messages} <= set(voters[::2])
    assert len(named) <= 12 * 20


def vote(dice: random.Random, camps: list[range]) -> SignedVote:
    """Return somebody's vote for five of one camp."""
    return SignedVote(1, tuple(sorted(map(address, dice.sample(dice.choice(camps), 5)))), bytes(65))


def test_what_is_kept_is_bounded() -> None:
    """Neither peers with cargo nor newcomers fill the memory; a newcomer that comes again stays."""
    state = relayer(MAX_POOLED_PEERS + 20)
    for number in range(2, MAX_POOLED_PEERS + 20):
        state = announcing(state, number, COMMITMENT)
    for number in range(2_000, 2_000 + MAX_INTRODUCED + 5):
        for node in (address(number), address(2_000)):
            message = SignedDelegation(ME, node, 1, 2, bytes(65), bytes(65))
            state, _ = step(state, i.Stamped(61.0, i.NodeIntroduced(node, message)))

    assert len(state.message_pool) == MAX_POOLED_PEERS
    assert len(state.introduced) == MAX_INTRODUCED
    assert address(2_000) in state.introduced


@pytest.mark.parametrize("owners", [1, MAX_INTRODUCED])
@pytest.mark.parametrize("attached", [False, True])
def test_a_turn_brings_few_newcomers(owners: int, attached: bool) -> None:
    """However many made-up nodes ask, of one owner or of as many, shown by themselves or carried by peers."""
    state = relayer(40)
    for number in range(MAX_INTRODUCED):
        node = address(2_000 + number)
        message = SignedDelegation(address(500 + number % owners), node, 1, 2, bytes(65), bytes(65))
        state, _ = step(state, i.Stamped(61.0, i.NodeIntroduced(node, message)))
        state = announcing(state, 2 + number, message) if attached else state
    (first,), *_ = turns(state)

    assert len(first.messages) == MAX_NEWCOMERS


def test_forged_orders_use_up_nobody_elses_quota() -> None:
    """Delegations that name somebody's owner do not keep that owner's own renewal from the chain."""
    true = SignedDelegation(address(8), address(5), 3, 2, bytes(65), bytes(65))
    state = relayer(5)
    state = announcing(state, 2, *(replace(true, serial=number) for number in range(10, 10 + OWNER_QUOTA)))
    state = announcing(state, 5, true)
    (first,), *_ = turns(state)

    assert true in [load.message for load in first.messages]


def test_one_delegation_is_brought_once_whoever_carries_it() -> None:
    """The same delegation from two peers and its node is one load; a forged one beside it does not take its place."""
    node = address(77)
    true = SignedDelegation(address(8), node, 1, 2, bytes(65), bytes(65))
    forged = replace(true, owner=address(9))
    state = announcing(announcing(relayer(5), 2, forged, true), 3, true)
    state, _ = step(state, i.Stamped(61.0, i.NodeIntroduced(node, true)))
    (first,), *_ = turns(state)

    assert [load.message for load in first.messages] == [forged, true]


def test_a_newcomer_speaks_for_nobody_else() -> None:
    """An introduction is kept only for the node that it names, and only while that is not registered."""
    message = SignedDelegation(ME, address(77), 1, 2, bytes(65), bytes(65))
    state = relayer(5)
    for happened in (
        i.NodeIntroduced(address(78), message),
        i.NodeIntroduced(address(3), replace(message, node=address(3))),
        i.NodeIntroduced(ME, replace(message, node=ME)),
    ):
        state, _ = step(state, i.Stamped(61.0, happened))
    assert state.introduced == {}
