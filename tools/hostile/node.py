"""An honest peer: the node's own machine and trainer; chain, network and clock are the trial's."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeAlias

from node.machine import commands as c
from node.machine import inputs as i
from node.machine import notices as n
from node.machine.state import Output, initial
from node.machine.step import step
from node.network.pubsub.announcer import announcement_of
from node.ports.bodies import Bodies, CheckBody
from node.trainer import messages as f
from node.trainer.service.jobs import input_of, job_for
from node.trainer.worker.main import carry_out
from node.trainer.worker.session import Session
from protocols.identifiers import Address, Digest, Seed, body_digest
from protocols.manifest import Manifest
from protocols.wire import Announcement
from tools.hostile.arms import STAGE_SECONDS
from tools.training import TASK

SWARM: Digest = bytes(32)
READY: tuple[i.AnyInput, ...] = (
    i.NodeStarted(), i.TrainerReady(0, "cpu", -1), i.NetworkChanged(1), i.ChainRestored(0.0)
)  # fmt: skip


Task: TypeAlias = c.GenerateRollouts | c.TrainOnRollouts | c.EvaluateModel | c.SaveCheckpoint


class Store:
    """`node.ports.bodies.Bodies` that all peers share: a network in which every body can be had."""

    def __init__(self) -> None:
        self._bodies: dict[Digest, bytes] = {}

    def get(self, digest: Digest) -> bytes | None:
        """Return a body."""
        return self._bodies.get(digest)

    def put(self, digest: Digest, body: bytes, round_number: int) -> None:
        """Keep a body."""
        self._bodies[digest] = body


class HonestPeer:
    """Feeds its machine and does at once what that commands.

    `said` is what it last published; `votes` counts for whom it voted, `trained_on` external bodies, `refused` those
    that it refused by peer and reason, `skipped` the stages that it did not play.
    """

    def __init__(
        self,
        manifest: Manifest,
        address: Address,
        trainer: Session,
        check: CheckBody,
        remember: Callable[[Address, Announcement, bytes], None],
        bodies: Bodies,
    ) -> None:
        self.address = address
        self.state = initial(address, manifest)
        self.said: c.PublishRollouts | None = None
        self.votes: Counter[Address] = Counter()
        self.trained_on: Counter[Digest] = Counter()
        self.refused: Counter[tuple[Address, str]] = Counter()
        self.skipped = 0
        self._limit = manifest.limits.body
        self._trainer, self._check, self._remember, self._bodies = trainer, check, remember, bodies
        self._timers: dict[str, float] = {}
        self._now = 0.0

    # --- what happens -----------------------------------------------------------------------------------------------

    def join(self, peers: Iterable[Address]) -> None:
        """Start, in a swarm of these peers."""
        for happened in (*READY, *(i.PeerRegistered(peer, 0) for peer in peers)):
            self._take(happened)

    def open_round(self, number: int, seed: Seed) -> None:
        """Play a round up to the announcement."""
        opened = number * STAGE_SECONDS
        self._now = float(opened)
        self._take(i.StageOpened(number, 0, seed, opened + STAGE_SECONDS, opened, number))

    def hear(self, peer: Address, said: c.PublishRollouts) -> None:
        """Take another peer's announcement."""
        self._take(i.RolloutsAnnounced(peer, said.round, said.stage, said.body, said.size, inline=False))

    def wait(self) -> None:
        """Let the round's time pass: what waits for somebody waits no longer."""
        until = self._now + STAGE_SECONDS - 1
        while due := [(at, name) for name, at in self._timers.items() if at <= until]:
            at, name = min(due)
            del self._timers[name]
            self._now = max(self._now, at)
            self._take(i.TimerFired(name))

    def _take(self, happened: i.AnyInput) -> None:
        waiting = deque([happened])
        while waiting:
            self.state, commands = step(self.state, i.Stamped(self._now, waiting.popleft()))
            for command in commands:
                waiting.extend(self._answers(command))

    # --- what is commanded ------------------------------------------------------------------------------------------

    def _answers(self, command: Output) -> Iterable[i.AnyInput]:
        """Do what is commanded; return what comes of it. Whatever is for the chain but votes is left alone."""
        match command:
            case c.GenerateRollouts() | c.TrainOnRollouts() | c.EvaluateModel() | c.SaveCheckpoint():
                return self._worked(command)
            case c.FetchRollouts():
                return (self._fetched(command),)
            case c.PublishRollouts():
                self.said = command
                body = self._bodies.get(command.body)
                assert body is not None
                self._remember(self.address, announcement_of(command, SWARM), body)
            case n.BodyUncounted():
                self.refused[command.peer, command.reason] += 1
            case c.CastVote():
                self.votes.update(command.winners)
            case c.SetTimer():
                self._timers[command.name] = command.at
            case n.SkippedToRound():
                self.skipped += 1
            case _:
                pass
        return ()

    def _worked(self, command: Task) -> list[i.AnyInput]:
        job = job_for(0, command, self._bodies, self._limit)
        assert not isinstance(job, str), job
        if isinstance(command, c.TrainOnRollouts):
            self.trained_on.update(command.external)
        answer = carry_out(self._trainer, job.frame, TASK)
        if isinstance(answer, f.Generated):
            self._bodies.put(body_digest(answer.body), answer.body, command.round)
        reported = input_of(job, answer)
        return [] if reported is None else [reported]

    def _fetched(self, command: c.FetchRollouts) -> i.AnyInput:
        body = self._bodies.get(command.body)
        assert body is not None
        verdict = self._check(command.peer, announcement_of(command, SWARM), body)
        where = (command.peer, command.round, command.stage, command.body)
        if verdict.reason:
            self.refused[command.peer, verdict.reason] += 1
            return i.RolloutsRefused(*where, verdict.reason, verdict.missing)
        return i.RolloutsArrived(*where, verdict.groups, verdict.reward, verdict.alike, verdict.doubt)


def trainer_of(manifest: Manifest, address: Address, base: Path, home: Path, seed: int) -> Session:
    """Return a trainer with a model of its own, from the start in `base`."""
    settings = f.TrainerSettings(model=str(base), seed=seed, device="cpu")
    return Session(f.SetUp(settings, manifest, address, str(home)))
