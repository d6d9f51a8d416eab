"""What can happen to a node. Inputs are journalled before the machine sees them, so each is small and frozen.

Names say what happened, in the past tense. Every struct is tagged: the journal stores MessagePack of `Stamped`.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from node.machine.transaction_keys import TransactionKey
from protocols.identifiers import Address, Digest, Seed
from protocols.signed_messages import SignedDelegation, SignedMessage


class Input(msgspec.Struct, frozen=True, tag=True):
    """Base of all inputs; the tag is the class name."""


# --- life cycle -----------------------------------------------------------------------------------------------------


class NodeStarted(Input, frozen=True):
    """The process started (again). Whatever was in progress and is not known to be done is asked for again.

    `doppelganger_protection`: the identity was restored or copied, so another node may be running with its key. `me` is
    this node's address in the deployment; empty: the same as before.
    """

    doppelganger_protection: bool = False
    me: Address = ""


class DrainRequested(Input, frozen=True):
    """The operator asked to finish the current stage, then stop."""


class StopRequested(Input, frozen=True):
    """The operator (SIGTERM, SIGINT) asked to stop at once."""


class TimerFired(Input, frozen=True):
    """A timer set by `SetTimer` has come due. Timers do not survive a restart; `NodeStarted` sets them again."""

    name: str


# --- chain ----------------------------------------------------------------------------------------------------------


class StageOpened(Input, frozen=True):
    """The contract is in this stage now: seen in an event, or read when the watcher (re)connected.

    `deadline` is in chain seconds; `opened` is the block's timestamp. `rewound` marks that a reorg led here,
    so that round and stage may lie before what was known.
    """

    round: int
    stage: int
    seed: Seed
    deadline: int
    opened: int
    block: int
    rewound: bool = False


class PauseChanged(Input, frozen=True):
    """The organiser paused the swarm, or ended the pause early; the end of a pause that lapses is not reported.

    Reported again after a (re)connection if it is news. `until` is in chain seconds, in the past (or 0) if the
    swarm runs; `deadline` is the new one of this stage.
    """

    round: int
    stage: int
    until: int
    deadline: int


class PeerRegistered(Input, frozen=True):
    """A node is registered and counts from `since_round` on. Reported for every known peer after (re)connecting.

    `owner` is the account behind it, empty where the contract knows none.
    """

    peer: Address
    since_round: int
    owner: Address = ""


class DelegationRead(Input, frozen=True):
    """The register's entry of this node: its delegation holds until `expiry` (chain seconds; 0 if not known).

    `renewal` is the serial of a newer delegation on disk that is not on chain yet, 0 if there is none.
    """

    expiry: int
    renewal: int = 0


class FundsChanged(Input, frozen=True):
    """Whether this node has the funds, and today's budget, to relay other nodes' messages."""

    relays: bool


class ChainLost(Input, frozen=True):
    """No RPC endpoint answers."""

    reason: str


class ChainRestored(Input, frozen=True):
    """An RPC endpoint answers, the gap is filled. `offset` is chain time minus local time, in seconds."""

    offset: float


class TransactionSettled(Input, frozen=True):
    """The outbox is done with `key`: mined, or refused for good (`error` names the revert)."""

    key: TransactionKey
    ok: bool
    transaction: str
    error: str = ""


# --- gossip ---------------------------------------------------------------------------------------------------------


class RolloutsAnnounced(Input, frozen=True):
    """A peer's announcement passed the validator: signature, swarm, round window, seed, size, registration.

    A `size` of 0: the peer made no rollouts. `attached` messages were decoded, not checked. `late`: it was received by
    catch-up, not by gossip, so the time of its arrival says nothing.
    """

    peer: Address
    round: int
    stage: int
    body: Digest
    size: int
    inline: bool
    relays: bool = False
    attached: tuple[SignedMessage, ...] = ()
    late: bool = False


class NodeIntroduced(Input, frozen=True):
    """A connected node that is not registered asks to be: its owner's delegation, decoded, not checked."""

    node: Address
    message: SignedDelegation


class DoppelgangerDetected(Input, frozen=True):
    """An announcement under this node's own signature came from the network.

    After a restart it may be this node's own, from before: the machine decides (`node.machine.doppelganger`).
    """

    round: int
    stage: int
    seed: Seed
    body: Digest


class RolloutsArrived(Input, frozen=True):
    """A peer's body is stored and was checked: `groups` accepted, the sum of their recomputed mean rewards.

    `alike` are the peers whose bodies of the same stage it repeats; `doubt` is a reason why it does not raise the
    score.
    """

    peer: Address
    round: int
    stage: int
    body: Digest
    groups: int
    reward: float
    alike: tuple[Address, ...] = ()
    doubt: str = ""


class RolloutsRefused(Input, frozen=True):
    """A peer's body could not be had (`unavailable`) or failed a check; `reason` is the code that is counted.

    It could not be checked yet where `missing` names bodies that it quotes and that are not here.
    """

    peer: Address
    round: int
    stage: int
    body: Digest
    reason: str
    missing: tuple[Digest, ...] = ()


class NetworkChanged(Input, frozen=True):
    """The number of connected peers changed; 0: the network is unavailable."""

    connected: int


# --- trainer --------------------------------------------------------------------------------------------------------


class TrainerReady(Input, frozen=True):
    """The child has loaded its model. `checkpoint_round` is the round it resumes from, -1 for a fresh model."""

    parameters: int
    device: str
    checkpoint_round: int


class TrainerLost(Input, frozen=True):
    """The child is gone or hung; the link restarts it with back-off. `shrink` says that memory was the reason."""

    reason: str
    shrink: bool = False


class RolloutsGenerated(Input, frozen=True):
    """The child made this node's own groups; the body is stored under `body`. `reward` sums their mean rewards.

    `right` sums, in the same way, how many completions end in the right answer, where the stage asks for one. `seed` is
    that of the command; it is empty in journals of older versions.
    """

    round: int
    stage: int
    body: Digest
    size: int
    groups: int
    reward: float
    seconds: float
    right: float = 0.0
    seed: Seed = b""


class TrainingFinished(Input, frozen=True):
    """The child made its updates. Groups are counted after zero-advantage ones were dropped.

    `off_policy` are the external bodies of this training that the model does not believe.
    """

    round: int
    stage: int
    updates: int
    own: int
    external: int
    loss: float
    seconds: float
    off_policy: tuple[Digest, ...] = ()


class WorkFailed(Input, frozen=True):
    """The child gave up on a task (out of memory after shrinking, non-finite loss); `seed` is that of the round that it
    was to generate for."""

    task: str
    round: int
    stage: int
    reason: str
    seed: Seed = b""


class AnnouncedBefore(Input, frozen=True):
    """The stage that rollouts were to be generated for has this node's announcement already: state and journal lost it.

    `body` is the digest of what was announced then, `size` its length in bytes: 0 where it is not kept any more, or
    nothing was announced (`protocols.wire.NOTHING`).
    """

    round: int
    stage: int
    seed: Seed
    body: Digest
    size: int


class EvaluationFinished(Input, frozen=True):
    """Held-out accuracy, sampled at temperature 1, of `questions` questions."""

    round: int
    accuracy: float
    questions: int
    seconds: float


class CheckpointSaved(Input, frozen=True):
    """The child's state after `round` is on disk."""

    round: int


AnyInput: TypeAlias = (
    NodeStarted
    | DrainRequested
    | StopRequested
    | TimerFired
    | StageOpened
    | PauseChanged
    | PeerRegistered
    | DelegationRead
    | FundsChanged
    | ChainLost
    | ChainRestored
    | TransactionSettled
    | RolloutsAnnounced
    | NodeIntroduced
    | DoppelgangerDetected
    | RolloutsArrived
    | RolloutsRefused
    | NetworkChanged
    | TrainerReady
    | TrainerLost
    | RolloutsGenerated
    | TrainingFinished
    | WorkFailed
    | AnnouncedBefore
    | EvaluationFinished
    | CheckpointSaved
)
"""Every input there is: the journal's schema."""


class Stamped(msgspec.Struct, frozen=True, array_like=True):
    """An input with the local time (Unix seconds) at which it was taken from the bus."""

    at: float
    input: AnyInput
