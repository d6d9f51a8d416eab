"""Whose bodies are kept where there are more than places: by lot, whoever announces first."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from node.machine import inputs as i
from node.machine.places import MAX_UNKNOWN_BYTES, MAX_UNKNOWN_PEERS
from node.machine.state import MAX_BODIES, BodyRecord, State, initial
from node.machine.step import step
from protocols.identifiers import body_digest
from protocols.lots import OWNER_PLACES, by_lot, lot
from protocols.manifest import Manifest

SEED = b"\7" * 32
ME = "0x" + f"{1:040x}"


def peer(number: int) -> str:
    """Return the address of a numbered peer; this node is not among them."""
    return f"0x{number + 2:040x}"


def playing(peers: int, owners: dict[str, str], score: float = 1.0) -> State:
    """Return a state in round 5 with so many registered peers, all of which have sent valid bodies before."""
    names = [peer(number) for number in range(peers)]
    return replace(
        initial(ME, Manifest(name="places")),
        round=5,
        stage=0,
        seed=SEED,
        seeds={5: SEED},
        peers=dict.fromkeys((ME, *names), 0),
        owners=owners,
        peer_scores=dict.fromkeys(names, score),
    )


def announced(state: State, numbers: list[int], size: int = 1_000) -> State:
    """Have peers announce bodies in this order."""
    for number in numbers:
        body = body_digest(b"%d" % number)
        told = i.RolloutsAnnounced(peer(number), 5, 0, body, size, False, False, (), False)
        state, _ = step(state, i.Stamped(1.0, told))
    return state


def kept(state: State) -> set[int]:
    """Return the numbers of the peers that have places."""
    return {int(name, 16) - 2 for name in state.bodies_by_step.get(5, {}) if name != ME}


def own(peers: int) -> dict[str, str]:
    """Return an owner of its own for each peer."""
    return {peer(number): f"0x{number + 1_000_000:040x}" for number in range(peers)}


@pytest.mark.parametrize("seed", range(5))
def test_places_do_not_depend_on_the_order_of_arrival(seed: int) -> None:
    """Four hundred peers in any order: the same ones have places, those with the lowest lots."""
    order = list(range(400))
    Random(seed).shuffle(order)
    state = announced(playing(400, own(400)), order)
    lowest = sorted(range(400), key=lambda number: lot(SEED, peer(number)))[: MAX_BODIES - 1]
    assert kept(state) == set(lowest)


def test_keys_of_few_owners_that_come_first_crowd_nobody_out() -> None:
    """256 keys of eight owners announce before fifty honest peers: all fifty have places, and each owner its eight."""
    owners = {peer(number): f"0x{number % 8 + 1:040x}" for number in range(256)}
    honest = range(256, 306)
    owners |= {peer(number): f"0x{number + 1_000_000:040x}" for number in honest}
    state = announced(playing(306, owners), list(range(306)))
    assert set(honest) <= kept(state)
    by_owner = Counter(owners[peer(number)] for number in kept(state) if number < 256)
    assert min(by_owner.values()) >= OWNER_PLACES


def test_keys_of_many_owners_get_no_more_than_their_share() -> None:
    """256 owners announce before as many honest peers: each side has about half of the places, by lot."""
    state = announced(playing(512, own(512)), list(range(512)))
    first = sum(number < 256 for number in kept(state))
    assert 100 < first < 156


def test_unknown_peers_share_their_places_by_lot() -> None:
    """New identities that announce first do not shut out the one that comes last."""
    state = announced(playing(300, own(300), score=0.0), list(range(300)))
    lowest = sorted(range(300), key=lambda number: lot(SEED, peer(number)))[:MAX_UNKNOWN_PEERS]
    assert kept(state) == set(lowest)


def test_a_body_that_was_trained_on_keeps_its_place() -> None:
    """What an update was made with is not forgotten, whatever lot comes later."""
    worst = max(range(400), key=lambda number: lot(SEED, peer(number)))
    state = announced(playing(400, own(400)), [worst])
    record = BodyRecord(body_digest(b"used"), 1_000, "arrived", 2, 1.0, used=True)
    state = replace(state, bodies_by_step={5: {peer(worst): record}})
    state = announced(state, [number for number in range(400) if number != worst])
    assert worst in kept(state)
    assert len(kept(state)) == MAX_BODIES - 1


def test_those_who_made_nothing_hold_no_places() -> None:
    """Peers that announce that they have no rollouts give way as others do."""
    state = announced(playing(600, own(600)), list(range(300)), size=0)
    state = announced(state, list(range(300, 600)))
    lowest = sorted(range(600), key=lambda number: lot(SEED, peer(number)))[: MAX_BODIES - 1]
    assert kept(state) == set(lowest)


@given(st.lists(st.integers(0, 6), max_size=80), st.binary(min_size=32, max_size=32))
def test_no_owner_has_another_turn_before_all_have_theirs(owned: list[int], seed: bytes) -> None:
    """In any beginning of the order an owner is ahead of another that still waits by a turn's places at most."""
    owners = {peer(number): f"0x{owner + 1:040x}" for number, owner in enumerate(owned)}
    order = by_lot(owners, owners, seed)
    assert sorted(order) == sorted(owners)
    for end in range(len(order)):
        begun, waiting = Counter(owners[each] for each in order[:end]), {owners[each] for each in order[end:]}
        for owner in waiting:
            assert begun[owner] >= (max(begun.values(), default=0) // OWNER_PLACES - 1) * OWNER_PLACES


def test_a_lot_is_another_one_in_another_round() -> None:
    """Who has a place is drawn by the seed: over many rounds everybody's turn comes."""
    counts = Counter[int]()
    for number in range(100):
        seed = number.to_bytes(32, "big")
        counts.update(sorted(range(400), key=lambda each: lot(seed, peer(each)))[: MAX_BODIES - 1])
    assert min(counts.values()) > 40


def test_unknown_peers_share_their_bytes_by_lot() -> None:
    """Large bodies of new identities: where bytes are scarce, those with the best lots are kept, whoever came first."""
    size = MAX_UNKNOWN_BYTES // 10
    state = announced(playing(40, own(40), score=0.0), list(range(40)), size=size)
    lowest = sorted(range(40), key=lambda number: lot(SEED, peer(number)))[:10]
    assert kept(state) == set(lowest)


def test_a_large_body_displaces_as_many_small_ones_as_it_needs() -> None:
    """It has the best lot of all: the worst of the others go until it fits, and no more of them."""
    order = sorted(range(60), key=lambda number: lot(SEED, peer(number)))
    best, others = order[0], order[1:]
    state = announced(playing(60, own(60), score=0.0), others, size=MAX_UNKNOWN_BYTES // len(others))
    assert kept(state) == set(others)
    state = announced(state, [best], size=MAX_UNKNOWN_BYTES // 2)
    assert best in kept(state)
    left = len(kept(state)) - 1
    assert kept(state) == {best, *others[:left]}
    assert len(others) // 2 - 1 <= left <= len(others) // 2


def test_who_lost_its_place_is_counted_and_told_like_who_found_none() -> None:
    """The reason is the same, `crowded`, so that an operator sees that places are scarce."""
    state = announced(playing(300, own(300)), list(range(300)))
    assert state.refusals["crowded"] == 300 - (MAX_BODIES - 1)
    assert state.totals.bodies_refused == state.refusals["crowded"]


@pytest.mark.parametrize("owners", [{}, {peer(number): "" for number in range(20)}])
def test_without_owners_each_key_is_its_own(owners: dict[str, str]) -> None:
    """RL Swarm's contract knows no owners: the order is by lot alone."""
    names = [peer(number) for number in range(20)]
    assert by_lot(names, owners, SEED) == sorted(names, key=lambda name: lot(SEED, name))
