"""What a game is: the rules that a swarm plays by, as pure functions that every peer evaluates alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import msgspec

from protocols.identifiers import Address, Digest, Seed
from protocols.manifest import GameSpec
from protocols.ranking import Score
from protocols.wire import Group, Rollouts

QuotedBodies = Mapping[Digest, Rollouts]
"""Bodies at hand, decoded, by digest."""


class StageContext(msgspec.Struct, frozen=True, kw_only=True):
    """Where a group is played, and what it quotes.

    `quoted` are the digests that the group's body names. `quoted_bodies` holds those bodies and what they quote in
    turn.
    """

    seed: Seed
    stage: int
    slot: int
    question: str
    quoted: tuple[Digest, ...] = ()
    quoted_bodies: QuotedBodies = {}


class BuiltinModelSetup(msgspec.Struct, frozen=True, kw_only=True):
    """How the built-in model plays a game: what `swarm demo` runs, and what the model is warmed up on.

    `spec` holds parameters and sizes that suit it. `seconds` is the length of each stage, `rounds` how many are played.
    `warmup` names a supervised course of `node.trainer.engines.builtin.sft_warmup`.
    """

    spec: GameSpec
    seconds: tuple[int, ...]
    rounds: int
    warmup: str


@runtime_checkable
class PlaysBuiltinModel(Protocol):
    """The optional part of a game: how the built-in model plays it. Without it, `swarm demo` can't play the game."""

    builtin_model: BuiltinModelSetup


class Game(Protocol):
    """One game. Peers that have the same bodies get the same prompts, rewards and ranks; none of it may raise.

    What strangers wrote reaches these functions through `StageContext.quoted_bodies` and `completions`. It is bounded
    in size and otherwise arbitrary.
    """

    stages: tuple[str, ...]
    """The stages of a round, in order."""

    questions_are_common: bool
    """Whether all peers have the same questions. A body then names its author: another's would fit the same slots."""

    def problems(self, spec: GameSpec) -> list[str]:
        """Return every reason why these parameters make no sense, as "game.FIELD: what it must be"."""

    def quotes(self, stage: int) -> tuple[int, ...]:
        """Return the earlier stages whose bodies a stage quotes, ascending; it waits for them. Mostly none."""

    def max_quoted(self, spec: GameSpec) -> int:
        """Return how many bodies of each of those stages are quoted at most."""

    def question(
        self, data: Digest, seed: Seed, peer: Address, stage: int, slot: int, size: int, common: int = 0
    ) -> int:
        """Return the index in [0, size) of the question that a peer plays in a slot of a stage; the first `common`
        slots hold the same questions for all."""

    def prompt(self, spec: GameSpec, context: StageContext, max_chars: int) -> str:
        """Return the prompt (without the manifest's worked examples); each quote has at most `max_chars` characters."""

    def rewards(
        self, spec: GameSpec, context: StageContext, completions: Sequence[str], answer: str
    ) -> tuple[float, ...]:
        """Return the reward of each completion in [0, 1]; `answer` is the reference of the receiver's own data."""

    def final(self, spec: GameSpec, stage: int, completion: str) -> str:
        """Return the part of a completion that answers the question, empty where the stage asks for something else."""

    def published(self, stage: int, group: Group) -> Group:
        """Return what travels of a group: always every completion; ids and log-probabilities may be left out."""

    def score(self, peer: Address, stages: Sequence[tuple[int, float]]) -> Score:
        """Return what a peer's round is worth, from the groups and the sum of mean rewards of each of its stages."""
