"""Everything the machine remembers, as frozen structs: what a snapshot stores.

Dictionaries and tuples inside are treated as immutable: a transition makes new ones. Everything is bounded.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

import msgspec
from msgspec.structs import replace

from node.machine.commands import AnyCommand
from node.machine.notices import AnyNotice
from node.machine.phases import VotePhase, WorkEvent, WorkPhase, becomes_work
from node.machine.status import CurvePoint, Presence, RewardPoint, Totals
from protocols.games import game_named
from protocols.identifiers import Address, Digest, Seed
from protocols.manifest import Manifest
from protocols.schedule import step_number
from protocols.signed_messages import SignedDelegation, SignedMessage

MAX_PEERS = 16_384
MAX_BODIES = 256
"""Bodies per stage that are asked for: more than any update samples from, and a bound on memory and traffic."""
MAX_VOTES = 64
MAX_CURVE = 512
MAX_REWARDS = 384
MAX_TRANSACTIONS = 8
MAX_REORGED_BODIES = 16


class RoundParameters(msgspec.Struct, frozen=True, array_like=True):
    """What the machine needs of the manifest. A round has `stages` stages; `seconds` are their lengths, in chain time.

    `quotes` names the earlier stages that each stage quotes, at most `quoted` bodies of each; `waits` is the share of
    its time that it waits for them.
    """

    stages: int
    seconds: tuple[int, ...]
    generated: int
    minimum: int
    updates: int
    external: int
    sealed: bool
    winners: int
    minimum_groups: int
    rounds_kept: int
    turn_seconds: int
    evaluate_every: int
    game: str = "share"
    quotes: tuple[tuple[int, ...], ...] = ()
    quoted: int = 0
    waits: tuple[float, ...] = ()


class BodyRecord(msgspec.Struct, frozen=True, array_like=True):
    """A peer's rollouts of one stage (or this node's own): `reward` sums the groups' mean rewards.

    `used`: an update was made (or is being made) with it; for the own body: training on it finished. A
    body is `waiting` while those that it quotes, `missing`, are not here. `reason` is the code of why it is waiting or
    refused, or arrived and counts for nothing all the same. `announced_at` is the local time of its announcement
    (the own one: at which it was made), 0.0 where that says nothing about its order among others.
    """

    digest: Digest
    size: int
    state: Literal["fetching", "waiting", "arrived", "refused"]
    groups: int = 0
    reward: float = 0.0
    used: bool = False
    missing: tuple[Digest, ...] = ()
    reason: str = ""
    announced_at: float = 0.0


class Work(msgspec.Struct, frozen=True, array_like=True):
    """This node's work in the current stage.

    `phase` is what is next; `State.task` says whether the trainer is at it. `external` are the bodies of the training
    that was asked for; `train_now`: training no longer waits for more of them; `reported`: the chain has taken or
    refused the reward; `quote_now`: the stage no longer waits for bodies to quote.
    """

    phase: WorkPhase
    external: tuple[Digest, ...] = ()
    train_now: bool = False
    reported: bool = False
    quote_now: bool = False


def begun(event: WorkEvent) -> Work:
    """Return the work of a stage that opens."""
    return Work(becomes_work(None, event))


def becomes(work: Work, event: WorkEvent) -> Work:
    """Return the work after an event."""
    return replace(work, phase=becomes_work(work.phase, event))


class TrainerTask(msgspec.Struct, frozen=True, array_like=True):
    """What the trainer was asked to do, and when (local time); `seed` is that of the round for which it generates."""

    kind: Literal["generate", "train", "evaluate", "save"]
    round: int
    stage: int
    since: float
    groups: int = 0
    seed: Seed = b""


class TrainerSpeed(msgspec.Struct, frozen=True, array_like=True):
    """Measured seconds: to generate one group, and for a stage's whole training. 0.0 until measured."""

    generate: float = 0.0
    train: float = 0.0


class VoteRecord(msgspec.Struct, frozen=True, array_like=True):
    """A vote of this node: never changed in its winners once planned for a round and seed."""

    round: int
    seed: Seed
    winners: tuple[Address, ...]
    phase: VotePhase
    transactions: tuple[str, ...] = ()


class DoppelgangerWatch(msgspec.Struct, frozen=True, array_like=True):
    """How far doppelganger protection has come (`node.machine.doppelganger`).

    `round` is the contract's, -1 until known. `new_seeds` are the seeds of the rounds that began during the protection.
    `was_reachable`: in the current round a doppelganger could be detected.
    """

    round: int = -1
    new_seeds: tuple[Seed, ...] = ()
    was_reachable: bool = False


class ContractStage(msgspec.Struct, frozen=True, array_like=True):
    """A stage that the contract has opened, as the chain reported it. `deadline` is in chain seconds.

    `rewound`: a reorg led here, so round and stage may lie before what was known.
    """

    round: int
    stage: int
    seed: Seed
    deadline: int
    rewound: bool = False

    @property
    def place(self) -> tuple[int, int]:
        """Round and stage: the order in which the contract opens them."""
        return self.round, self.stage


class State(msgspec.Struct, frozen=True, kw_only=True):
    """The whole machine.

    `round` and `stage` are -1 until the chain has reported one. `deadline` is in chain seconds, `offset` is chain minus
    local time. `synced`: the chain has reported its stage since the start, or since it was away. `gap_reason` is why
    stages may have passed unseen.
    """

    me: Address
    parameters: RoundParameters

    draining: bool = False
    stopping: bool = False
    doppelganger_watch: DoppelgangerWatch | None = None

    chain: Presence = "unknown"
    offset: float = 0.0
    synced: bool = False
    gap_reason: str = ""
    connected: int = -1
    trainer: Presence = "unknown"

    round: int = -1
    stage: int = -1
    seed: Seed = b""
    deadline: int = 0
    overdue: bool = False
    paused_until: int = 0
    """Chain seconds at which the organiser's pause lapses; 0 where the swarm runs."""
    resumed: float = 0.0
    """Local time at which the chain came back in the current stage after it was away; 0.0 where it never was."""
    advance_tries: int = 0
    pending: ContractStage | None = None
    """The newest stage reported while the chain is still catching up."""
    seeds: dict[int, Seed] = {}
    peers: dict[Address, int] = {}
    owners: dict[Address, Address] = {}

    relays: bool = False
    """This node can pay for other nodes' messages."""
    relayers: dict[Address, int] = {}
    """The step in which each peer last announced that it relays."""
    message_pool: dict[Address, tuple[SignedMessage, ...]] = {}
    """Messages to relay, by the peer whose announcement of the current stage has them attached."""
    introduced: dict[Address, SignedDelegation] = {}
    """Delegations of nodes that are not registered yet."""
    relay_turn: int = 0
    """How many of this node's relay turns in the stage were taken or missed."""

    expiry: int = 0
    """Chain seconds until which this node's delegation holds; 0 while the register's entry is not known."""
    renewal: int = 0
    """Serial of a newer delegation that is not on chain yet; 0 where there is none."""
    ending: Literal["", "soon", "over"] = ""

    registering: bool = False
    register_tries: int = 0
    register_error: str = ""

    peer_scores: dict[Address, float] = {}
    """What this node thinks of each peer (`node.machine.peer_score`); an unknown peer has no entry."""
    refusals: dict[str, int] = {}
    """Bodies that count for nothing, by reason, since the node's first start."""

    bodies_by_step: dict[int, dict[Address, BodyRecord]] = {}
    """Bodies announced in each step (`protocols.schedule.step_number`), by peer, this node's own included."""
    reorged_bodies: tuple[tuple[int, Seed, BodyRecord], ...] = ()
    """Step, seed and own body of stages whose seed a reorg changed: another reorg may lead back to them."""
    work: Work = Work("skipped")
    task: TrainerTask | None = None
    speed: TrainerSpeed = TrainerSpeed()
    unsaved: int = -1
    saving: bool = False
    evaluation: int = 0
    """Round for which an evaluation is due, -1 where none is. The first is due before any training."""
    evaluated: int = -1
    votes: tuple[VoteRecord, ...] = ()

    curve: tuple[CurvePoint, ...] = ()
    rewards: tuple[RewardPoint, ...] = ()
    totals: Totals = Totals()
    last_skip: str = ""


Output: TypeAlias = AnyCommand | AnyNotice
Result: TypeAlias = tuple[State, tuple[Output, ...]]
"""The next state; commands and notices in their order."""
Transition: TypeAlias = Callable[[State, float], Result]


def round_parameters(manifest: Manifest) -> RoundParameters:
    """Return what the machine needs of a manifest. Raises ValueError for a game that is not known."""
    game, voting, limits = manifest.game, manifest.voting, manifest.limits
    rules = game_named(game.name)
    return RoundParameters(
        stages=len(manifest.stages),
        seconds=tuple(stage.seconds for stage in manifest.stages),
        generated=game.num_prompts,
        minimum=game.min_prompts,
        updates=game.updates,
        external=game.external_groups,
        sealed=voting.mode == "sealed",
        winners=voting.winners,
        minimum_groups=voting.minimum_groups,
        rounds_kept=limits.rounds_kept,
        turn_seconds=max(1, limits.turn_seconds),
        evaluate_every=max(1, manifest.evaluate_every),
        game=game.name,
        quotes=tuple(rules.quotes(stage) for stage in range(len(manifest.stages))),
        quoted=rules.max_quoted(game),
        waits=tuple(stage.wait for stage in manifest.stages),
    )


def initial(me: Address, manifest: Manifest) -> State:
    """Return the state of a node that has never run."""
    return State(me=me, parameters=round_parameters(manifest))


def apply_transitions(state: State, at: float, *moves: Transition) -> Result:
    """Apply moves one after the other; return the last state and the outputs of all."""
    outputs: tuple[Output, ...] = ()
    for move in moves:
        state, more = move(state, at)
        outputs += more
    return state, outputs


# --- facts that several transitions read ----------------------------------------------------------------------------


def current_step(state: State) -> int:
    """Return the contract's clock as one number; negative until the chain has reported a stage."""
    return step_number(state.round, state.stage, state.parameters.stages)


def is_eligible(state: State, peer: Address, round_number: int) -> bool:
    """Return True if a peer is registered and counts in a round; this node does not under doppelganger protection."""
    if state.doppelganger_watch is not None and peer == state.me:
        return False
    since = state.peers.get(peer)
    return since is not None and since <= round_number


def own_body(state: State) -> BodyRecord | None:
    """Return this node's own rollouts of the current stage."""
    return state.bodies_by_step.get(current_step(state), {}).get(state.me)


def has_trained_in(state: State, round_number: int) -> bool:
    """Return True if this node trained in a round (that is still kept)."""
    first = step_number(round_number, 0, state.parameters.stages)
    by_stage = (state.bodies_by_step.get(step, {}) for step in range(first, first + state.parameters.stages))
    return any(state.me in bodies and bodies[state.me].used for bodies in by_stage)


def with_body(state: State, step: int, peer: Address, body: BodyRecord) -> State:
    """Return the state with a body put in its place."""
    return replace(
        state, bodies_by_step={**state.bodies_by_step, step: {**state.bodies_by_step.get(step, {}), peer: body}}
    )


def stage_label(state: State, round_number: int, stage: int) -> str:
    """Return the name of a stage for a message; without the stage if a round has only one."""
    return f"round {round_number}" if state.parameters.stages == 1 else f"round {round_number} stage {stage}"
