"""Rounds, stages and turns: arithmetic on the coordinator's clock."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from protocols.identifiers import Address, Seed

RELAY_START, RELAY_END = 0.4, 0.9
"""The part of a stage in which relayers submit messages, as shares of its time; later a node sends its own."""
RELAY_TURNS = 3
"""Turns in a stage if there are no more relayers than that."""
MAX_RELAYERS = 16
"""Relayers drawn for a turn in one stage; also the most turns that a node waits for before it opens the next stage."""


def step_number(round_number: int, stage: int, stages: int) -> int:
    """Return the number of stages since the deployment's first one: the contract's clock."""
    return round_number * stages + stage


def commit_step(round_number: int, stages: int) -> int:
    """Return the step in which votes on a round are committed (sealed) or cast (open): the one after its last."""
    return step_number(round_number + 1, 0, stages)


def reveal_step(round_number: int, stages: int) -> int:
    """Return the step in which sealed votes on a round are revealed."""
    return commit_step(round_number, stages) + 1


def turn_order(peers: Iterable[Address], seed: Seed, round_number: int, stage: int) -> tuple[Address, ...]:
    """Return the peers in the order in which they may send `advance` for this stage: the same for everybody, fair."""
    step = round_number.to_bytes(8, "big") + stage.to_bytes(4, "big")

    def draw(peer: Address) -> bytes:
        return hashlib.blake2b(seed + step + bytes.fromhex(peer[2:]), digest_size=8, person=b"swarm-turn").digest()

    return tuple(sorted(peers, key=draw))


def turn_delay(me: Address, order: tuple[Address, ...], turn_seconds: float) -> float:
    """Return the seconds after the deadline at which it is `me`'s turn to advance; peers not in `order` come last.

    Nobody waits for more than `MAX_RELAYERS` others, so keys that never take their turn delay a stage by no more than
    that. All peers after these share one turn. Each simulates first, so few pay for a transaction that comes too late.
    """
    place = order.index(me) if me in order else len(order)
    return min(place, MAX_RELAYERS) * turn_seconds


def relay_turns(
    me: Address, relayers: Iterable[Address], seed: Seed, round_number: int, stage: int
) -> tuple[float, ...]:
    """Return the shares of the stage's time at which `me` submits relayed messages; none if it drew no turn.

    Each drawn relayer has a turn, in an order that nobody chose. If there are few, they take several turns each, so
    that a message missed in one turn is submitted by the next relayer, or by the same one in a second attempt.
    """
    order = turn_order(set(relayers), seed, round_number, stage)[:MAX_RELAYERS]
    turns = max(RELAY_TURNS, len(order)) if order else 0
    every = (RELAY_END - RELAY_START) / max(1, turns)
    return tuple(RELAY_START + every * turn for turn in range(turns) if order[turn % len(order)] == me)
