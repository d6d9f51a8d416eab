"""One attack in a process of its own: `python -m tests.redteam.network.hostile_process ORDER` (JSON, see `Order`).

It attacks until it is killed, and writes what it has done to a file twice a second.
"""

from __future__ import annotations

import logging
import sys
from collections import Counter
from pathlib import Path
from random import Random

import msgspec
import structlog
import trio

from tests.redteam.hostile_node import speak_from, stand_back
from tests.redteam.network import connection_attacks, gossip_attacks
from tests.redteam.network.attacks import Attack, Battlefield
from tests.redteam.network.stranger import Victim

ATTACKS: dict[str, Attack] = {
    attack.__name__: attack for attack in (*connection_attacks.ATTACKS, *gossip_attacks.ATTACKS)
}
ADDRESS = "127.0.66.1"
"""Where the hostile process dials from: bans of this address concern nobody else on this machine."""


class Order(msgspec.Struct, frozen=True):
    """What a hostile process is to do: an attack by name, on these nodes, with these dice."""

    attack: str
    victims: tuple[Victim, ...]
    facts: str
    done: str
    seed: int


async def attack(order: Order) -> None:
    """Attack until killed."""
    done: Counter[str] = Counter()
    field = Battlefield(order.victims, Path(order.facts), Random(order.seed), done)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_write_again, Path(order.done), done)
        nursery.start_soon(ATTACKS[order.attack], field)


async def _write_again(path: Path, done: Counter[str]) -> None:
    while True:
        fresh = path.with_suffix(".new")
        fresh.write_bytes(msgspec.json.encode(dict(done)))
        fresh.replace(path)
        await trio.sleep(0.5)


def main(order: str) -> None:
    """Attack with what honest nodes leave of the processor."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    stand_back()
    speak_from(ADDRESS)
    trio.run(attack, msgspec.json.decode(order, type=Order))


if __name__ == "__main__":
    main(sys.argv[1])
