"""What the child does for each frame: one model, one optimiser, one data set."""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Callable, Sequence
from itertools import zip_longest
from pathlib import Path

import msgspec
import structlog
import torch

from node.config import TrainerSettings
from node.data.load import load_questions
from node.data.questions import Question
from node.grading.registry import prepare_grader
from node.runtime.game_plugins import load_games
from node.trainer.checkpoints.checkpoint import Checkpoints, Counters
from node.trainer.engines.engine import Cancelled, Engine, TrainingGroup
from node.trainer.engines.factory import load_engine
from node.trainer.engines.process_group import SINGLE_PROCESS, ProcessGroup
from node.trainer.file_names import CHECKPOINTS, CURRENT
from node.trainer.learning import grpo
from node.trainer.learning.learner import NOTHING, Learner, OptimizerStep
from node.trainer.learning.off_policy_filter import mean_nll, rejected_bodies
from node.trainer.messages import (
    Evaluate,
    Evaluated,
    Generate,
    Generated,
    Save,
    Saved,
    SetUp,
    Train,
    Trained,
)
from node.trainer.worker.rollouts import (
    ShuffledPool,
    completion_of,
    decode_bodies,
    fitted_prompt,
    most_external,
    read_body,
    training_groups,
)
from protocols.games import Game, QuotedBodies, StageContext, body_author, body_seed, game_named
from protocols.grading import grades
from protocols.identifiers import body_digest
from protocols.manifest import GameSpec
from protocols.wire import Group, Rollouts, encode

log = structlog.get_logger()

EVALUATION_SEED = 999
PAUSE = 0.02
"""Seconds: how often a simulated slow machine checks whether it was cancelled."""


class TaskContext(msgspec.Struct, frozen=True):
    """What a task asks the node and reports to it: whether it is cancelled, and its progress (done, total)."""

    cancelled: Callable[[], bool]
    progress: Callable[[int, int], None]


class Session:
    """The trainer's state between frames. Methods take a frame and return the frame that answers it.

    They raise `Cancelled`, `NotFinite`, MemoryError (or torch's errors for it); the weights are then those of the
    last whole update.
    """

    def __init__(
        self,
        setup: SetUp,
        engine: Engine | None = None,
        clock: Callable[[], float] = time.monotonic,
        process_group: ProcessGroup = SINGLE_PROCESS,
    ) -> None:
        load_games()
        self.settings: TrainerSettings = setup.settings
        self.process_group = process_group
        self._manifest, self._peer = setup.manifest, setup.peer
        prepare_grader(setup.manifest.game.grader)
        self._questions = load_questions(setup.manifest.data, setup.settings.data)
        self.engine = engine or load_engine(setup.settings, setup.manifest.game, Path(setup.directory), process_group)
        home = Path(setup.directory)
        checkpoints = Checkpoints(home / CHECKPOINTS, setup.settings.checkpoints, home / CURRENT, process_group)
        self.learner = Learner(self.engine, setup.settings, self.game, checkpoints, clock, process_group)

    @property
    def counters(self) -> Counters:
        """Rounds and updates so far."""
        return self.learner.counters

    @property
    def game(self) -> GameSpec:
        """The swarm's game."""
        return self._manifest.game

    # --- generate -----------------------------------------------------------------------------------------------

    def generate(self, frame: Generate, task: TaskContext) -> Generated:
        """Sample groups for the questions assigned to this peer; the same seed and weights give the same body."""
        began = time.monotonic()
        rules = game_named(self.game.name)
        picked = self._picked(frame, rules)
        questions = [self._questions[each] for each in picked]
        contexts = self._contexts(frame, questions)
        samples = self.engine.sample(
            [fitted_prompt(self.game, context, self.engine) for context in contexts],
            self.game.num_generations,
            self._generator(self._derived_seed("generate", frame.round, frame.stage, frame.seed)),
            task.cancelled,
            progress=task.progress,
        )
        self._slow_down(frame.groups, task)
        limits = self._manifest.limits
        groups = [
            rules.published(
                frame.stage, Group(slot, question, tuple(completion_of(sample, limits) for sample in group))
            )
            for slot, (question, group) in enumerate(zip(picked, samples, strict=True))
        ]
        body, groups = self._fitting(frame, groups)
        reward, right = self._worth(groups, contexts, questions)
        return Generated(frame.task, body, len(groups), reward, time.monotonic() - began, right)

    def _worth(
        self, groups: Sequence[Group], contexts: Sequence[StageContext], questions: Sequence[Question]
    ) -> tuple[float, float]:
        """Return the sums over groups of their mean reward and of the share that ends in the right answer."""
        reward = right = 0.0
        for group, context, question in zip(groups, contexts, questions, strict=False):
            rewards, rights = graded(self.game, context, [each.text for each in group.completions], question.answer)
            reward += mean(rewards)
            right += mean(rights)
        return reward, right

    def _picked(self, frame: Generate, rules: Game) -> list[int]:
        """Return the questions of slots 0 to `groups` - 1."""
        data, size, common = self._questions.digest, len(self._questions), self.game.common
        return [
            rules.question(data, frame.seed, self._peer, frame.stage, slot, size, common)
            for slot in range(frame.groups)
        ]

    def _contexts(self, frame: Generate, questions: Sequence[Question]) -> list[StageContext]:
        quoted_bodies = decode_bodies(frame.quoted_bodies)
        return [
            StageContext(
                seed=frame.seed,
                stage=frame.stage,
                slot=slot,
                question=each.text,
                quoted=frame.quoted,
                quoted_bodies=quoted_bodies,
            )
            for slot, each in enumerate(questions)
        ]

    def _fitting(self, frame: Generate, groups: list[Group]) -> tuple[bytes, list[Group]]:
        """Return the encoded body; the last groups are left out where it would exceed the swarm's limit."""
        rules, fingerprint = game_named(self.game.name), self.engine.fingerprint
        bound = (frame.quoted, body_seed(rules, frame.seed), body_author(rules, self._peer))
        while True:
            body = encode(Rollouts(frame.round, frame.stage, fingerprint, tuple(groups), *bound))
            if len(body) <= self._manifest.limits.body or len(groups) <= 1:
                return body, groups
            log.warning("rollouts.too_large", size=len(body), limit=self._manifest.limits.body, groups=len(groups))
            groups = groups[: len(groups) * self._manifest.limits.body // len(body)] or groups[:1]

    def _slow_down(self, groups: int, task: TaskContext) -> None:
        """Simulate a slow machine: `slowdown` extra seconds per group."""
        end = time.monotonic() + self.settings.slowdown * groups
        while time.monotonic() < end:
            if task.cancelled():
                raise Cancelled("while simulating a slow machine")
            time.sleep(PAUSE)

    # --- train --------------------------------------------------------------------------------------------------

    def train(self, frame: Train, task: TaskContext) -> Trained:
        """Make at most `updates` updates, done within `seconds`."""
        began = self.learner.clock()
        own, external = self._pools(frame)
        steps: list[OptimizerStep] = []
        for number in range(frame.updates):
            step = self._update(own, external, began + frame.seconds, task)
            if step is None:
                break
            steps.append(step)
            task.progress(number + 1, frame.updates)
        return self._trained(frame, steps, self.learner.clock() - began)

    def _pools(self, frame: Train) -> tuple[ShuffledPool[TrainingGroup], ShuffledPool[TrainingGroup]]:
        """Return own groups, all of them, and external ones that have an advantage (SAPO's filter)."""
        quoted_bodies = decode_bodies(frame.quoted_bodies)
        own = self._groups([frame.own], quoted_bodies, external=False)
        external = grpo.informative(self._groups(frame.external, quoted_bodies, external=True))
        rng = random.Random(self._derived_seed("train", frame.round, frame.stage, b""))
        return ShuffledPool(own, rng), ShuffledPool(external, rng)

    def _groups(self, bodies: Sequence[bytes], quoted_bodies: QuotedBodies, *, external: bool) -> list[TrainingGroup]:
        read = [(rollouts, body_digest(body)) for body in bodies if (rollouts := read_body(body)) is not None]
        return [
            group
            for rollouts, digest in read
            for group in training_groups(
                rollouts,
                self._questions,
                self.game,
                self.engine,
                self.learner.objective,
                external=external,
                quoted_bodies=quoted_bodies,
                body=digest,
            )
        ]

    def _update(
        self, own: ShuffledPool[TrainingGroup], external: ShuffledPool[TrainingGroup], until: float, task: TaskContext
    ) -> OptimizerStep | None:
        """Make one update on groups drawn from both pools, own and external ones in turn; None without time for it."""
        mine = own.draw(self.game.local_groups)
        interleaved = zip_longest(mine, external.draw(most_external(self.game, len(mine))))
        groups = grpo.informative([group for pair in interleaved for group in pair if group is not None])
        if not groups:
            return NOTHING
        return self.learner.update(groups, until, task.cancelled, mean_nll(mine))

    def _trained(self, frame: Train, steps: list[OptimizerStep], seconds: float) -> Trained:
        self.learner.worked(frame.round)
        done = [step for step in steps if step.outcome.stepped]
        external = sum(group.external for step in done for group in step.groups)
        return Trained(
            task=frame.task,
            updates=len(done),
            own=sum(len(step.groups) for step in done) - external,
            external=external,
            loss=mean([step.outcome.loss for step in done]),
            seconds=seconds,
            off_policy=rejected_bodies(
                [group for step in steps for group in step.groups], [group for step in steps for group in step.rejected]
            ),
        )

    # --- evaluate, save -----------------------------------------------------------------------------------------

    def evaluate(self, frame: Evaluate, task: TaskContext) -> Evaluated:
        """Sample one answer to each held-out question, with the same random numbers every time."""
        began = time.monotonic()
        questions = self._questions.held_out(self._manifest.data.held_out)
        found = accuracy(self.engine, self.game, questions, task)
        return Evaluated(frame.task, found, len(questions), time.monotonic() - began)

    def save(self, frame: Save) -> Saved:
        """Write a checkpoint from which training resumes bit for bit on a CPU."""
        self.learner.worked(frame.round)
        self.learner.save()
        return Saved(frame.task, frame.round)

    # --- randomness ---------------------------------------------------------------------------------------------

    def _derived_seed(self, purpose: str, round_number: int, stage: int, seed: bytes) -> int:
        """Return 63 bits that depend on the node's seed and all of these, and on nothing else."""
        key = f"{purpose}/{self.settings.seed}/{self._peer}/{round_number}/{stage}/".encode() + seed
        return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big") >> 1

    def _generator(self, seed: int) -> torch.Generator:
        return torch.Generator().manual_seed(seed)


def graded(
    game: GameSpec, context: StageContext, completions: Sequence[str], answer: str
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the reward of each completion, and whether what it gives as its answer is right."""
    rules = game_named(game.name)
    final = [rules.final(game, context.stage, text) for text in completions]
    return rules.rewards(game, context, completions, answer), grades(game.grader, final, answer)


def accuracy(
    engine: Engine, game: GameSpec, questions: Sequence[Question], task: TaskContext, *, greedy: bool = False
) -> float:
    """Return the mean reward of one answer to each question, asked as the first stage asks it.

    Sampled with the same random numbers every time.
    """
    rules = game_named(game.name)
    contexts = [StageContext(seed=b"", stage=0, slot=0, question=question.text) for question in questions]
    texts = [fitted_prompt(game, context, engine) for context in contexts]
    rng = torch.Generator().manual_seed(EVALUATION_SEED)
    samples = engine.sample(texts, 1, rng, task.cancelled, greedy=greedy, progress=task.progress)
    rewards = [
        rules.rewards(game, context, [group[0].text], question.answer)[0]
        for group, context, question in zip(samples, contexts, questions, strict=True)
    ]
    return mean(rewards)


def mean(values: Sequence[float]) -> float:
    """Return the mean, 0.0 of nothing."""
    return sum(values) / len(values) if values else 0.0
