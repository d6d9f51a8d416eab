"""One run: peers in one process, on the node's own engine and update."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from node.config import TrainerSettings
from node.data.arithmetic import ArithmeticQuestions
from node.data.questions import Questions
from node.trainer.engines.builtin.builtin_engine import BuiltinEngine
from node.trainer.learning.optimizer import make_optimizer
from node.trainer.worker.session import accuracy
from protocols.games.share import rewards
from protocols.manifest import GameSpec
from tools.sapo.arms import SapoArm, SapoResult, SapoSettings, chosen
from tools.training import TASK, Rollout, sampled, training_group, updated


class SapoPeer:
    """One peer: model, optimiser, and random numbers of its own."""

    def __init__(self, base: Path, game: GameSpec, settings: TrainerSettings, seed: int) -> None:
        self._game, self._settings = game, settings
        self._engine = BuiltinEngine.load(base, game, "cpu")
        self._optimizer = make_optimizer(self._engine, settings)
        self._rng = torch.Generator().manual_seed(seed)
        self._picks = random.Random(seed)

    def generate(self, questions: Questions, count: int) -> list[Rollout]:
        """Return `count` graded groups on questions of this peer's own."""
        picked = [questions[each] for each in self._picks.sample(range(len(questions)), count)]
        groups = sampled(self._engine, self._game, [each.text for each in picked], self._rng)
        return [
            Rollout(question.text, group, rewards(self._game, [each.text for each in group], question.answer))
            for question, group in zip(picked, groups, strict=True)
        ]

    def train(self, own: Sequence[Rollout], external: Sequence[Rollout]) -> int:
        """Make one update; groups without advantage, and off-policy ones, fall out of it, as in a node.

        Return how many were off-policy.
        """
        groups = [training_group(self._engine, self._game, each) for each in own]
        groups += [training_group(self._engine, self._game, each, external=True) for each in external]
        return updated(self._engine, self._optimizer, groups, self._settings, self._game)

    def accuracy(self, questions: Questions, count: int) -> float:
        """Return the held-out accuracy, sampled."""
        return accuracy(self._engine, self._game, questions.held_out(count), TASK)


def run(base: Path, arm: SapoArm, terms: SapoSettings, seed: int) -> SapoResult:
    """Play one arm from the start in `base`; the same seed gives the same result on the same kind of CPU."""
    torch.set_num_threads(1)
    began = time.monotonic()
    questions = ArithmeticQuestions()
    game = GameSpec(num_generations=terms.num_generations)
    settings = TrainerSettings(learning_rate=terms.rate)
    peers = [SapoPeer(base, game, settings, 1000 * seed + number) for number in range(terms.peers)]
    draw = random.Random(seed)
    sums: list[float] = []
    accuracies = [(0, peers[0].accuracy(questions, terms.questions))]
    tokens = used = external_used = 0
    for number in range(1, terms.rounds + 1):
        made = [peer.generate(questions, arm.num_prompts) for peer in peers]
        sums.append(sum(sum(each.mean for each in mine) / len(mine) for mine in made))
        tokens += sum(len(sample.tokens) for mine in made for each in mine for sample in each.samples)
        for peer, mine in zip(peers, made, strict=True):
            others = [each for theirs in made if theirs is not mine for each in theirs]
            own, external = chosen(arm, mine, others, draw)
            used += sum(each.informative for each in own)
            external_used += len(external) - peer.train(own, external)
        if number % terms.every == 0 or number == terms.rounds:
            found = [peer.accuracy(questions, terms.questions) for peer in peers]
            accuracies.append((number, sum(found) / len(found)))
    return SapoResult(
        arm=arm.name, seed=seed, rewards=sums, accuracies=accuracies, tokens=tokens, own_used=used,
        external_used=external_used, seconds=time.monotonic() - began,
    )  # fmt: skip
