"""What holds of any `node.ports.TrainerService`: the real one with a child process, and the fake.

A test module subclasses `TrainerExpectations` and gives the fixture `trainer`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeVar

import pytest
import trio

from node.data.arithmetic import ArithmeticQuestions
from node.machine import commands as c
from node.machine import inputs as i
from node.ports.trainer import TrainerService
from node.validation.body_check import check_body
from protocols.identifiers import Address, Digest
from protocols.manifest import DataSpec, GameSpec, Manifest
from protocols.wire import PROTOCOL_VERSION, Announcement

InputT = TypeVar("InputT", bound=i.AnyInput)

PEER: Address = "0x" + "11" * 20
SEED = bytes(range(32))
ROUND = 3
MANIFEST = Manifest(
    name="test",
    data=DataSpec(held_out=4),
    game=GameSpec(num_prompts=4, num_generations=2, local_groups=4, external_groups=4),
)
GENERATE = c.GenerateRollouts(ROUND, 0, SEED, 4)


class MemoryBodies:
    """Bodies in memory."""

    def __init__(self) -> None:
        self.kept: dict[Digest, bytes] = {}

    def get(self, digest: Digest) -> bytes | None:
        return self.kept.get(digest)

    def put(self, digest: Digest, body: bytes, round_number: int) -> None:
        self.kept[digest] = body


class TrainerUnderTest:
    """A trainer of `MANIFEST` and `PEER` that can be run more than once, the bodies that it keeps, what it reports.

    An input may take `seconds` to come.
    """

    def __init__(self, service: TrainerService, bodies: MemoryBodies, seconds: float) -> None:
        self.service, self.bodies, self._seconds = service, bodies, seconds
        self._send, self._reports = trio.open_memory_channel[i.AnyInput](100)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the service meanwhile."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.service.run, self._send.send)
            yield
            nursery.cancel_scope.cancel()

    async def next(self, kind: type[InputT]) -> InputT:
        """Return the next input, which is of this kind; wait for it."""
        with trio.fail_after(self._seconds):
            found = await self._reports.receive()
        assert isinstance(found, kind), found
        return found


async def generated(trainer: TrainerUnderTest) -> i.RolloutsGenerated:
    """Let it generate; return what it reports."""
    await trainer.service.execute(GENERATE)
    return await trainer.next(i.RolloutsGenerated)


class TrainerExpectations:
    """The tests. `trainer` is not running yet."""

    async def test_a_round_of_work_is_answered_in_order(self, trainer: TrainerUnderTest) -> None:
        """Each command by its own input, for its round and stage; a peer's check accepts the body, with its reward."""
        async with trainer.running():
            assert (await trainer.next(i.TrainerReady)).checkpoint_round == -1
            made = await generated(trainer)
            assert (made.round, made.stage, made.seed, made.groups) == (ROUND, 0, SEED, 4)
            body = trainer.bodies.kept[made.body]
            said = Announcement(PROTOCOL_VERSION, SEED, ROUND, 0, SEED, made.body, made.size, b"")
            verdict = check_body(MANIFEST, ArithmeticQuestions(), PEER, said, body)
            assert (verdict.reason, verdict.groups) == ("", 4)
            assert verdict.reward == pytest.approx(made.reward)
            for command in (
                c.TrainOnRollouts(ROUND, 0, made.body, (made.body,), 1, 60.0),
                c.EvaluateModel(ROUND),
                c.SaveCheckpoint(ROUND),
            ):
                await trainer.service.execute(command)
            trained = await trainer.next(i.TrainingFinished)
            assert (trained.round, trained.stage) == (ROUND, 0)
            assert trained.own == trained.external
            assert (await trainer.next(i.EvaluationFinished)).questions == 4
            assert await trainer.next(i.CheckpointSaved) == i.CheckpointSaved(ROUND)

    async def test_nothing_comes_of_a_command_before_it_is_ready(self, trainer: TrainerUnderTest) -> None:
        """The machine learns so at once, of this very command."""
        await trainer.service.execute(GENERATE)
        async with trainer.running():
            assert await trainer.next(i.WorkFailed) == i.WorkFailed("generate", ROUND, 0, "trainer away", SEED)
            await trainer.next(i.TrainerReady)

    async def test_what_is_aborted_is_not_answered(self, trainer: TrainerUnderTest) -> None:
        """What is given afterwards is answered, once."""
        async with trainer.running():
            await trainer.next(i.TrainerReady)
            await trainer.service.execute(GENERATE)
            await trainer.service.execute(c.EvaluateModel(ROUND))
            await trainer.service.execute(c.AbortWork(ROUND, 0, "a reorg"))
            await trainer.service.execute(c.SaveCheckpoint(ROUND + 1))
            assert await trainer.next(i.CheckpointSaved) == i.CheckpointSaved(ROUND + 1)
            assert (await generated(trainer)).round == ROUND

    async def test_training_on_bodies_that_are_gone_fails(self, trainer: TrainerUnderTest) -> None:
        """The machine learns so; the trainer goes on."""
        async with trainer.running():
            await trainer.next(i.TrainerReady)
            await trainer.service.execute(c.TrainOnRollouts(ROUND, 0, b"a" * 32, (b"b" * 32,), 1, 60.0))
            failed = await trainer.next(i.WorkFailed)
            assert (failed.task, failed.round, failed.stage) == ("train", ROUND, 0)
            await generated(trainer)

    async def test_it_resumes_from_its_checkpoint(self, trainer: TrainerUnderTest) -> None:
        """Run again, it says which round it has."""
        async with trainer.running():
            await trainer.next(i.TrainerReady)
            await trainer.service.execute(c.SaveCheckpoint(ROUND))
            await trainer.next(i.CheckpointSaved)
        async with trainer.running():
            assert (await trainer.next(i.TrainerReady)).checkpoint_round == ROUND
