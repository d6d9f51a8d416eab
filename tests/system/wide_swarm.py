"""A swarm whose nodes are in network namespaces of their own, with a wide-area network between them."""

from __future__ import annotations

from pathlib import Path

from node.config import GossipSettings
from node.localnet.local_chain import LocalChain
from node.store.round_reports import FILE, read_round
from protocols.identifiers import Address
from protocols.manifest import DataSpec, GameSpec, Limits, Manifest, StageSpec, VotingSpec
from tests.integration.small_swarm import SmallSwarm
from tests.system.namespaces import Network, public_address

SECONDS_A_GROUP = 0.02
PORT = 38_751
"""Where every node listens, each in a namespace of its own."""


def manifest(stage_seconds: int) -> Manifest:
    """Return a swarm of one-stage rounds whose bodies are all fetched (none is small enough to travel inline)."""
    return Manifest(
        name="wide area",
        data=DataSpec(held_out=4),
        game=GameSpec(num_prompts=3, min_prompts=2, num_generations=4, local_groups=4, external_groups=4),
        stages=(StageSpec(name="play", seconds=stage_seconds),),
        voting=VotingSpec(winners=2, minimum_groups=1),
        limits=Limits(inline=16, turn_seconds=1),
    )


class WideSwarm(SmallSwarm):
    """The chain is in namespace 0, where this process is; member n in namespace n."""

    def __init__(self, network: Network, home: Path, members: int, stage_seconds: int) -> None:
        super().__init__(manifest(stage_seconds), home, (SECONDS_A_GROUP,) * members)
        self._network, self.stage_seconds = network, stage_seconds
        self.chain = LocalChain(block_seconds=1, host="0.0.0.0")

    @property
    def chain_url(self) -> str:
        """The chain's URL in other namespaces."""
        return f"ws://{public_address(0)}:{self.chain.port}"

    def gossip(self, number: int) -> GossipSettings:
        """Listen everywhere: a node behind a NAT does not know under which address others see it."""
        announce = (f"/ip4/{public_address(number)}/tcp/{PORT}",) if number == 1 else ()
        return GossipSettings(listen=(f"/ip4/0.0.0.0/tcp/{PORT}",), announce=announce, bootnodes=self.bootnodes)

    def inside(self, number: int) -> tuple[str, ...]:
        """Enter the member's namespace."""
        return self._network.inside(number)

    def heard(self, round_number: int) -> dict[Address, set[Address]]:
        """Return whose rollouts of a round each member had when it ranked them, its own included."""
        found = {}
        for member in self.members:
            report = read_round(member.home / FILE, round_number)
            entries = report.entries if report else ()
            found[member.address] = {
                entry.peer for entry in entries if all(body and body.state == "arrived" for body in entry.bodies)
            }
        return found

    def is_whole(self, round_number: int) -> bool:
        """Return True if everybody had everybody's rollouts of a round."""
        everybody = {member.address for member in self.members}
        return all(heard == everybody for heard in self.heard(round_number).values())

    def voters(self, round_number: int) -> set[Address]:
        """Return the members whose vote on a round stands on the chain, once."""
        return {member.address for member in self.members if self.rounds_voted(member.address)[round_number] == 1}
