"""Self-play evaluation: a whole round on held-out questions, played by one model with itself.

Held-out accuracy measures the first stage only. Where later stages quote earlier ones, as in `debate`, what counts is
the answer at the end; in a round of a swarm its questions are too few to tell.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from node.data.questions import Question
from node.trainer.engines.engine import Engine
from node.trainer.engines.sampler import Sample
from node.trainer.worker.rollouts import completion_of, fitted_prompt
from node.trainer.worker.session import EVALUATION_SEED, TaskContext, graded, mean
from protocols.games import Game, StageContext, game_named
from protocols.games.quoting import drawn
from protocols.identifiers import Digest, Seed, body_digest
from protocols.manifest import Manifest
from protocols.wire import Group, Rollouts, encode

SEED: Seed = bytes(32)


class StageWorth(NamedTuple):
    """What came of a stage: mean reward, and the share of right answers; None where it asks for none."""

    reward: float
    right: float | None


class SelfPlay:
    """One round under way. Each of the model's parts, as many as a stage quotes, answers every question once."""

    def __init__(self, engine: Engine, manifest: Manifest, questions: Sequence[Question], task: TaskContext) -> None:
        self._engine, self._manifest, self._questions, self._desk = engine, manifest, questions, task
        self._rules: Game = game_named(manifest.game.name)
        self._parts = max(1, self._rules.max_quoted(manifest.game))
        self._rng = torch.Generator().manual_seed(EVALUATION_SEED)
        self._quoted_bodies: dict[Digest, Rollouts] = {}
        self._played: list[list[Digest]] = []

    def play(self, stage: int, *, greedy: bool) -> StageWorth:
        """Play the next stage, which quotes what was played before."""
        contexts = self._contexts(stage)
        prompts = [fitted_prompt(self._manifest.game, context, self._engine) for context in contexts]
        groups = self._engine.sample(
            prompts, self._parts, self._rng, self._desk.cancelled, greedy=greedy, progress=self._desk.progress
        )
        self._keep(stage, contexts[0].quoted if contexts else (), groups)
        return self._result(stage, contexts, groups)

    def _contexts(self, stage: int) -> list[StageContext]:
        quoted = tuple(
            digest
            for earlier in self._rules.quotes(stage)
            for digest in drawn(SEED, earlier, self._played[earlier], self._parts)
        )
        return [
            StageContext(
                seed=SEED, stage=stage, slot=slot, question=each.text, quoted=quoted, quoted_bodies=self._quoted_bodies
            )
            for slot, each in enumerate(self._questions)
        ]

    def _keep(self, stage: int, quoted: tuple[Digest, ...], groups: Sequence[Sequence[Sample]]) -> None:
        """Keep what each part has said as a body, so that later stages quote it as they would a peer's."""
        self._played.append([])
        for part in range(self._parts):
            said = tuple(
                Group(slot, slot, (completion_of(group[part], self._manifest.limits),))
                for slot, group in enumerate(groups)
            )
            body = Rollouts(0, stage, self._engine.fingerprint, said, quoted, SEED, f"0x{part:040x}")
            digest = body_digest(encode(body))
            self._quoted_bodies[digest] = body
            self._played[-1].append(digest)

    def _result(self, stage: int, contexts: Sequence[StageContext], groups: Sequence[Sequence[Sample]]) -> StageWorth:
        game, answers = self._manifest.game, bool(self._rules.final(self._manifest.game, stage, "#"))
        rewards: list[float] = []
        right: list[float] = []
        for context, question, group in zip(contexts, self._questions, groups, strict=True):
            earned, found = graded(game, context, [sample.text for sample in group], question.answer)
            rewards += earned
            right += found
        return StageWorth(mean(rewards), mean(right) if answers else None)


def play_stages(
    engine: Engine, manifest: Manifest, questions: Sequence[Question], task: TaskContext, *, greedy: bool = False
) -> tuple[StageWorth, ...]:
    """Play all stages on the questions; the same random numbers every time."""
    round_ = SelfPlay(engine, manifest, questions, task)
    return tuple(round_.play(stage, greedy=greedy) for stage in range(len(manifest.stages)))
