"""What a coordinator contract says of itself and of a node, whichever contract it is."""

from __future__ import annotations

import msgspec

from protocols.identifiers import Address, Digest
from protocols.typed_data import Domain


class CoordinatorFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What the contract fixed at its deployment, and the digest of the manifest in force.

    `salt` (32 bytes) belongs to the domain of its signed messages; `quorum` is the percentage of last round's voters
    that close a stage early, at the earliest `earliest` seconds after it opened; both 0 for never.
    """

    chain_id: int
    contract: Address
    deployment_block: int
    deployment_block_hash: bytes
    manifest_digest: Digest
    stage_seconds: tuple[int, ...]
    voting_mode: str
    salt: bytes = bytes(32)
    quorum: int = 0
    earliest: int = 0

    @property
    def has_owners(self) -> bool:
        """Return True if nodes have owners, who sign messages. RL Swarm's contract knows neither."""
        return self.salt != bytes(32)

    @property
    def domain(self) -> Domain:
        """The EIP-712 domain of this deployment."""
        return Domain(self.chain_id, self.contract, self.salt)


class NodeEntry(msgspec.Struct, frozen=True):
    """A node as the contract has it: `since` is the first round in which it counts, 0 where it is not registered.

    `expiry` in chain seconds, `serial` in milliseconds.
    """

    owner: Address
    since: int
    expiry: int
    serial: int
