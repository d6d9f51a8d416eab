"""What the child does for each frame: one model, one optimiser, one data set."""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import structlog
import torch

from node.config import TrainerSettings
from node.data.load import load_questions
from node.seams import Question
from node.trainer import grpo
from node.trainer.checkpoint import Checkpoints, Counters
from node.trainer.engine import Cancelled, Engine, TrainingGroup
from node.trainer.frames import (
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
from node.trainer.models import load_engine
from node.trainer.rollouts import Deck, completion_of, read_body, training_groups
from protocols.assignment import assignment
from protocols.games.share import question_text, rewards
from protocols.manifest import GameSpec
from protocols.wire import Group, Rollouts, encode

log = structlog.get_logger()

WARM_UP = 5
"""Updates over which the learning rate rises."""

EVALUATION_SEED = 999
PAUSE = 0.02
"""Seconds: how often an imitated slow machine looks whether it was cancelled."""


class Desk(msgspec.Struct, frozen=True):
    """How a task speaks to the node: is it cancelled, and how far it is (done, total)."""

    cancelled: Callable[[], bool]
    progress: Callable[[int, int], None]


class NonFinite(Exception):  # noqa: N818 - what happened to the task
    """Every update of a task had a loss or gradient that is not finite."""


class Session:
    """The trainer's state between frames. Methods take a frame and return the frame that answers it.

    They raise `Cancelled`, `NonFinite`, MemoryError (or torch's errors for it); the weights are then those of the
    last whole update.
    """

    def __init__(self, setup: SetUp, engine: Engine | None = None) -> None:
        self.settings: TrainerSettings = setup.settings
        self._manifest, self._peer = setup.manifest, setup.peer
        self._questions = load_questions(setup.manifest.data, setup.settings.data)
        self.engine = engine or load_engine(setup.settings, setup.manifest.game, Path(setup.directory))
        self._optimizer = adam(self.engine, setup.settings)
        self._checkpoints = Checkpoints(Path(setup.directory) / "checkpoints")
        self.counters = self._checkpoints.resume(self.engine, self._optimizer) or Counters()
        self.micro_batch = setup.settings.micro_batch

    @property
    def game(self) -> GameSpec:
        """The swarm's game."""
        return self._manifest.game

    # --- generate -----------------------------------------------------------------------------------------------

    def generate(self, frame: Generate, desk: Desk) -> Generated:
        """Sample groups for the questions assigned to this peer; the same seed and weights give the same body."""
        began = time.monotonic()
        size = len(self._questions)
        digest = self._questions.digest
        picked = assignment(digest, frame.seed, self._peer, frame.stage, frame.groups, size)
        questions = [self._questions[each] for each in picked]
        samples = self.engine.sample(
            [question_text(self.game, question.text) for question in questions],
            self.game.group_size,
            self._generator(self._lot("generate", frame.round, frame.stage, frame.seed)),
            desk.cancelled,
            progress=desk.progress,
        )
        self._dawdle(frame.groups, desk)
        limits = self._manifest.limits
        groups = [
            Group(slot, question, tuple(completion_of(sample, limits) for sample in group))
            for slot, (question, group) in enumerate(zip(picked, samples, strict=True))
        ]
        body, groups = self._fitting(frame, groups)
        reward = sum(
            _mean(rewards(self.game, [each.text for each in group.completions], question.answer))
            for group, question in zip(groups, questions, strict=False)
        )
        return Generated(frame.task, body, len(groups), reward, time.monotonic() - began)

    def _fitting(self, frame: Generate, groups: list[Group]) -> tuple[bytes, list[Group]]:
        """Return the encoded body; the last groups are left out where it would exceed the swarm's limit."""
        while True:
            body = encode(Rollouts(frame.round, frame.stage, self.engine.fingerprint, tuple(groups)))
            if len(body) <= self._manifest.limits.body or len(groups) <= 1:
                return body, groups
            log.warning("rollouts.too_large", size=len(body), limit=self._manifest.limits.body, groups=len(groups))
            groups = groups[: len(groups) * self._manifest.limits.body // len(body)] or groups[:1]

    def _dawdle(self, groups: int, desk: Desk) -> None:
        """Imitate a slow machine: `slowdown` extra seconds per group."""
        end = time.monotonic() + self.settings.slowdown * groups
        while time.monotonic() < end:
            if desk.cancelled():
                raise Cancelled("while imitating a slow machine")
            time.sleep(PAUSE)

    # --- train --------------------------------------------------------------------------------------------------

    def train(self, frame: Train, desk: Desk) -> Trained:
        """Make updates until `updates` are made or another one would not fit into `seconds`."""
        began = time.monotonic()
        own, external = self._decks(frame)
        trained: list[tuple[grpo.Outcome, int, int]] = []
        longest = 0.0
        for number in range(frame.updates):
            start = time.monotonic()
            if number and start - began + longest > frame.seconds:
                break
            trained.append(self._update(own, external, desk))
            longest = max(longest, time.monotonic() - start)
            desk.progress(number + 1, frame.updates)
        return self._trained(frame, trained, time.monotonic() - began)

    def _decks(self, frame: Train) -> tuple[Deck[TrainingGroup], Deck[TrainingGroup]]:
        """Return own groups, all of them, and external ones that have an advantage (SAPO's filter)."""
        own = self._groups([frame.own], external=False)
        external = grpo.informative(self._groups(frame.external, external=True))
        rng = random.Random(self._lot("train", frame.round, frame.stage, b""))
        return Deck(own, rng), Deck(external, rng)

    def _groups(self, bodies: Sequence[bytes], *, external: bool) -> list[TrainingGroup]:
        read = [rollouts for body in bodies if (rollouts := read_body(body)) is not None]
        return [
            group
            for rollouts in read
            for group in training_groups(rollouts, self._questions, self.game, self.engine, external=external)
        ]

    def _update(
        self, own: Deck[TrainingGroup], external: Deck[TrainingGroup], desk: Desk
    ) -> tuple[grpo.Outcome, int, int]:
        """Make one update on groups dealt from both decks; return how it went, own and external groups used."""
        groups = grpo.informative([*own.deal(self.game.own), *external.deal(self.game.external)])
        foreign = sum(group.external for group in groups)
        outcome = self._stepped(groups, desk) if groups else grpo.Outcome(True, 0.0, 0.0, 0)
        if not outcome.stepped:
            log.warning("update.skipped", reason="not finite", loss=outcome.loss, norm=outcome.norm)
        return outcome, len(groups) - foreign, foreign

    def _stepped(self, groups: list[TrainingGroup], desk: Desk) -> grpo.Outcome:
        """Make the step; where memory runs out, again with half the micro-batch."""
        for group in self._optimizer.param_groups:
            group["lr"] = self.settings.learning_rate * min(1.0, (self.counters.updates + 1) / WARM_UP)
        while True:
            try:
                outcome = grpo.update(
                    self.engine, self._optimizer, groups, micro_batch=self.micro_batch, cancelled=desk.cancelled,
                    cap=self.settings.importance_cap, max_norm=self.settings.max_grad_norm,
                )  # fmt: skip
            except (MemoryError, RuntimeError) as error:
                if not is_memory(error) or self.micro_batch == 1:
                    raise
                self.micro_batch = self.micro_batch // 2
                log.warning("memory.short", micro_batch=self.micro_batch)
            else:
                made = self.counters.updates + outcome.stepped
                self.counters = msgspec.structs.replace(self.counters, updates=made)
                return outcome

    def _trained(self, frame: Train, updates: list[tuple[grpo.Outcome, int, int]], seconds: float) -> Trained:
        done = [each for each in updates if each[0].stepped]
        if updates and not done:
            raise NonFinite(f"loss or gradient of all {len(updates)} updates was not finite; weights are as before")
        self.counters = msgspec.structs.replace(self.counters, round=frame.round)
        return Trained(
            task=frame.task,
            updates=len(done),
            own=sum(own for _, own, _ in done),
            external=sum(external for _, _, external in done),
            loss=_mean([outcome.loss for outcome, _, _ in done]),
            seconds=seconds,
        )

    # --- evaluate, save -----------------------------------------------------------------------------------------

    def evaluate(self, frame: Evaluate, desk: Desk) -> Evaluated:
        """Sample one answer to each held-out question, with the same random numbers every time."""
        began = time.monotonic()
        questions = self._questions.held_out(self._manifest.data.held_out)
        found = accuracy(self.engine, self.game, questions, desk)
        return Evaluated(frame.task, found, len(questions), time.monotonic() - began)

    def save(self, frame: Save) -> Saved:
        """Write a checkpoint from which training resumes bit for bit on a CPU."""
        self._checkpoints.save(self.engine, self._optimizer, msgspec.structs.replace(self.counters, round=frame.round))
        return Saved(frame.task, frame.round)

    # --- randomness ---------------------------------------------------------------------------------------------

    def _lot(self, purpose: str, round_number: int, stage: int, seed: bytes) -> int:
        """Return 63 bits that depend on the node's seed and all of these, and on nothing else."""
        key = f"{purpose}/{self.settings.seed}/{self._peer}/{round_number}/{stage}/".encode() + seed
        return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big") >> 1

    def _generator(self, lot: int) -> torch.Generator:
        return torch.Generator(self.engine.device).manual_seed(lot)


def accuracy(
    engine: Engine, game: GameSpec, questions: Sequence[Question], desk: Desk, *, greedy: bool = False
) -> float:
    """Return the mean reward of one answer to each question, sampled with the same random numbers every time."""
    texts = [question_text(game, question.text) for question in questions]
    rng = torch.Generator(engine.device).manual_seed(EVALUATION_SEED)
    samples = engine.sample(texts, 1, rng, desk.cancelled, greedy=greedy, progress=desk.progress)
    graded = [
        rewards(game, [group[0].text], question.answer)[0] for group, question in zip(samples, questions, strict=True)
    ]
    return _mean(graded)


def adam(engine: Engine, settings: TrainerSettings) -> torch.optim.Optimizer:
    """Return the optimiser that trains an engine."""
    return torch.optim.AdamW(
        engine.parameters(), lr=settings.learning_rate, betas=(0.9, 0.95), weight_decay=0.0, fused=True
    )


def is_memory(error: BaseException) -> bool:
    """Tell whether an error says that memory ran out: Python's, torch's on a device, or torch's CPU allocator's."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and ("not enough memory" in str(error) or "out of memory" in str(error))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
