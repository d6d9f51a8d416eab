"""Snapshots of swarms that the demo's tests look at."""

from node.localnet.demo_watch import SeenVote, Sighting, Snapshot, WatchedPeer
from node.machine.status import CurvePoint, RewardPoint, Status, Totals

ADDRESSES = tuple(f"0x{number:040x}" for number in range(1, 5))


def status(number: int, *, round_number: int, curve: tuple[tuple[int, float], ...], **more: object) -> Status:
    fields: dict[str, object] = {
        "address": ADDRESSES[number - 1], "phase": "working", "round": round_number, "stage": 0, "deadline": 104.0,
        "registered": True, "chain": "present", "network": "present", "trainer": "present", "connected": 3,
        "reward": 0.5, "accuracy": curve[-1][1] if curve else 0.0, "rewards": (RewardPoint(2, 0.5),),
        "curve": tuple(CurvePoint(number, 0.0, accuracy) for number, accuracy in curve),
        "totals": Totals(rounds_worked=3, updates=6, own_groups=30, external_groups=20),
        **more,
    }  # fmt: skip
    return Status(**fields)  # type: ignore[arg-type]


def sighting(number: int, seen: Status | None, skips: tuple[str, ...] = ()) -> Sighting:
    peer = WatchedPeer(number=number, name=f"quick brown fox{number}", address=ADDRESSES[number - 1])
    return Sighting(peer=peer, status=seen, skips=skips)


def snapshot(*sightings: Sighting, votes: tuple[SeenVote, ...] = ()) -> Snapshot:
    return Snapshot(at=100.0, sightings=sightings, votes=votes, memory=2**30, memory_peak=3 * 2**30)


def vote(round_number: int, voter: int, *winners: int) -> SeenVote:
    return SeenVote(
        round=round_number,
        voter=ADDRESSES[voter - 1],
        winners=tuple(ADDRESSES[winner - 1] for winner in winners),
        transaction="0x" + f"{round_number:064x}",
    )
