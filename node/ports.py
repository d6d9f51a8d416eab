"""The seams: what the node asks of chain, gossip, trainer and disk. Real services and fakes share these shapes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol, TypeVar

import msgspec

from node.machine.commands import ChainCommand, GossipCommand, OwnMessage, TrainerCommand
from node.machine.inputs import AnyInput
from protocols.deployment import CoordinatorFacts, NodeEntry
from protocols.identifiers import Address, Digest, Seed
from protocols.signed_messages import SignedDelegation, SignedMessage
from protocols.wire import Announcement, Rollouts

CommandT = TypeVar("CommandT", contravariant=True)

Report = Callable[[AnyInput], Awaitable[None]]
"""How a service tells the bus what happened. May wait when the source's queue is full and its policy is to block."""


class Service(Protocol[CommandT]):
    """One supervised part of the node. `run` ends only by cancellation or a fault; a fault restarts it."""

    name: str

    async def run(self, report: Report) -> None:
        """Work until cancelled. Raises whatever it can't handle: the supervisor logs it and restarts."""

    async def execute(self, command: CommandT) -> None:
        """Take a command over. Returns as soon as it is queued (or durably stored, for the chain); never raises
        because the other side is away."""


class ChainUnavailableError(Exception):
    """The chain can't be asked: no endpoint answers, or what answers is no coordinator."""


class ChainService(Service[ChainCommand], Protocol):
    """The node's view of the coordinator. Commands settle with `TransactionSettled`, over crashes."""

    @property
    def delegation(self) -> SignedDelegation | None:
        """The owner's delegation that is used; None where the node is its own owner."""

    @property
    def register_entry(self) -> NodeEntry | None:
        """How the register has this node, as far as it is confirmed; None until it was read."""

    def join(self, facts: CoordinatorFacts, delegation: SignedDelegation | None) -> None:
        """Take the deployment and the owner's delegation for it: from now on this node's messages can be signed.

        Called again with a newer delegation.
        """

    def signed_messages(self, commands: tuple[OwnMessage, ...]) -> tuple[SignedMessage, ...]:
        """Return this node's own messages, to be attached to an announcement; none before `join`.

        What the vote protection forbids is left out.
        """

    def registration(self) -> SignedDelegation | None:
        """Return the delegation with which anybody can register this node; None before `join`."""

    async def read_facts(self) -> CoordinatorFacts:
        """Return what the contract fixed. Raises `ChainUnavailableError`, and `Refusal` for what an operator mends."""

    async def read_owner(self) -> Address | None:
        """Return this node's owner in the contract; None where it does not know the node, or can't be asked."""

    async def read_bootnodes(self) -> tuple[str, ...]:
        """Return the contract's bootnodes; those read last while the chain is away."""


class TrainerService(Service[TrainerCommand], Protocol):
    """The model and its training. State outlives a restart of `run`: it resumes from the newest checkpoint.

    It reports `TrainerReady` whenever it can take commands, and `TrainerLost` when it no longer can; what it was given
    is forgotten then. In between each command is answered once, in the order given: `GenerateRollouts` with
    `RolloutsGenerated` (the body is kept in `Bodies` by then), `TrainOnRollouts` with `TrainingFinished`,
    `EvaluateModel` with `EvaluationFinished`, `SaveCheckpoint` with `CheckpointSaved`; any of them with `WorkFailed`
    where nothing comes of it. After `AbortWork` nothing that was given before it is answered any more.
    """


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
    def addresses(self) -> tuple[str, ...]:
        """The listen addresses, ending in /p2p/ID; empty while `run` does not listen."""

    def update_window(self, window: RoundWindow) -> None:
        """Take the machine's new view. Nothing is accepted before the first one; early announcements are taken in with
        the one that admits them."""

    def switch_identity(self) -> None:
        """Go on under the node's own peer id, where it runs under an ephemeral one."""

    def peer_id(self, address: Address) -> str | None:
        """Return the peer id of a registered node that has announced something in the rounds that are accepted."""


class Bodies(Protocol):
    """Bounded store of encoded rollouts by digest; survives a restart."""

    def get(self, digest: Digest) -> bytes | None:
        """Return the body, or None where it is not (or no longer) kept."""

    def put(self, digest: Digest, body: bytes, round_number: int) -> None:
        """Keep a body, at the latest on disk when this returns; the oldest rounds go first."""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What the check of a body says: `reason` is empty where it was accepted, else the code that is counted.

    `missing` are the quoted bodies without which it can't be checked, `alike` the peers whose body of the stage it
    repeats; `doubt` is a reason why one that was accepted earns no credit.
    """

    reason: str
    groups: int = 0
    reward: float = 0.0
    missing: tuple[Digest, ...] = ()
    alike: tuple[Address, ...] = ()
    doubt: str = ""


CheckBody = Callable[[Address, Announcement, bytes], Verdict]
"""Check a fetched body of `peer` against its announcement: digest, schema, assignment, completeness, reward."""


__all__ = [
    "Bodies", "ChainService", "ChainUnavailableError", "CheckBody", "NetworkService", "Report", "Rollouts",
    "RoundWindow", "Service", "TrainerService", "Verdict",
]  # fmt: skip


class VoteGuard(Protocol):
    """The vote protection: what this identity ever signed, on disk before it is signed."""

    def admit(self, kind: str, round_number: int, seed: Seed, payload: bytes) -> bool:
        """Return True if `payload` may be signed as this round's `kind` ("commit", "reveal", "vote").

        True where nothing was signed for (kind, round, seed) before, or exactly the same bytes; the record is
        durable when this returns.
        """
