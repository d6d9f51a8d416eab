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
MAX_FORKED = 16


class RoundParameters(msgspec.Struct, frozen=True, array_like=True):
    """What the machine needs of the manifest. `seconds` holds the length of each stage, in chain time.

    `quotes` names the earlier stages that each stage quotes, at most `quoted` bodies of each; `waits` is the share of
    its time that it waits for them.
    """

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

    @property
    def stages(self) -> int:
        """Stages in a round."""
        return len(self.seconds)


class BodyRecord(msgspec.Struct, frozen=True, array_like=True):
    """A peer's rollouts of one stage (or this node's own): `reward` sums the groups' mean rewards.

    `used` tells that an update was made (or is being made) on it; for the own body: that training on it finished. A
    body is `waiting` while those that it quotes, `missing`, are not here. `reason` is the code of why it is waiting or
    refused, or arrived and counts for nothing all the same. `heard` is the local time at which its announcement came
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
    heard: float = 0.0


class Work(msgspec.Struct, frozen=True, array_like=True):
    """This node's work in the current stage.

    `phase` is what is to be done next; whether the trainer is at it stands in `State.task`. `external` are the
    bodies of the training that was asked for; `due` says that training can't wait for more of them; `reported` that
    the chain has (or has refused) the reward; `quote` that the stage waits no longer for what it quotes.
    """

    phase: WorkPhase
    external: tuple[Digest, ...] = ()
    due: bool = False
    reported: bool = False
    quote: bool = False


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
    """How far this node is with listening for another one of its key (`node.machine.doppelganger`).

    `round` is the contract's, -1 until known; `fresh` are the seeds of the rounds that began meanwhile; `reached`
    tells that in the current one somebody could be heard.
    """

    round: int = -1
    fresh: tuple[Seed, ...] = ()
    reached: bool = False


class State(msgspec.Struct, frozen=True, kw_only=True):
    """The whole machine.

    `round` and `stage` are -1 until the chain was heard; `deadline` is in chain seconds, `offset` is chain minus
    local time. `pools` maps a step (`protocols.schedule.step_number`) to the bodies announced in it, this node's own
    included. `pending` is the newest stage reported while the chain is not yet known to be caught up with.

    `relays` tells whether this node can pay for others, `relayers` in which step each peer last said that it does;
    `message_pool` is what announcements of the current stage had attached, `introduced` the delegations of newcomers,
    and `relay_turn` counts the own turns of the stage that were taken (or missed).
    """

    me: Address
    terms: RoundParameters

    draining: bool = False
    stopping: bool = False
    listening: DoppelgangerWatch | None = None

    chain: Presence = "unknown"
    offset: float = 0.0
    heard: bool = False
    gap: str = ""
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
    pending: tuple[int, int, Seed, int, bool] | None = None
    seeds: dict[int, Seed] = {}
    peers: dict[Address, int] = {}
    owners: dict[Address, Address] = {}

    relays: bool = False
    relayers: dict[Address, int] = {}
    message_pool: dict[Address, tuple[SignedMessage, ...]] = {}
    introduced: dict[Address, SignedDelegation] = {}
    relay_turn: int = 0

    expiry: int = 0
    """Chain seconds until which this node's delegation holds; 0 while the register's entry is not known."""
    renewal: int = 0
    """Serial of a newer delegation that is not on chain yet; 0 where there is none."""
    ending: Literal["", "soon", "over"] = ""

    registering: bool = False
    register_tries: int = 0
    register_error: str = ""

    standing: dict[Address, float] = {}
    """What this node thinks of each peer (`node.machine.peer_score`); a stranger has no entry."""
    refusals: dict[str, int] = {}
    """Bodies that count for nothing, by reason, since the node's first start."""

    pools: dict[int, dict[Address, BodyRecord]] = {}
    forked: tuple[tuple[int, Seed, BodyRecord], ...] = ()
    """What this node announced in rounds whose seed a reorg changed, which may come back: step, seed, body."""
    work: Work = Work("skipped")
    task: TrainerTask | None = None
    pace: TrainerSpeed = TrainerSpeed()
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
"""The next state, and in order what is to be done and said."""
Move: TypeAlias = Callable[[State, float], Result]


def terms_of(manifest: Manifest) -> RoundParameters:
    """Return what the machine needs of a manifest. Raises ValueError for a game that is not known."""
    game, voting, limits = manifest.game, manifest.voting, manifest.limits
    rules = game_named(game.name)
    return RoundParameters(
        seconds=tuple(stage.seconds for stage in manifest.stages),
        generated=game.generated,
        minimum=game.minimum,
        updates=game.updates,
        external=game.external,
        sealed=voting.mode == "sealed",
        winners=voting.winners,
        minimum_groups=voting.minimum_groups,
        rounds_kept=limits.rounds_kept,
        turn_seconds=max(1, limits.turn_seconds),
        evaluate_every=max(1, manifest.evaluate_every),
        game=game.name,
        quotes=tuple(rules.quotes(stage) for stage in range(len(manifest.stages))),
        quoted=rules.most_quoted(game),
        waits=tuple(stage.wait for stage in manifest.stages),
    )


def initial(me: Address, manifest: Manifest) -> State:
    """Return the state of a node that has never run."""
    return State(me=me, terms=terms_of(manifest))


def in_turn(state: State, at: float, *moves: Move) -> Result:
    """Apply moves one after the other; return the last state and the outputs of all."""
    outputs: tuple[Output, ...] = ()
    for move in moves:
        state, more = move(state, at)
        outputs += more
    return state, outputs


# --- facts that several transitions read ----------------------------------------------------------------------------


def current_step(state: State) -> int:
    """Return the contract's clock as one number; negative until the chain was heard."""
    return step_number(state.round, state.stage, state.terms.stages)


def counts(state: State, peer: Address, round_number: int) -> bool:
    """Tell whether a peer is registered and counts in a round; this node does not while it only listens."""
    if state.listening is not None and peer == state.me:
        return False
    since = state.peers.get(peer)
    return since is not None and since <= round_number


def own_body(state: State) -> BodyRecord | None:
    """Return this node's own rollouts of the current stage."""
    return state.pools.get(current_step(state), {}).get(state.me)


def worked_in(state: State, round_number: int) -> bool:
    """Tell whether this node trained in a round (that is still kept)."""
    first = step_number(round_number, 0, state.terms.stages)
    pools = (state.pools.get(step, {}) for step in range(first, first + state.terms.stages))
    return any(state.me in pool and pool[state.me].used for pool in pools)


def with_body(state: State, step: int, peer: Address, body: BodyRecord) -> State:
    """Return the state with a body put in its place."""
    return replace(state, pools={**state.pools, step: {**state.pools.get(step, {}), peer: body}})


def label(state: State, round_number: int, stage: int) -> str:
    """Return how a stage is called in a message: the stage is named only where a round has several."""
    return f"round {round_number}" if state.terms.stages == 1 else f"round {round_number} stage {stage}"
