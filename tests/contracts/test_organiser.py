"""What the organiser may do, and nobody else."""

from __future__ import annotations

import pytest

from node.chain.relay.batch_calls import registrations_call, revocations_call
from tests.contracts.conftest import STAGE, Refused, Swarm, skipped

pytestmark = pytest.mark.integration

PEER = "/ip4/192.0.2.7/tcp/38331/p2p/16Uiu2HAmExample"


def test_bootnodes_come_and_go(swarm: Swarm) -> None:
    """Nodes read the list from the contract."""
    for port in (1, 2, 3):
        swarm.send(0, "addBootnode", f"{PEER}{port}")
    swarm.send(0, "removeBootnode", f"{PEER}1")
    assert sorted(swarm.view("bootnodes")) == [f"{PEER}2", f"{PEER}3"]


def test_bootnodes_are_bounded(swarm: Swarm) -> None:
    """Neither their number nor their length grows without end, and none is listed twice."""
    for bootnode in ("", "x" * 257):
        with pytest.raises(Refused, match="BadBootnode"):
            swarm.send(0, "addBootnode", bootnode)
    for port in range(32):
        swarm.send(0, "addBootnode", f"{PEER}{port}")
    with pytest.raises(Refused, match="BootnodesFull"):
        swarm.send(0, "addBootnode", PEER)
    swarm.send(0, "removeBootnode", f"{PEER}31")
    with pytest.raises(Refused, match="BadBootnode"):
        swarm.send(0, "addBootnode", f"{PEER}0")
    with pytest.raises(Refused, match="UnknownBootnode"):
        swarm.send(0, "removeBootnode", "unknown")


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        ("addBootnode", [PEER]),
        ("removeBootnode", [PEER]),
        ("setManifest", [b"n" * 32]),
        ("offerOrganiser", ["0x" + "11" * 20]),
        ("setRoles", ["0x" + "11" * 20, 3]),
        ("pause", [60]),
        ("resume", []),
    ],
)
def test_strangers_do_not_organise(swarm: Swarm, function: str, arguments: list[object]) -> None:
    """Each of the organiser's functions is the organiser's alone."""
    with pytest.raises(Refused, match="NotAllowed"):
        swarm.send(1, function, *arguments)


def test_a_manifest_takes_force_two_rounds_ahead(swarm: Swarm) -> None:
    """Nodes have a whole round to fetch it, and it never changes within a round."""
    (event,) = swarm.send(0, "setManifest", b"n" * 32)
    assert event.fields == {"digest": b"n" * 32, "fromRound": 2}
    swarm.next_round()
    assert swarm.view("manifestDigest") == b"m" * 32
    swarm.next_round()
    assert swarm.view("manifestDigest") == b"n" * 32
    swarm.send(0, "setManifest", b"o" * 32)
    assert swarm.view("manifestDigest") == b"n" * 32


def test_the_role_is_handed_over_in_two_steps(swarm: Swarm) -> None:
    """A mistyped address does not lose the swarm: the candidate has to accept."""
    swarm.send(0, "offerOrganiser", swarm.accounts[1])
    with pytest.raises(Refused, match="NotOffered"):
        swarm.send(2, "acceptOrganiser")
    swarm.send(1, "acceptOrganiser")
    assert swarm.view("organiser") == swarm.accounts[1]
    with pytest.raises(Refused, match="NotAllowed"):
        swarm.send(0, "addBootnode", PEER)


def test_parts_of_the_work_are_given_to_others(swarm: Swarm) -> None:
    """A keeper of bootnodes sets no manifest and gives no roles; what was given is taken back."""
    swarm.send(0, "setRoles", swarm.accounts[1], 1)
    swarm.send(0, "setRoles", swarm.accounts[2], 2)
    swarm.send(1, "addBootnode", PEER)
    swarm.send(2, "setManifest", b"n" * 32)
    for sender, function, argument in ((1, "setManifest", b"o" * 32), (2, "removeBootnode", PEER), (1, "pause", 60)):
        with pytest.raises(Refused, match="NotAllowed"):
            swarm.send(sender, function, argument)
    with pytest.raises(Refused, match="NotAllowed"):
        swarm.send(1, "setRoles", swarm.accounts[1], 3)
    swarm.send(0, "setRoles", swarm.accounts[1], 0)
    with pytest.raises(Refused, match="NotAllowed"):
        swarm.send(1, "removeBootnode", PEER)


def test_a_pause_stops_the_swarm_and_lapses_by_itself(swarm: Swarm) -> None:
    """Clock, votes, rewards and registrations wait; afterwards the stage has the time that it had left."""
    swarm.counted(1)
    now, stage, seed, deadline, _ = swarm.view("current")
    (event,) = swarm.send(0, "pause", 1000)
    assert event.fields["deadline"] == swarm.view("current")[3] == deadline + 1000
    swarm.wait(900)
    with pytest.raises(Refused, match="Paused"):
        swarm.send(1, "advance")
    with pytest.raises(Refused, match="Paused"):
        swarm.send(1, "submitReward", now, stage, seed, 1)
    with pytest.raises(Refused, match="Paused"):
        swarm.register(2)
    with pytest.raises(Refused, match="Paused"):
        swarm.send(1, "commitVote", now - 1, swarm.view("seedOf", now - 1), b"c" * 32)
    swarm.wait(110)
    swarm.register(2)
    with pytest.raises(Refused, match="TooEarly"):
        swarm.send(1, "advance")
    swarm.wait(STAGE)
    swarm.send(1, "advance")


def test_owners_revoke_and_renew_during_a_pause(swarm: Swarm) -> None:
    """A stolen key is not helped by a pause."""
    swarm.register(1, 2)
    swarm.send(0, "pause", 1000)
    events = swarm.submit(registrations_call([swarm.delegation(3), swarm.delegation(1, 2)]))
    assert skipped(events) == {0: "RegistrationsPaused"}
    swarm.submit(revocations_call([swarm.revocation(1, 2)]))


def test_pauses_do_not_follow_each_other(swarm: Swarm) -> None:
    """Neither a long one, nor a second before the swarm ran for three days: not by the next organiser either."""
    for seconds in (0, 86_401):
        with pytest.raises(Refused, match="BadLimit"):
            swarm.send(0, "pause", seconds)
    swarm.send(0, "pause", 86_400)
    with pytest.raises(Refused, match="PausedLately"):
        swarm.send(0, "pause", 86_400)
    swarm.send(0, "offerOrganiser", swarm.accounts[1])
    swarm.send(1, "acceptOrganiser")
    swarm.wait(86_400 + 3 * 86_400 - 60)
    with pytest.raises(Refused, match="PausedLately"):
        swarm.send(1, "pause", 1)
    swarm.wait(61)
    swarm.send(1, "pause", 1)


def test_a_pause_can_be_ended_early(swarm: Swarm) -> None:
    """The deadline comes back by what was not used, and the next pause is as far away."""
    deadline = swarm.view("current")[3]
    swarm.send(0, "pause", 1000)
    swarm.wait(100)
    swarm.send(0, "resume")
    assert deadline + 100 <= swarm.view("current")[3] <= deadline + 105
    with pytest.raises(Refused, match="NotPaused"):
        swarm.send(0, "resume")
    with pytest.raises(Refused, match="PausedLately"):
        swarm.send(0, "pause", 1)


def test_a_pause_after_the_deadline_gives_no_time_back(swarm: Swarm) -> None:
    """An overdue stage stays overdue."""
    swarm.wait(STAGE + 5)
    deadline = swarm.view("current")[3]
    swarm.send(0, "pause", 100)
    swarm.send(0, "resume")
    assert swarm.view("current")[3] == deadline
    swarm.send(5, "advance")
