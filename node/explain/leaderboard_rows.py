"""The leaderboard as `swarm leaderboard` shows it: `protocols.tally` with names. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from node.explain.report_text import aligned, call, counted
from node.explain.round_facts import Named
from node.identity import name_of
from protocols.identifiers import Address
from protocols.tally import ONE_VOTE, Registered, Rewarded, Voted, leaderboard

SHOWN = 25


class LeaderboardRow(msgspec.Struct, frozen=True, kw_only=True):
    """A node's place: weight of the votes for it, rounds in which it led, sum of its self-reported rewards."""

    place: int
    node: Named
    votes: float
    led: int
    reward: float


class Leaderboard(msgspec.Struct, frozen=True, kw_only=True):
    """The leaderboard of the rounds `first` to `last`, from `votes` votes on chain."""

    contract: Address
    chain: int
    first: int
    last: int
    votes: int
    places: tuple[LeaderboardRow, ...]


def places_of(
    registered: Sequence[Registered],
    votes: Sequence[Voted],
    rewards: Sequence[Rewarded],
    peer_ids: Mapping[Address, str],
) -> tuple[LeaderboardRow, ...]:
    """Return every registered node's place, best first. Nodes with equal votes and rounds led share a place."""
    found: list[LeaderboardRow] = []
    for number, one in enumerate(leaderboard(registered, votes, rewards), 1):
        peer_id = peer_ids.get(one.node, "")
        node = Named(address=one.node, name=name_of(peer_id) if peer_id else "", owner=one.owner)
        votes_for, last = one.votes / ONE_VOTE, found[-1] if found else None
        tied = last is not None and (last.votes, last.led) == (votes_for, one.led)
        place = last.place if last is not None and tied else number
        found.append(LeaderboardRow(place=place, node=node, votes=votes_for, led=one.led, reward=one.reward / ONE_VOTE))
    return tuple(found)


def board_text(board: Leaderboard) -> str:
    """Return the leaderboard as text."""
    head = ["place", "node", "owner", "votes", "led", "own rewards"]
    table = [
        [
            str(each.place),
            call(each.node),
            each.node.owner,
            f"{each.votes:.2f}",
            str(each.led),
            f"{each.reward:.2f}",
        ]
        for each in board.places[:SHOWN]
    ]
    hidden = len(board.places) - SHOWN
    lines = [
        f"Rounds {board.first} to {board.last} of the contract {board.contract} on chain {board.chain}: "
        f"{counted(board.votes, 'vote')}",
        "",
        *aligned([head, *table], right={0, 3, 4, 5}),
        *([f"       and {hidden} more (--json has them)"] if hidden > 0 else []),
        "",
        "Votes for nodes of the voter's own owner do not count; an owner's votes in a round weigh one in total.",
        "Rewards are self-reported and decide nothing.",
    ]
    return "\n".join(lines)
