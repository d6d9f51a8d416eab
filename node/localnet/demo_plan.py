"""Turns the demo's options into manifest and node configurations. Pure."""

from __future__ import annotations

from pathlib import Path

import msgspec
from msgspec.structs import replace

from node.config import ChainSettings, Config, GossipSettings, HttpSettings, LogSettings, TrainerSettings
from protocols.games import BuiltinModelSetup, builtin_setup, game_named, game_names
from protocols.manifest import DataSpec, GameSpec, Limits, Manifest, StageSpec, VotingSpec

FIRST_ROUND = 2
"""Nodes register in round 0, which stays open until one of them can advance; they count two rounds later."""

BLOCK_SECONDS = 1
TOO_SLOW = 2.0
"""Stages that a slowed node needs for one group."""

DEFAULT_GAME = "share"
SPARSE_SECONDS = 4
"""Length of the stage in `--compare`."""

REAL_ROUNDS = 30
"""Less than 25 minutes of the template's stages."""

REAL_LEARNING_RATE = 3e-5
REAL_MICRO_BATCH = 1024
REAL_MICRO_TOKENS = 2048
"""About half an update: the worked examples are computed twice for it, and activations take half the memory."""

SPARSE_LEARNING_RATE = 3e-4


class PlanError(ValueError):
    """The options don't make a demo; the text is the operator's one-line error."""


class DemoOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The demo's options. 0 and "" mean the default for this kind of swarm; `slow` counts nodes from 1, 0 is none."""

    peers: int = 0
    rounds: int = 0
    slow: int = 0
    seed: int = 0
    model: str = ""
    data: str = ""
    seconds: int = 0
    game: str = DEFAULT_GAME
    sharing: bool = True
    sparse: bool = False
    warmup_steps: int = 0

    @property
    def real(self) -> bool:
        """Whether the swarm uses the operator's own model or questions."""
        return bool(self.model or self.data)


class NodePlan(msgspec.Struct, frozen=True, kw_only=True):
    """One node: its number in the swarm (from 1), the name of its directory, and its trainer settings."""

    number: int
    directory: str
    trainer: TrainerSettings


class DemoPlan(msgspec.Struct, frozen=True, kw_only=True):
    """A whole demo. Rounds from `FIRST_ROUND` to `last_round` are played; then held-out accuracy is measured."""

    manifest: Manifest
    nodes: tuple[NodePlan, ...]
    last_round: int
    seed: int
    model: str
    """Directory or name of the operator's model, "" for the built-in one."""
    warmup: str
    """The built-in model's SFT warm-up."""
    sparse: bool
    """Whether the built-in model then unlearns the answer format."""
    warmup_steps: int
    """Steps of the warm-up, 0 for all."""
    start_seconds: float
    """Longest wait for the first round: model loading and the first evaluation."""

    @property
    def rounds(self) -> int:
        """Number of rounds that are played."""
        return self.last_round - FIRST_ROUND + 1

    @property
    def round_seconds(self) -> int:
        """Length of a round in chain seconds."""
        return sum(stage.seconds for stage in self.manifest.stages)

    @property
    def answering(self) -> tuple[int, ...]:
        """The stages that ask for an answer to the question."""
        rules, spec = game_named(self.manifest.game.name), self.manifest.game
        return tuple(stage for stage in range(len(self.manifest.stages)) if rules.final(spec, stage, "#"))

    @property
    def answers_twice(self) -> bool:
        """Whether final answers can be measured against first ones."""
        return len(self.answering) > 1

    @property
    def longest_seconds(self) -> float:
        """Time after which an unfinished demo counts as failed: opening a round may take several turns."""
        turns = self.manifest.limits.turn_seconds + BLOCK_SECONDS
        return self.start_seconds + (self.last_round + 6) * (self.round_seconds + 2 * turns)


def sparse_game(sharing: bool) -> GameSpec:
    """Return the game of the comparison: the same number of groups is trained on with and without sharing."""
    game = GameSpec(num_prompts=8, min_prompts=2, num_generations=4, local_groups=8, external_groups=8, updates=1)
    return game if sharing else replace(game, local_groups=game.local_groups + game.external_groups, external_groups=0)


def last_round(rounds: int, every: int) -> int:
    """Return the first round, after at least `rounds` played ones, that ends with an evaluation."""
    last = FIRST_ROUND + rounds - 1
    return last + -(last + 1) % every


def demo_plan(options: DemoOptions, template: Manifest | None = None, data: DataSpec | None = None) -> DemoPlan:
    """Return the plan for the options.

    `template` and `data` are the manifest and the questions of a swarm with a real model or real questions. Raises
    `PlanError` for options that contradict each other.
    """
    peers = options.peers or (2 if template else 4)
    _check(options, peers)
    setup = _setup(options)
    rounds = options.rounds or (REAL_ROUNDS if template else setup.rounds)
    manifest = _real(options, template, data) if template else _builtin(options, setup)
    every = manifest.evaluate_every
    stage = manifest.stages[-1].seconds
    last = last_round(rounds, every)
    return DemoPlan(
        manifest=manifest,
        nodes=tuple(_node(options, number, stage, template is not None) for number in range(1, peers + 1)),
        last_round=last,
        seed=options.seed,
        model=options.model,
        warmup=setup.warmup,
        sparse=options.sparse,
        warmup_steps=options.warmup_steps,
        start_seconds=900.0 if template else 120.0,
    )


def node_config(node: NodePlan, *, chain: str, contract: str, model: str) -> Config:
    """Return a node's `swarm.toml`: loopback only, free ports, one object per log line."""
    return Config(
        own_owner=True,
        chain=ChainSettings(urls=(chain,), contract=contract, poll_seconds=1.0),
        gossip=GossipSettings(listen=("/ip4/127.0.0.1/tcp/0",)),
        trainer=replace(node.trainer, model=model),
        http=HttpSettings(port=0),
        log=LogSettings(format="json"),
    )


def _check(options: DemoOptions, peers: int) -> None:
    if options.data and not options.model:
        raise PlanError("--data: name the model that answers these questions with --model DIR or NAME")
    if options.real and options.sparse:
        raise PlanError("--compare: uses the built-in model and its questions; leave out --model and --data")
    if options.game != DEFAULT_GAME and (options.real or options.sparse):
        raise PlanError(f"--game {options.game}: uses the built-in model; leave out --model, --data and --compare")
    if not 2 <= peers <= 16:
        raise PlanError(f"--peers {peers}: a swarm on one machine has 2 to 16 nodes")
    if not 0 <= options.slow <= peers:
        raise PlanError(f"--slow {options.slow}: choose one of the nodes 1 to {peers}")
    if options.rounds < 0 or options.rounds > 500:
        raise PlanError(f"--rounds {options.rounds}: choose 1 to 500 rounds")


def _setup(options: DemoOptions) -> BuiltinModelSetup:
    known = {name: setup for name in game_names() if (setup := builtin_setup(name)) is not None}
    if options.game not in known:
        raise PlanError(f"--game {options.game}: the demo supports {' or '.join(known)}")
    return known[options.game]


def _builtin(options: DemoOptions, setup: BuiltinModelSetup) -> Manifest:
    stages = game_named(options.game).stages
    seconds = (SPARSE_SECONDS,) if options.sparse else setup.seconds
    seconds = (options.seconds,) * len(stages) if options.seconds else seconds
    return Manifest(
        name="demo",
        game=sparse_game(options.sharing) if options.sparse else setup.spec,
        stages=tuple(StageSpec(name=name, seconds=each) for name, each in zip(stages, seconds, strict=True)),
        voting=VotingSpec(winners=2),
        limits=Limits(turn_seconds=1),
        evaluate_every=5 if options.sparse else 2,
    )


def _real(options: DemoOptions, template: Manifest | None, data: DataSpec | None) -> Manifest:
    assert template is not None
    rounds = options.rounds or REAL_ROUNDS
    stages = (StageSpec(name="play", seconds=options.seconds),) if options.seconds else template.stages
    # An evaluation takes as long as several updates, so there are three: at the start, half way and at the end.
    every = max(1, -(-(FIRST_ROUND + rounds) // 2))
    return replace(template, stages=stages, data=data or template.data, evaluate_every=every)


def _node(options: DemoOptions, number: int, stage_seconds: int, real: bool) -> NodePlan:
    rate = REAL_LEARNING_RATE if real else SPARSE_LEARNING_RATE if options.sparse else TrainerSettings().learning_rate
    return NodePlan(
        number=number,
        directory=f"node-{number}",
        trainer=TrainerSettings(
            threads=1,
            seed=options.seed * 1000 + number,
            learning_rate=rate,
            micro_batch=REAL_MICRO_BATCH if real else TrainerSettings().micro_batch,
            micro_batch_tokens=REAL_MICRO_TOKENS if real else 0,
            data=options.data and str(Path(options.data).absolute()),
            slowdown=TOO_SLOW * stage_seconds if options.slow == number else 0.0,
        ),
    )
