"""What one hostile process does to the connections, frames and control messages of honest nodes.

An attack runs until it is cancelled and counts what it did. `docs/threat-model.md` says what must stop each.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random

import msgspec
import trio

from tests.redteam.network.stranger import RefusedError, Stranger, Victim, stranger


class Battlefield(msgspec.Struct, frozen=True):
    """What an attack is given: the honest nodes, the file of facts, its dice, and where it counts."""

    victims: tuple[Victim, ...]
    facts: Path
    dice: Random
    done: Counter[str]

    @property
    def victim(self) -> Victim:
        """The node that an attack on one node turns to."""
        return self.victims[0]


Attack = Callable[[Battlefield], Awaitable[None]]
Step = Callable[[Stranger, int], Awaitable[None]]


async def again_and_again(field: Battlefield, step: Step, *, subscribed: bool = True) -> None:
    """Connect, repeat a step while the victim takes it, and come back under a new name when it does not."""
    turn = 0
    while True:
        try:
            async with stranger(field.victim, subscribed=subscribed) as peer:
                field.done["connections"] += 1
                while peer.alive:
                    turn += 1
                    await step(peer, turn)
                    field.done["steps"] += 1
                field.done["cut"] += 1
        except RefusedError:
            field.done["refused"] += 1
            await trio.sleep(0.2)
        except Exception as error:  # noqa: BLE001 - whatever cuts an attacker off, it comes back
            field.done["cut"] += 1
            field.done[type(_first(error)).__name__] += 1
            await trio.lowlevel.checkpoint()


async def several(number: int, work: Callable[[], Awaitable[None]]) -> None:
    """Run as many copies of some work at once."""
    async with trio.open_nursery() as nursery:
        for _ in range(number):
            nursery.start_soon(work)


async def read_to_end(stream: trio.SocketStream) -> None:
    """Read until the other side closes."""
    while await stream.receive_some(4096):
        pass


def random_bytes(dice: Random, most: int) -> bytes:
    """Return up to `most` bytes."""
    return os.urandom(dice.randint(1, most))


def _first(error: BaseException) -> BaseException:
    return _first(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error
