"""Deployment, stages, rounds, seeds, early close."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest

from contracts import Parameters, load_artifact
from node.chain.contract.abi import Abi
from node.localnet.local_chain import ChainCallError, LocalChain
from protocols.identifiers import keccak256
from protocols.voting import vote_commitment
from tests.contracts.conftest import STAGE, Refused, Swarm, parameters

pytestmark = pytest.mark.integration

SALT = b"s" * 32


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
        ({"quorum": 101, "earliest": 1}, "BadLimit"),
        ({"quorum": 50, "earliest": 0}, "BadLimit"),
        ({"quorum": 0, "earliest": 10}, "BadLimit"),
    ],
)
def test_senseless_parameters_are_refused(chain: LocalChain, changed: dict[str, Any], error: str) -> None:
    """Nothing out of bounds can be deployed."""
    fields: dict[str, Any] = {
        "stage_seconds": (60,),
        "manifest_digest": b"m" * 32,
        "anchor_blocks": 1,
        "winners": 3,
    } | changed
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
    """A round's first stage is announced as the round's opening, with all that nodes need."""
    first = swarm.view("current")[2]
    swarm.next_stage()
    swarm.wait(STAGE + 1)
    (event,) = swarm.send(1, "advance")
    round_number, stage, seed, deadline, _ = swarm.view("current")
    assert (event.name, round_number, stage) == ("RoundAdvanced", 1, 0)
    assert event.fields == {"round": 1, "seed": seed, "deadline": deadline}
    assert seed != first


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


def test_a_wrapper_that_waits_for_a_good_seed_gets_the_same_as_everybody(swarm: Swarm) -> None:
    """A contract that turns the clock only for a seed to its liking can but try again, with the same result."""
    swarm.next_stage()
    anchor = swarm.view("anchorBlock")
    swarm.wait(STAGE + 1)
    abi = Abi(load_artifact("test/SeedPicker").abi)
    picker = swarm.create("test/SeedPicker")
    unwanted = seed_of_block(swarm, anchor)[31]
    for _ in range(5):
        swarm.mine(3)
        with pytest.raises(ChainCallError):
            swarm.chain.call("eth_call", {"to": picker, "data": abi.call("advanceIfLucky", swarm.address, unwanted)})
    swarm.send(2, "advance")
    assert swarm.view("current")[2] == seed_of_block(swarm, anchor)


def test_time_is_told_wrongly_by_no_stage_of_the_past(swarm: Swarm) -> None:
    """The seeds of the last four rounds are known, others are not."""
    seeds = []
    for _ in range(6):
        seeds.append(swarm.view("current")[2])
        swarm.next_round()
    seeds.append(swarm.view("current")[2])
    assert [swarm.view("seedOf", number) for number in range(8)] == [bytes(32)] * 3 + seeds[3:] + [bytes(32)]
    assert len(set(seeds)) == 7


# --- early close ------------------------------------------------------------------------------------------------------


@pytest.fixture(params=[(1, "sealed"), (2, "sealed"), (2, "open")], ids=str)
def hasty(request: pytest.FixtureRequest, chain: LocalChain) -> Swarm:
    """Closes early for two thirds of last round's voters, after 20 seconds; accounts 1 to 3 voted for rounds."""
    stages, mode = request.param
    swarm = Swarm(chain, parameters(stages=stages, mode=mode, quorum=67, earliest=20))
    swarm.counted(1, 2, 3)
    first = swarm.view("current")[0]
    for _ in range(4 * stages):
        swarm.next_stage()
        vote_all(swarm, mode, first, 1, 2, 3)
    while swarm.view("current")[1]:
        swarm.next_stage()
    return swarm


def vote_all(swarm: Swarm, mode: str, first: int, *voters: int) -> None:
    """Cast what the present stage takes of each."""
    now = swarm.view("current")[0]
    for voter in voters:
        for said in range(max(first, now - 2), now):
            winner = [swarm.accounts[1 if voter != 1 else 2]]
            seed = swarm.view("seedOf", said)
            made = vote_commitment(said, seed, swarm.accounts[voter], winner, SALT)
            calls = [("revealVote", (said, winner, SALT)), ("commitVote", (said, seed, made))]
            for function, arguments in calls if mode == "sealed" else [("submitWinners", (said, seed, winner))]:
                with suppress(Refused):
                    swarm.send(voter, function, *arguments)


def report(swarm: Swarm, node: int) -> None:
    """Say that a node is done with the present stage."""
    now, stage, seed = swarm.view("current")[:3]
    swarm.send(node, "submitReward", now, stage, seed, 1)


def test_a_stage_closes_early_once_enough_of_last_rounds_voters_are_done(hasty: Swarm) -> None:
    """Two of three are not two thirds and one percent; all three are, but not before the minimum."""
    report(hasty, 1)
    report(hasty, 2)
    hasty.wait(25)
    with pytest.raises(Refused, match="TooEarly"):
        hasty.send(9, "advance")
    report(hasty, 3)
    assert hasty.view("readiness") == (3, 3)
    hasty.send(9, "advance")


def test_a_stage_does_not_close_before_its_minimum(hasty: Swarm) -> None:
    """However many are done: relays need their turns."""
    for node in (1, 2, 3):
        report(hasty, node)
    with pytest.raises(Refused, match="TooEarly"):
        hasty.send(9, "advance")


def test_sybils_do_not_close_a_stage(hasty: Swarm) -> None:
    """Nodes that did not vote last time, however many, neither count as done nor as to be waited for."""
    sybils = range(10, 30)
    hasty.counted(*sybils)
    while hasty.view("current")[1]:
        hasty.next_stage()
    assert hasty.view("readiness")[1] in (0, 3)
    for sybil in sybils:
        report(hasty, sybil)
    hasty.wait(25)
    assert hasty.view("readiness")[0] == 0
    with pytest.raises(Refused, match="TooEarly"):
        hasty.send(9, "advance")


def test_early_close_is_off_by_default(swarm: Swarm) -> None:
    """Without a quorum nobody shortens a stage."""
    swarm.counted(1)
    report(swarm, 1)
    assert swarm.view("readiness") == (0, 0)
    swarm.wait(STAGE - 5)
    with pytest.raises(Refused, match="TooEarly"):
        swarm.send(1, "advance")
