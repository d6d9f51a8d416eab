"""What the machine keeps is bounded, what it asks for fits, every input has its transition."""

from __future__ import annotations

from typing import get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from node.machine import commands as c
from node.machine import inputs as i
from node.machine import views
from node.machine.external_bodies import (
    MAX_EXTERNAL,
    MAX_EXTERNAL_BYTES,
    all_bodies_settled,
    unused_bodies,
)
from node.machine.pacing import groups_that_fit, local_deadline, margin, training_estimate
from node.machine.peer_score import GRAYLIST_THRESHOLD
from node.machine.places import MAX_UNKNOWN_BYTES, MAX_UNKNOWN_PEERS
from node.machine.state import MAX_BODIES, MAX_PEERS, BodyRecord, State, TrainerSpeed, initial
from node.machine.step import HANDLERS, step
from protocols.identifiers import body_digest
from protocols.manifest import Manifest, StageSpec
from protocols.wire import NOTHING

ME = f"0x{1:040x}"
SEED = body_digest(b"seed")


def address(number: int) -> str:
    return f"0x{number:040x}"


def in_round(number: int, peers: int, at: float = 0.0) -> State:
    """Return a node in an open round among this many registered peers, itself included; its trainer is not up."""
    state = initial(ME, Manifest(name="bounds", stages=(StageSpec(name="play", seconds=60),)))
    state = replace(state, peers={address(each): 0 for each in range(1, peers + 1)})
    for happened in (i.NodeStarted(), i.ChainRestored(0.0), i.StageOpened(number, 0, SEED, 60, 0, 1)):
        state, _ = step(state, i.Stamped(at, happened))
    return state


def announcement(number: int, size: int) -> i.RolloutsAnnounced:
    """Return what a peer says of its rollouts of round 3; without a size that it made none."""
    body = body_digest(str(number).encode()) if size else NOTHING
    return i.RolloutsAnnounced(address(number), 3, 0, body, size, inline=False)


def test_every_input_has_its_transition() -> None:
    """An input type that is added to the journal's schema can't be forgotten in the table."""
    assert set(HANDLERS) == set(get_args(i.AnyInput))


def test_rollouts_that_an_older_version_journalled_still_count() -> None:
    """They name no seed: they read back, and are taken as the answer to what was asked."""
    state, _ = step(replace(in_round(3, 1), trainer="present"), i.Stamped(1.0, i.ChainRestored(0.0)))
    assert state.task is not None
    made = msgspec.to_builtins(i.RolloutsGenerated(3, 0, b"", 9, 4, 1.0, 1.0))
    del made["seed"]
    old = msgspec.msgpack.decode(msgspec.msgpack.encode([2.0, {**made, "body": b"made"}]), type=i.Stamped)

    _, commands = step(state, old)
    assert any(isinstance(command, c.PublishRollouts) for command in commands)


def test_no_more_bodies_than_the_bound_are_asked_for() -> None:
    """A stage with more announcing peers than the bound costs the bound."""
    state = in_round(3, MAX_BODIES + 50)
    state = replace(state, peer_scores=dict.fromkeys(state.peers, 1.0))
    for number in range(2, MAX_BODIES + 50):
        state, _ = step(state, i.Stamped(1.0, announcement(number, 1000)))
        assert len(state.bodies_by_step[3]) < MAX_BODIES, "one place is for the own body"

    waiting = sum(body.state == "fetching" for body in state.bodies_by_step[3].values())
    assert waiting == MAX_BODIES - 1
    assert state.refusals["crowded"] == 49


@pytest.mark.parametrize("score", [0.0, -1.0, GRAYLIST_THRESHOLD])
@pytest.mark.parametrize("size", [1000, 0])
def test_unknown_peers_have_only_their_share_of_a_stage(size: int, score: float) -> None:
    """However many names announce anything, or are graylisted, peers with a positive score find places left."""
    state = in_round(3, MAX_BODIES + 50)
    good = address(MAX_BODIES + 50)
    state = replace(state, peer_scores={**dict.fromkeys(state.peers, score), good: 1.0})
    for number in range(2, MAX_BODIES + 50):
        state, _ = step(state, i.Stamped(1.0, announcement(number, size)))
    assert len(state.bodies_by_step[3]) == MAX_UNKNOWN_PEERS
    assert state.refusals["crowded"] == state.totals.bodies_refused - state.refusals.get("graylisted", 0)
    assert state.refusals["crowded"] == MAX_BODIES + 48 - MAX_UNKNOWN_PEERS

    _, commands = step(state, i.Stamped(1.0, announcement(MAX_BODIES + 50, 1000)))
    assert any(isinstance(command, c.FetchRollouts) for command in commands)


def test_unknown_peers_without_a_place_do_not_end_the_waiting() -> None:
    """Training waits for those with a positive score, however many names have said that they made nothing."""
    state = in_round(3, MAX_BODIES + 50)
    state = replace(state, peer_scores={address(MAX_BODIES + 50): 1.0})
    for number in range(2, MAX_BODIES + 50):
        state, _ = step(state, i.Stamped(1.0, announcement(number, 0)))

    assert not all_bodies_settled(state)


def test_unknown_peers_have_only_their_share_of_a_stages_bytes() -> None:
    """Bodies as large as they may be fill the bytes of unknown peers before their places."""
    state = in_round(3, 100)
    size = MAX_UNKNOWN_BYTES // 10
    for number in range(2, 30):
        state, _ = step(state, i.Stamped(1.0, announcement(number, size)))

    assert sum(body.state == "fetching" for body in state.bodies_by_step[3].values()) == 10


def test_the_peer_list_is_bounded_but_never_without_this_node() -> None:
    """A flood of registrations can't grow the state for ever, nor lock this node out of its own list."""
    state = replace(in_round(3, 1), peers={address(each): 0 for each in range(2, MAX_PEERS + 2)})

    state, _ = step(state, i.Stamped(1.0, i.PeerRegistered(address(MAX_PEERS + 9), 0)))
    assert address(MAX_PEERS + 9) not in state.peers

    state, _ = step(state, i.Stamped(1.0, i.PeerRegistered(ME, 0)))
    assert views.status(state).registered


@given(st.lists(st.integers(1, 8 << 20), max_size=80))
def test_the_bodies_of_one_training_fit_its_frame(sizes: list[int]) -> None:
    """However large bodies are, what one training takes is bounded in number and bytes, and is what is there."""
    bodies = {
        address(number): BodyRecord(body_digest(str(number).encode()), size, "arrived", 4, 1.0)
        for number, size in enumerate(sizes, 2)
    }
    state = replace(in_round(3, 1), bodies_by_step={3: bodies})
    length = {body.digest: body.size for body in bodies.values()}
    chosen = unused_bodies(state)

    assert len(chosen) == len(set(chosen)) <= MAX_EXTERNAL
    assert sum(length[digest] for digest in chosen) <= MAX_EXTERNAL_BYTES
    if len(sizes) <= MAX_EXTERNAL and sum(sizes) <= MAX_EXTERNAL_BYTES:
        assert set(chosen) == set(length)


@given(st.floats(0.01, 100), st.floats(0.01, 100), st.floats(0, 80))
def test_the_groups_asked_for_fit_the_time(generate: float, train: float, at: float) -> None:
    """Measured speed times groups, training and the margin end by the deadline; one group more would not."""
    state = replace(in_round(3, 1), speed=TrainerSpeed(generate, train))
    left = local_deadline(state) - at - margin(state) - training_estimate(state)
    groups = groups_that_fit(state, at)

    assert 0 <= groups <= state.parameters.generated
    assert groups == 0 or groups * generate <= left + 1e-6
    assert groups == state.parameters.generated or (groups + 1) * generate > left - 1e-6


def test_a_fresh_status_can_be_shown() -> None:
    """A node that has heard nothing has a status that encodes, and says that it is starting."""
    status = views.status(initial(ME, Manifest(name="fresh")))

    assert status.phase == "starting"
    assert b'"round":-1' in msgspec.json.encode(status)


def test_the_window_shows_who_counts_and_which_seeds_are_accepted() -> None:
    """Gossip is told the peers of the current round only, and the seeds of the rounds that are kept."""
    state = in_round(3, 2)
    state, _ = step(state, i.Stamped(1.0, i.PeerRegistered(address(9), 4)))
    assert views.eligible(state) == {ME, address(2)}
    assert views.window_seeds(state) == {3: SEED}

    for number in (4, 5):
        opened = i.StageOpened(number, 0, body_digest(str(number).encode()), 60 * number, 0, 2)
        state, _ = step(state, i.Stamped(60.0, opened))
    assert views.eligible(state) == {ME, address(2), address(9)}
    assert set(views.window_seeds(state)) == {4, 5}
