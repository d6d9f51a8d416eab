"""Deployment, stages, rounds, seeds, registrations."""

from __future__ import annotations

import pytest

from contracts import Parameters
from protocols.identifiers import keccak256
from tests.contracts.conftest import STAGE, Refused, Swarm, parameters
from tools.local_chain import LocalChain

pytestmark = pytest.mark.integration


def seed_of_block(swarm: Swarm, number: int) -> bytes:
    block = swarm.chain.call("eth_getBlockByNumber", hex(number), False)
    return keccak256(bytes.fromhex(block["hash"][2:]) + bytes(12) + bytes.fromhex(swarm.address[2:]))


def test_a_fresh_coordinator_is_in_round_0_stage_0(swarm: Swarm) -> None:
    """Deployment opens the first stage and says so like any other."""
    round_number, stage, seed, deadline, opened = swarm.view("current")
    assert (round_number, stage, deadline - opened) == (0, 0, STAGE)
    assert swarm.view("seedOf", 0) == seed != bytes(32)
    assert swarm.view("deployedBlock") == int(swarm.receipt["blockNumber"], 16)
    assert swarm.view("manifestDigest") == b"m" * 32
    assert swarm.view("stageCount") == 2
    assert swarm.view("stageSeconds", 1) == STAGE


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"stage_seconds": ()}, "BadStages"),
        ({"stage_seconds": (1,) * 17}, "BadStages"),
        ({"stage_seconds": (60, 0)}, "BadStages"),
        ({"stage_seconds": (31 * 86_400,)}, "BadStages"),
        ({"winners": 0}, "BadLimit"),
        ({"winners": 17}, "BadLimit"),
        ({"anchor_blocks": 0}, "BadLimit"),
    ],
)
def test_senseless_parameters_are_refused(chain: LocalChain, changed: dict[str, object], error: str) -> None:
    """Nothing out of bounds can be deployed."""
    fields = {"stage_seconds": (60,), "manifest_digest": b"m" * 32, "anchor_blocks": 1, "winners": 3} | changed
    with pytest.raises(Refused, match=error):
        Swarm(chain, Parameters(**fields))


def test_sixteen_stages_keep_their_own_durations(chain: LocalChain) -> None:
    """Each stage lasts what was given for it, up to the most stages there can be."""
    seconds = tuple(range(10, 26))
    swarm = Swarm(chain, Parameters(stage_seconds=seconds, manifest_digest=b"m" * 32, anchor_blocks=1))
    assert tuple(swarm.view("stageSeconds", stage) for stage in range(16)) == seconds


def test_advance_before_the_deadline_is_refused(swarm: Swarm) -> None:
    """Nobody shortens a stage."""
    swarm.wait(STAGE - 3)
    with pytest.raises(Refused, match="TooEarly"):
        swarm.send(1, "advance")


def test_anybody_advances_at_the_deadline(swarm: Swarm) -> None:
    """A stranger may turn the clock, and the event carries what nodes need."""
    swarm.chain.call("evm_setNextBlockTimestamp", swarm.view("current")[3])
    (event,) = swarm.send(7, "advance")
    round_number, stage, seed, deadline, _ = swarm.view("current")
    assert (round_number, stage) == (0, 1)
    assert event.name == "StageAdvanced"
    assert event.fields == {"round": 0, "stage": 1, "seed": seed, "deadline": deadline}


def test_two_advances_do_not_skip_a_stage(swarm: Swarm) -> None:
    """Once advanced, the new stage lasts its time even where the old one was long overdue."""
    swarm.wait(10 * STAGE)
    swarm.send(1, "advance")
    with pytest.raises(Refused, match="TooEarly"):
        swarm.send(2, "advance")


def test_a_new_round_begins_with_a_new_seed(swarm: Swarm) -> None:
    """The first stage of a round is announced with the round."""
    first = swarm.view("current")[2]
    swarm.next_stage()
    swarm.wait(STAGE + 1)
    names = [event.name for event in swarm.send(1, "advance")]
    assert names == ["RoundAdvanced", "StageAdvanced"]
    assert swarm.view("current")[:2] == (1, 0)
    assert swarm.view("current")[2] != first


def test_the_sender_of_advance_cannot_choose_the_seed(swarm: Swarm) -> None:
    """Whoever advances, and however much later, the seed is the one of the block fixed before."""
    swarm.next_stage()
    anchor = swarm.view("anchorBlock")
    swarm.wait(STAGE + 1)
    snapshot = swarm.chain.call("evm_snapshot")
    seeds = set()
    for sender, later in ((1, 0), (2, 3), (3, 50)):
        swarm.mine(later + 1)
        swarm.send(sender, "advance")
        seeds.add(swarm.view("current")[2])
        assert swarm.chain.call("evm_revert", snapshot)
        snapshot = swarm.chain.call("evm_snapshot")
    assert seeds == {seed_of_block(swarm, anchor)}


def test_the_next_round_waits_for_its_seed(chain: LocalChain) -> None:
    """Before the anchor is mined nobody opens the next round, so nobody knows the seed when it is fixed."""
    swarm = Swarm(chain, parameters(stages=1, anchor=20))
    swarm.wait(STAGE + 1)
    with pytest.raises(Refused, match="SeedNotReady"):
        swarm.send(1, "advance")
    swarm.mine(20)
    swarm.send(1, "advance")
    assert swarm.view("current")[0] == 1


def test_an_anchor_too_old_is_replaced_by_arithmetic() -> None:
    """Where the chain forgot the anchor's hash, the last multiple of 256 blocks after it takes its place."""
    with LocalChain(block_seconds=None, arguments=("--hardfork", "cancun")) as chain:
        swarm = Swarm(chain, parameters(stages=1))
        anchor = swarm.view("anchorBlock")
        swarm.mine(700)
        swarm.send(1, "advance")
        assert swarm.view("current")[2] == seed_of_block(swarm, anchor + 512)


def test_a_registration_counts_from_the_next_round(swarm: Swarm) -> None:
    """While the next seed is unknown, a key can't have been made for it."""
    (event,) = swarm.send(1, "register")
    assert event.fields == {"node": swarm.accounts[1], "owner": swarm.accounts[1], "since": 1}
    assert swarm.view("registeredCount") == 1


def test_a_registration_after_the_seed_is_known_counts_a_round_later(swarm: Swarm) -> None:
    """Making keys until one gets easy questions is worth nothing."""
    swarm.next_stage()
    swarm.mine(3)
    (event,) = swarm.send(1, "register")
    assert event.fields["since"] == 2


def test_a_node_registers_once(swarm: Swarm) -> None:
    """A second registration is refused, and says why."""
    swarm.send(1, "register")
    with pytest.raises(Refused, match="AlreadyRegistered"):
        swarm.send(1, "register")


def test_cost_does_not_grow_with_the_swarm(chain: LocalChain) -> None:
    """The thirtieth node pays for registration and vote what the third does."""
    swarm = Swarm(chain, parameters(mode="open"))
    registered = [int(swarm.mined(number, "register")["gasUsed"], 16) for number in range(1, 31)]
    swarm.next_round()
    swarm.next_round()
    voted = [int(swarm.mined(number, "submitWinners", 1, [swarm.accounts[1]])["gasUsed"], 16) for number in (3, 30)]
    assert len(set(registered[1:])) == 1
    assert voted[0] == voted[1]
