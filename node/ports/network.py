"""What the node asks of the network, and what it tells the network of the chain."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import msgspec

from node.machine.commands import GossipCommand
from node.ports.service import Service
from protocols.identifiers import Address, Digest, Seed


class RoundWindow(msgspec.Struct, frozen=True, kw_only=True):
    """What the network's validator must know of the chain: replaced whole whenever the machine's view changes.

    `seeds` maps each round whose rollouts are still accepted to its seed; `peers` holds who may announce in `round`.
    """

    swarm: Digest
    round: int
    stage: int
    stages: int
    seeds: dict[int, Seed]
    peers: frozenset[Address]


class NetworkService(Service[GossipCommand], Protocol):
    """The swarm's network, as the rest of the node sees it.

    It reports `NetworkChanged`, `RolloutsAnnounced`, `DoppelgangerDetected`, `NodeIntroduced`, and `RolloutsArrived` or
    `RolloutsRefused` for each `FetchRollouts`. State outlives a restart of `run`.
    """

    @property
    def counters(self) -> Mapping[str, int]:
        """Announcements, bodies and faults of peers by reason, since the process began."""

    @property
    def connections(self) -> Mapping[str, int]:
        """Inbound connections by what became of them, since the process began."""

    @property
    def addresses(self) -> tuple[str, ...]:
        """The listen addresses, ending in /p2p/ID; empty while `run` does not listen."""

    def update_window(self, window: RoundWindow) -> None:
        """Take the machine's new view. Nothing is accepted before the first one; early announcements are taken in with
        the one that admits them."""

    def switch_identity(self) -> None:
        """Go on under the node's own peer id, where it runs under an ephemeral one."""

    def peer_id(self, address: Address) -> str | None:
        """Return the peer id of a registered node that has announced something in the rounds that are accepted."""
