"""The game `share` (SAPO, arXiv 2509.08721): one stage, local and external groups in each update."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeVar

from protocols.assignment import assigned_question
from protocols.games.interface import BuiltinModelSetup, StageContext
from protocols.grading import grades
from protocols.identifiers import Address, Digest, Seed
from protocols.manifest import GameSpec
from protocols.ranking import Score, round_score
from protocols.wire import Group

GroupT = TypeVar("GroupT")


class Share:
    """`protocols.games.interface.Game`: every peer answers questions of its own; nothing is quoted."""

    stages: tuple[str, ...] = ("play",)
    questions_are_common = False
    builtin_model = BuiltinModelSetup(
        spec=GameSpec(num_prompts=16, min_prompts=2, num_generations=8, local_groups=16, external_groups=16, updates=2),
        seconds=(6,),
        rounds=24,
        warmup="arithmetic",
    )

    def problems(self, spec: GameSpec) -> list[str]:
        """Return what is wrong with the parameters: this game has none of its own."""
        return [f"game.parameters: {spec.name!r} knows no {name!r}" for name in sorted(spec.parameters)]

    def quotes(self, stage: int) -> tuple[int, ...]:
        """Quote nothing."""
        return ()

    def max_quoted(self, spec: GameSpec) -> int:
        """Quote nothing."""
        return 0

    def question(
        self, data: Digest, seed: Seed, peer: Address, stage: int, slot: int, size: int, common: int = 0
    ) -> int:
        """Return the peer's own question, in the common slots everybody's."""
        return assigned_question(data, seed, peer, stage, slot, size, common)

    def prompt(self, spec: GameSpec, context: StageContext, max_chars: int) -> str:
        """Return the question in the manifest's prompt."""
        return question_text(spec, context.question)

    def rewards(
        self, spec: GameSpec, context: StageContext, completions: Sequence[str], answer: str
    ) -> tuple[float, ...]:
        """Return what the grader says."""
        return rewards(spec, completions, answer)

    def final(self, spec: GameSpec, stage: int, completion: str) -> str:
        """Return the completion: all of it is an answer."""
        return completion

    def published(self, stage: int, group: Group) -> Group:
        """Return the whole group."""
        return group

    def score(self, peer: Address, stages: Sequence[tuple[int, float]]) -> Score:
        """Return the mean reward per group."""
        return round_score(peer, stages)


def prompt_text(game: GameSpec, question: str) -> str:
    """Return the whole prompt: worked examples (the prefix common to all questions), then the question."""
    return game.examples + question_text(game, question)


def question_text(game: GameSpec, question: str) -> str:
    """Return the part of the prompt that differs from question to question."""
    return game.prompt.replace("{question}", question)


def rewards(game: GameSpec, completions: Sequence[str], answer: str) -> tuple[float, ...]:
    """Return the reward of each completion in [0, 1], recomputed from the receiver's own reference answer."""
    return grades(game.grader, completions, answer)


def has_advantage(group_rewards: Sequence[float]) -> bool:
    """Return True if a group teaches anything: its rewards are not all the same."""
    return max(group_rewards) - min(group_rewards) > 1e-9


def one_each(groups: Sequence[Group]) -> list[Group]:
    """Return one sender's groups with the first of each question only: chance may assign a question twice."""
    found: dict[int, Group] = {}
    for group in groups:
        found.setdefault(group.question, group)
    return list(found.values())


def sample_groups(pool: Sequence[GroupT], count: int, rng: random.Random) -> list[GroupT]:
    """Return `count` groups of the pool, uniformly and without replacement; all of them where there are fewer."""
    return rng.sample(pool, min(count, len(pool)))
