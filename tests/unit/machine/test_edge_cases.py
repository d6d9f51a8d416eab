"""What the machine does at the edges of its rules: timers that fire early, full tables, measurements of nothing."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from node.machine import inputs as i
from node.machine.advancing import advance_timer
from node.machine.commands import RelayMessages, SetTimer
from node.machine.external_bodies import MAX_EXTERNAL, MAX_EXTERNAL_BYTES, all_bodies_settled, unused_bodies
from node.machine.pacing import learn_generation_speed, learn_training_speed
from node.machine.pausing import pause_timer
from node.machine.relaying import relay_timer, with_owner
from node.machine.state import MAX_BODIES, BodyRecord, DoppelgangerWatch, State, initial
from node.machine.step import step
from node.machine.uncounted_bodies import settle_copies
from protocols.identifiers import body_digest
from protocols.manifest import GameSpec, Manifest, StageSpec

SECONDS = 60
ROUND = 7


def address(number: int) -> str:
    return f"0x{number:040x}"


ME = address(1)


def playing(manifest: Manifest | None = None, *more: i.AnyInput) -> State:
    """Return a registered node at the beginning of a round, at time 0."""
    state = initial(ME, manifest or Manifest(name="edges", stages=(StageSpec(name="play", seconds=SECONDS),)))
    seed = body_digest(b"seed")
    opened = i.StageOpened(ROUND, 0, seed, SECONDS, 0, 1)
    for happened in (i.NodeStarted(), i.ChainRestored(0.0), i.PeerRegistered(ME, 0), opened, *more):
        state, _ = step(state, i.Stamped(0.0, happened))
    return state


def arrived(number: int, size: int = 100, announced_at: float = 1.0) -> BodyRecord:
    return BodyRecord(
        digest=body_digest(b"%d" % number), size=size, state="arrived", groups=8, reward=4.0, announced_at=announced_at
    )


def with_bodies(state: State, bodies: dict[str, BodyRecord]) -> State:
    return replace(state, bodies_by_step={ROUND: bodies})


# --- timers ---------------------------------------------------------------------------------------------------------


def test_an_advance_timer_that_fires_early_is_set_again() -> None:
    """The deadline may have moved since the timer was set."""
    state = playing()
    assert advance_timer(state, SECONDS - 30.0) == (state, (SetTimer("advance", float(SECONDS)),))


@pytest.mark.parametrize("how", ["no round is known", "the identity is being watched"])
def test_an_advance_timer_means_nothing_to_a_node_that_may_not_act(how: str) -> None:
    """Before the first round, and under doppelganger protection, this node advances nothing."""
    state = replace(
        playing(), **({"round": -1} if how.startswith("no") else {"doppelganger_watch": DoppelgangerWatch()})
    )
    assert advance_timer(state, 1000.0) == (state, ())


def test_a_pause_timer_that_fires_early_is_set_again() -> None:
    """The pause may have been made longer."""
    state = replace(playing(), paused_until=600)
    assert pause_timer(state, 500.0) == (state, (SetTimer("pause", 600.0),))
    assert pause_timer(state, 600.0) == (replace(state, paused_until=0), ())


@pytest.mark.parametrize("change", [{"relays": False}, {"draining": True}, {"chain": "absent"}])
def test_a_relay_timer_means_nothing_where_this_node_does_not_relay(change: dict[str, object]) -> None:
    """Its funds are spent, it is about to stop, or the chain is away."""
    state = replace(playing(None, i.FundsChanged(True)), **change)
    assert relay_timer(state, float(SECONDS)) == (state, ())


def test_a_relay_timer_that_fires_early_is_set_for_its_turn() -> None:
    """Nothing is submitted before the turn."""
    state = playing(None, i.FundsChanged(True))
    after, commands = relay_timer(state, 0.0)
    assert after == state
    assert not any(isinstance(command, RelayMessages) for command in commands)
    (timer,) = commands
    assert isinstance(timer, SetTimer)
    assert timer.name == "relay"
    assert timer.at > 0


def test_a_quote_timer_that_fires_early_is_set_again() -> None:
    """A stage that quotes others waits for its share of the time, counted from when it really ends."""
    waits = {"answer": 0.0, "critique": 0.5, "resolve": 0.0}
    stages = tuple(StageSpec(name=name, seconds=SECONDS, wait=wait) for name, wait in waits.items())
    manifest = Manifest(name="edges", stages=stages, game=GameSpec(name="debate"))
    state = playing(manifest, i.TrainerReady(1, "cpu", -1), i.PeerRegistered(address(2), 0))
    opened = i.StageOpened(ROUND, 1, state.seed, 2 * SECONDS, SECONDS, 1)
    state, commands = step(state, i.Stamped(60.0, opened))
    (due,) = (command for command in commands if isinstance(command, SetTimer) and command.name == "quote")
    assert step(state, i.Stamped(due.at - 1, i.TimerFired("quote"))) == (state, (due,))


# --- measurements ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("groups", "seconds"), [(0, 5.0), (4, 0.0), (4, -1.0)])
def test_a_generation_without_groups_or_time_teaches_no_speed(groups: int, seconds: float) -> None:
    """A clock that was set back must not make a node believe that it is infinitely fast."""
    state = playing()
    assert learn_generation_speed(state, groups, seconds) is state
    assert learn_generation_speed(state, 4, 8.0).speed.generate == 2.0


@pytest.mark.parametrize("seconds", [0.0, -1.0])
def test_a_training_without_time_teaches_no_speed(seconds: float) -> None:
    """As for generation."""
    state = playing()
    assert learn_training_speed(state, seconds) is state
    assert learn_training_speed(state, 8.0).speed.train == 8.0


# --- external bodies ------------------------------------------------------------------------------------------------


def test_a_game_without_external_groups_trains_on_no_external_body() -> None:
    """`game.external_groups = 0` switches sharing off."""
    manifest = Manifest(
        name="edges", stages=(StageSpec(name="play", seconds=SECONDS),), game=GameSpec(external_groups=0)
    )
    bodies = {address(2): arrived(2)}
    assert unused_bodies(with_bodies(playing(manifest), bodies)) == ()
    assert unused_bodies(with_bodies(playing(), bodies)) == (arrived(2).digest,)


def test_one_training_takes_no_more_bodies_than_its_limit() -> None:
    """The rest stays for the next one."""
    bodies = {address(number): arrived(number) for number in range(2, MAX_EXTERNAL + 12)}
    chosen = unused_bodies(with_bodies(playing(), bodies))
    assert len(chosen) == MAX_EXTERNAL == len(set(chosen))


def test_one_training_takes_no_more_bytes_than_its_limit() -> None:
    """A body that does not fit is left out; a smaller one after it still fits."""
    bodies = {address(number): arrived(number, size=MAX_EXTERNAL_BYTES // 2) for number in (2, 3, 4)}
    assert len(unused_bodies(with_bodies(playing(), bodies))) == 2


def test_a_full_stage_is_not_waited_for() -> None:
    """When every place for a body is taken and all are here, no other peer's can come."""
    state = replace(playing(), peers={address(number): 0 for number in range(1, MAX_BODIES + 3)})
    bodies = {address(number): arrived(number) for number in range(2, MAX_BODIES + 1)}
    assert not all_bodies_settled(with_bodies(state, bodies))
    full = bodies | {address(MAX_BODIES + 1): arrived(MAX_BODIES + 1)}
    assert all_bodies_settled(with_bodies(state, full))
    fetching = full | {address(2): replace(arrived(2), state="fetching")}
    assert not all_bodies_settled(with_bodies(state, fetching))


# --- copies ---------------------------------------------------------------------------------------------------------


def test_a_likeness_to_a_body_that_is_gone_settles_nothing() -> None:
    """The other body may have been dropped meanwhile."""
    state = with_bodies(playing(), {address(2): arrived(2)})
    assert settle_copies(state, ROUND, address(2), (address(3),)) == (state, ())


def test_of_two_bodies_heard_by_catch_up_neither_is_the_copy() -> None:
    """Nothing is known of their order."""
    state = with_bodies(playing(), {address(number): arrived(number, announced_at=0.0) for number in (2, 3)})
    assert settle_copies(state, ROUND, address(2), (address(3),)) == (state, ())


def test_this_nodes_own_body_is_never_the_copy() -> None:
    """It knows that it made it, whenever the other one was heard of."""
    state = with_bodies(playing(), {ME: arrived(1, announced_at=50.0), address(2): arrived(2, announced_at=1.0)})
    assert settle_copies(state, ROUND, address(2), (ME,)) == (state, ())


def test_a_copy_that_was_refused_already_is_not_refused_again() -> None:
    """One reason is enough."""
    late = replace(arrived(3, announced_at=50.0), state="refused", reason="schema")
    state = with_bodies(playing(), {address(2): arrived(2), address(3): late})
    assert settle_copies(state, ROUND, address(2), (address(3),)) == (state, ())


# --- registration ---------------------------------------------------------------------------------------------------


def test_a_new_node_that_has_been_registered_is_no_longer_introduced() -> None:
    """Its delegation is not carried to the contract a second time."""
    message = object()
    state = replace(playing(), introduced={address(2): message, address(3): message})
    after = with_owner(state, address(2), address(9))
    assert after.introduced == {address(3): message}
    assert after.owners == {address(2): address(9)}
