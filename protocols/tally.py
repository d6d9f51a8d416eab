"""Who won a round, and who leads: from the contract's events alone, so that everybody gets the same result.

Votes for nodes of the voter's own owner are ignored, and an owner's votes together weigh at most one vote (or
`per_owner`). What that does not prevent: docs/votes.md.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from protocols.identifiers import Address

ONE_VOTE = 1_000_000
"""Votes and rewards are counted in millionths."""


class Registered(msgspec.Struct, frozen=True):
    """`PeerRegistered`: a node never changes its owner."""

    node: Address
    owner: Address


class Voted(msgspec.Struct, frozen=True):
    """One vote of a `VotesCounted` event; winners ascending."""

    round: int
    voter: Address
    winners: tuple[Address, ...]


class Rewarded(msgspec.Struct, frozen=True):
    """`RewardSubmitted`: a node's self-reported reward of a stage, in millionths."""

    round: int
    stage: int
    node: Address
    reward: int


class LeaderboardEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A node's entry: weight of the votes for it and sum of its own rewards in millionths, rounds in which it led."""

    node: Address
    owner: Address
    votes: int
    led: int
    reward: int


Owners = Mapping[Address, Address]
"""The owner of each node."""


def read_votes(round_number: int, names: Sequence[Address], packed: bytes) -> tuple[Voted, ...]:
    """Return the votes of a `VotesCounted` event: node (20 bytes) count (1) index (2) * count, concatenated.

    Raises ValueError if the bytes are cut short or an index is out of range.
    """
    votes = []
    at = 0
    while at < len(packed):
        end = at + 21 + 2 * packed[min(at + 20, len(packed) - 1)]
        places = [int.from_bytes(packed[place : place + 2], "big") for place in range(at + 21, end, 2)]
        if end > len(packed) or max(places, default=0) >= len(names):
            raise ValueError(f"the votes of round {round_number} are no votes of this contract")
        winners = tuple(str(names[place]).lower() for place in places)
        votes.append(Voted(round_number, "0x" + packed[at : at + 20].hex(), winners))
        at = end
    return tuple(votes)


def tally(votes: Iterable[Voted], owners: Owners, per_owner: int = 1) -> dict[Address, int]:
    """Return the weight of the votes for each node in one round, in millionths; nodes without votes are left out.

    Each vote of an owner with k voting nodes weighs `per_owner` / k, at most 1. Each winner it names gets that weight.
    """
    by_voter = {vote.voter: vote for vote in votes}
    voting = Counter(owners[voter] for voter in by_voter)
    weights: defaultdict[Address, int] = defaultdict(int)
    for vote in by_voter.values():
        owner = owners[vote.voter]
        weight = min(ONE_VOTE, ONE_VOTE * per_owner // voting[owner])
        for winner in vote.winners:
            if owners[winner] != owner:
                weights[winner] += weight
    return dict(weights)


def leaders(weights: Mapping[Address, int]) -> tuple[Address, ...]:
    """Return the nodes with the most votes of a round, ascending; none without votes."""
    most = max(weights.values(), default=0)
    return tuple(sorted(node for node, weight in weights.items() if weight == most))


def leaderboard(
    registered: Iterable[Registered], votes: Iterable[Voted], rewards: Iterable[Rewarded], per_owner: int = 1
) -> tuple[LeaderboardEntry, ...]:
    """Return every registered node's entry over all rounds, the best first.

    Sorted by votes, then by rounds led, then by address. Rewards are self-reported, so they are shown and decide
    nothing. An event given twice counts once.
    """
    owners = {one.node: one.owner for one in registered}
    by_round: defaultdict[int, list[Voted]] = defaultdict(list)
    for vote in votes:
        by_round[vote.round].append(vote)
    tallies = [tally(one, owners, per_owner) for one in by_round.values()]
    weights, led, sums = Counter[Address](), Counter[Address](), Counter[Address]()
    for one in tallies:
        weights.update(one)
        led.update(leaders(one))
    for reported in set(rewards):
        sums[reported.node] += reported.reward
    entries = (
        LeaderboardEntry(node=node, owner=owner, votes=weights[node], led=led[node], reward=sums[node])
        for node, owner in owners.items()
    )
    return tuple(sorted(entries, key=lambda one: (-one.votes, -one.led, one.node)))
