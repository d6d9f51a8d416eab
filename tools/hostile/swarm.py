"""One run: a swarm in one process, from its start to its last round."""

from __future__ import annotations

import hashlib
import logging
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import structlog
import torch

from node.data.arithmetic import ArithmeticQuestions
from node.data.questions import Questions
from node.machine.commands import PublishRollouts
from node.ports.bodies import CheckBody, Verdict
from node.trainer.engines.engine import Engine, TrainingGroup
from node.trainer.learning.grpo import MicroBatchLimit
from node.trainer.messages import Generate
from node.trainer.worker.session import Session
from node.validation.body_check import BodyCheck
from protocols.identifiers import Address, Digest, Seed, body_digest
from protocols.manifest import Manifest
from protocols.wire import Announcement, decode_rollouts, encode
from tools.hostile.arms import HostileArm, HostileResult, HostileSettings, address_of, manifest_of
from tools.hostile.attacks import spoilt
from tools.hostile.node import HonestPeer, Store, trainer_of
from tools.training import TASK


class HostilePeer:
    """A peer with a model that never learns, and no machine: it says in every round what its kind says."""

    def __init__(
        self, kind: str, manifest: Manifest, address: Address, trainer: Session, bodies: Store, questions: Questions
    ) -> None:
        self.address = address
        self.kind, self._game, self._limit = kind, manifest.game, manifest.limits.body
        self._trainer, self._bodies, self._questions = trainer, bodies, questions

    def announcement(self, number: int, seed: Seed) -> PublishRollouts:
        """Publish this round's body."""
        made = self._trainer.generate(Generate(0, number, 0, seed, self._game.num_prompts), TASK).body
        honest = decode_rollouts(made, body_digest(made), self._limit)
        draw = int.from_bytes(seed[:8], "big")
        body = encode(spoilt(self.kind, honest, self._game, self._questions, self._trainer.engine, draw))
        self._bodies.put(body_digest(body), body, number)
        return PublishRollouts(number, 0, seed, body_digest(body), len(body))


class Swarm(msgspec.Struct, frozen=True):
    """All peers of a run; `published` tells whose each body is that a hostile one published."""

    honest: list[HonestPeer]
    hostile: list[HostilePeer]
    published: dict[Digest, Address]

    def play(self, rounds: int, seed: int) -> None:
        """Play all rounds from the start."""
        everybody = [peer.address for peer in self.honest] + [peer.address for peer in self.hostile]
        for peer in self.honest:
            peer.join(everybody)
        for number in range(rounds):
            self._play_round(number, round_seed(seed, number))

    def _play_round(self, number: int, seed: Seed) -> None:
        for peer in self.honest:
            peer.open_round(number, seed)
        said = {peer.address: peer.said for peer in self.honest if peer.said}
        for hostile in self.hostile:
            said[hostile.address] = hostile.announcement(number, seed)
            self.published[said[hostile.address].body] = hostile.address
        for peer in self.honest:
            for address, announced in said.items():
                if address != peer.address:
                    peer.hear(address, announced)
            peer.wait()


def run(base: Path, arm: HostileArm, terms: HostileSettings, seed: int) -> HostileResult:
    """Play one arm from the start in `base`; the same seed gives the same result on the same kind of CPU."""
    torch.set_num_threads(1)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="swarm-hostile-") as home:
        swarm = gathered(base, Path(home), arm, terms, seed)
        swarm.play(terms.rounds, seed)
    return summed_up(swarm, arm, seed, time.monotonic() - began)


def gathered(base: Path, home: Path, arm: HostileArm, terms: HostileSettings, seed: int) -> Swarm:
    """Return the peers of an arm, each with a model of its own; honest ones have the same seeds in every arm."""
    manifest, bodies, questions = manifest_of(terms), Store(), ArithmeticQuestions()
    swarm = Swarm([], [], {})
    for number in range(1, terms.honest + len(arm.hostile) + 1):
        address = address_of(number)
        trainer = trainer_of(manifest, address, base, home / address, 1000 * seed + number)
        if not arm.filtered:
            trainer.learner.off_policy_filter = keep_all
        if number <= terms.honest:
            check = BodyCheck(manifest, questions, bodies)
            judged = check if arm.checked else disregarded(check)
            swarm.honest.append(HonestPeer(manifest, address, trainer, judged, check.remember, bodies))
        else:
            kind = arm.hostile[number - terms.honest - 1]
            swarm.hostile.append(HostilePeer(kind, manifest, address, trainer, bodies, questions))
    return swarm


def round_seed(seed: int, number: int) -> Seed:
    """Return what the contract would have drawn."""
    return hashlib.blake2b(f"hostile/{seed}/{number}".encode(), digest_size=32).digest()


def disregarded(check: CheckBody) -> CheckBody:
    """Return the check without its effect: what it refuses, or doubts, is accepted all the same."""

    def believed(peer: Address, said: Announcement, body: bytes) -> Verdict:
        found = check(peer, said, body)
        groups = len(decode_rollouts(body, said.body, len(body)).groups)
        return found if not found.reason else Verdict(reason="", groups=groups, reward=float(groups))

    return believed


def keep_all(
    engine: Engine,
    groups: Sequence[TrainingGroup],
    own_nll: float,
    limit: MicroBatchLimit,
    watch: Callable[[int], None],
) -> list[bool]:
    """Reject no group."""
    return [True] * len(groups)


def summed_up(swarm: Swarm, arm: HostileArm, seed: int, seconds: float) -> HostileResult:
    """Return what a run showed."""
    honest = swarm.honest
    hostile_peers = {peer.address for peer in swarm.hostile}
    refused: tuple[Counter[str], Counter[str]] = Counter(), Counter()
    for peer in honest:
        for (address, reason), count in peer.refused.items():
            refused[address in hostile_peers][reason] += count
    wronged, refuted = refused
    return HostileResult(
        arm=arm.name,
        seed=seed,
        before=[peer.state.curve[0].accuracy for peer in honest],
        after=[peer.state.curve[-1].accuracy for peer in honest],
        offered=len(swarm.published) * len(honest),
        used=sum(peer.trained_on[digest] for peer in honest for digest in swarm.published),
        refused=dict(refuted),
        wronged=dict(wronged),
        votes=sum(peer.votes.total() for peer in honest),
        misled=misled(swarm),
        skipped=sum(peer.skipped for peer in honest),
        seconds=seconds,
    )


def misled(swarm: Swarm) -> dict[str, int]:
    """Return how many votes of honest peers hostile ones won, by kind."""
    won: Counter[str] = Counter()
    for hostile in swarm.hostile:
        won[hostile.kind] += sum(peer.votes[hostile.address] for peer in swarm.honest)
    return dict(+won)
