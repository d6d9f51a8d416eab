"""A trainer without a model: the interface of `WorkerClient`, bodies that pass every check, seconds by a given clock.

Its skill is one number, the chance that a completion is right; training on groups with an advantage raises it. The same
commands give the same bodies.
"""

from __future__ import annotations

import math
import struct
from collections import deque
from collections.abc import Awaitable, Callable, Iterable

import msgspec
import trio

from node.data.arithmetic import Draws
from node.data.questions import Question, Questions
from node.machine import commands as c
from node.machine import inputs as i
from node.ports.bodies import Bodies
from node.ports.service import Report
from node.trainer.service.jobs import Work, bodies_quoted_by, job_for, refusal
from node.validation.body_check import stage_context
from protocols.games import QuotedBodies, body_author, body_seed, game_named
from protocols.games.share import has_advantage
from protocols.identifiers import Address, Digest, body_digest
from protocols.manifest import Manifest
from protocols.wire import Completion, Group, Rollouts, decode_rollouts, encode, quoted_in

TOKENIZER: Digest = body_digest(b"tests.support.fake_trainer")
PARTS_PER_MILLION = 1_000_000


class FakeSpeed(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds that things take: loading, one group, one update, an evaluation, a checkpoint."""

    load: float = 3.0
    group: float = 0.1
    update: float = 1.0
    evaluation: float = 2.0
    save: float = 0.05


class FakeTrainer:
    """`node.ports.trainer.TrainerService` with an arithmetic of learning instead of a model."""

    name = "trainer"
    tokenizer = TOKENIZER

    def __init__(
        self,
        manifest: Manifest,
        peer: Address,
        questions: Questions,
        bodies: Bodies,
        *,
        speed: FakeSpeed | None = None,
        skill: float = 0.25,
        gain: float = 0.002,
        sleep: Callable[[float], Awaitable[None]] = trio.sleep,
    ) -> None:
        self._manifest, self._peer, self._questions, self._bodies = manifest, peer, questions, bodies
        self._speed, self._gain, self._sleep = speed or FakeSpeed(), gain, sleep
        self.skill = skill
        self.saved: tuple[int, float] = (-1, skill)
        self._queue: deque[Work] = deque()
        self._more = trio.Event()
        self._task: trio.CancelScope | None = None
        self._child: trio.CancelScope | None = None
        self._reports_in, self._reports_out = trio.open_memory_channel[i.AnyInput](math.inf)
        self._lost = i.TrainerLost("")

    async def execute(self, command: c.TrainerCommand) -> None:
        """Queue a command, forget everything for `AbortWork`, refuse while the child is away."""
        if isinstance(command, c.AbortWork):
            self._abort()
        elif self._child is None:
            self._reports_in.send_nowait(refusal(command, "trainer away"))
        elif isinstance(reason := job_for(0, command, self._bodies, self._manifest.limits.body), str):
            self._reports_in.send_nowait(refusal(command, reason))
        else:
            self._queue.append(command)
            self._more.set()

    def _abort(self) -> None:
        """Cancel every task given so far. The machine has given them up, and waits for no answer."""
        if self._task is not None:
            self._task.cancel()
        self._queue.clear()

    def lose(self, reason: str, *, shrink: bool = False) -> None:
        """Let the child die: what it learned since the last checkpoint is gone."""
        if self._child is not None:
            self._lost = i.TrainerLost(reason, shrink)
            self._child.cancel()

    async def run(self, report: Report) -> None:
        """Keep a child until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._forward, report)
            while True:
                await self._sleep(self._speed.load)
                await self._live()

    async def _forward(self, report: Report) -> None:
        async for happened in self._reports_out:
            await report(happened)

    async def _live(self) -> None:
        checkpoint_round, self.skill = self.saved
        try:
            with trio.CancelScope() as self._child:
                self._reports_in.send_nowait(i.TrainerReady(0, "fake", checkpoint_round))
                await self._work()
        finally:
            self._child = self._task = None
            self._queue.clear()
        self._reports_in.send_nowait(self._lost)

    async def _work(self) -> None:
        """Carry commands out until cancelled."""
        while True:
            await self._more.wait()
            self._more = trio.Event()
            while self._queue:
                await self._carry_out(self._queue.popleft())

    async def _carry_out(self, command: Work) -> None:
        happened: i.AnyInput | None = None
        with trio.CancelScope() as self._task:
            happened = await self._result(command)
        self._task = None
        await trio.lowlevel.checkpoint_if_cancelled()
        if happened is not None:
            self._reports_in.send_nowait(happened)

    async def _result(self, command: Work) -> i.AnyInput:
        match command:
            case c.GenerateRollouts():
                return await self._generate(command)
            case c.TrainOnRollouts():
                return await self._train(command)
            case c.EvaluateModel():
                await self._sleep(self._speed.evaluation)
                count = self._manifest.data.held_out
                return i.EvaluationFinished(command.round, self.skill, count, self._speed.evaluation)
            case c.SaveCheckpoint():
                await self._sleep(self._speed.save)
                self.saved = (command.round, self.skill)
                return i.CheckpointSaved(command.round)

    async def _generate(self, command: c.GenerateRollouts) -> i.AnyInput:
        seconds = self._speed.group * command.groups
        await self._sleep(seconds)
        body, reward = fake_body(
            self._manifest, self._questions, self._peer, command, self.skill, decode_bodies(self._kept(command.quoted))
        )
        digest = body_digest(body)
        try:
            self._bodies.put(digest, body, command.round)
        except OSError as error:
            return refusal(command, f"the rollouts could not be kept: {error.strerror}")
        return i.RolloutsGenerated(
            command.round, command.stage, digest, len(body), command.groups, reward, seconds, seed=command.seed
        )

    async def _train(self, command: c.TrainOnRollouts) -> i.AnyInput:
        seconds = min(self._speed.update * command.updates, command.seconds)
        await self._sleep(seconds)
        own = self._informative([command.own], self._manifest.game.local_groups) * command.updates
        external = self._informative(command.external, self._manifest.game.external_groups) * command.updates
        self.skill += (1 - self.skill) * (1 - (1 - self._gain) ** (own + external))
        return i.TrainingFinished(command.round, command.stage, command.updates, own, external, 0.0, seconds)

    def _informative(self, digests: list[Digest] | tuple[Digest, ...], most: int) -> int:
        """Return how many groups in these bodies have an advantage, at most `most`."""
        bodies = [body for digest in digests if (body := self._bodies.get(digest))]
        quoted_bodies = decode_bodies(self._kept([each for body in bodies for each in quoted_in(body)]))
        return min(
            most,
            sum(
                has_advantage(graded(self._manifest, self._questions, rollouts, group, quoted_bodies))
                for rollouts in decode_bodies(bodies).values()
                for group in rollouts.groups
            ),
        )

    def _kept(self, quoted: Iterable[Digest]) -> tuple[bytes, ...]:
        return bodies_quoted_by(quoted, self._bodies)[0]


def decode_bodies(bodies: Iterable[bytes]) -> QuotedBodies:
    """Return decoded bodies by digest."""
    return {body_digest(body): decode_rollouts(body, body_digest(body), len(body)) for body in bodies}


def graded(
    manifest: Manifest, questions: Questions, rollouts: Rollouts, group: Group, quoted_bodies: QuotedBodies
) -> tuple[float, ...]:
    """Return the rewards of a group's completions."""
    context, answer = stage_context(questions, rollouts, group, quoted_bodies), questions[group.question].answer
    rules = game_named(manifest.game.name)
    return rules.rewards(manifest.game, context, [each.text for each in group.completions], answer)


def fake_body(
    manifest: Manifest,
    questions: Questions,
    peer: Address,
    asked: c.GenerateRollouts,
    skill: float,
    quoted_bodies: QuotedBodies,
) -> tuple[bytes, float]:
    """Return an encoded body for a command, and the sum of its groups' mean rewards.

    `quoted_bodies` holds what it quotes.
    """
    rules, data, size = game_named(manifest.game.name), questions.digest, len(questions)
    draws = Draws(f"fake/{peer}/{asked.seed.hex()}/{asked.round}/{asked.stage}")
    made = []
    for slot in range(asked.groups):
        number = rules.question(data, asked.seed, peer, asked.stage, slot, size, manifest.game.common)
        completions = (_completion(questions[number], skill, draws) for _ in range(manifest.game.num_generations))
        made.append(Group(slot, number, tuple(completions)))
    bound = (asked.quoted, body_seed(rules, asked.seed), body_author(rules, peer))
    body = Rollouts(asked.round, asked.stage, TOKENIZER, tuple(made), *bound)
    rewards = [graded(manifest, questions, body, group, quoted_bodies) for group in made]
    return encode(body), sum(sum(each) / len(each) for each in rewards)


def _completion(question: Question, skill: float, draws: Draws) -> Completion:
    right = draws.below(PARTS_PER_MILLION) < skill * PARTS_PER_MILLION
    number = question.answer.rsplit("####", 1)[-1].strip()
    draft = draws.below(PARTS_PER_MILLION)
    text = f"Draft {draft}.\n#### {number if right else 'none'}"
    count = 3
    return Completion(text, struct.pack(f"<{count}I", *range(count)), struct.pack(f"<{count}f", *[-1.0] * count), True)
