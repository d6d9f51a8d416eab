"""What the organiser may do, and nobody else."""

from __future__ import annotations

import pytest

from tests.contracts.conftest import Refused, Swarm

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
    ],
)
def test_strangers_do_not_organise(swarm: Swarm, function: str, arguments: list[object]) -> None:
    """Each of the organiser's functions is the organiser's alone."""
    with pytest.raises(Refused, match="NotOrganiser"):
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
    with pytest.raises(Refused, match="NotOrganiser"):
        swarm.send(0, "addBootnode", PEER)
