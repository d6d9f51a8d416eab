"""The client to the child, with one that only says what it is told to say."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from node.config import TrainerSettings
from node.machine import commands as c
from node.machine import inputs as i
from node.trainer import messages as f
from node.trainer.service.worker_client import WorkerClient, WorkerLost
from protocols.identifiers import Digest
from protocols.manifest import Manifest, StageSpec

SEED = bytes(range(32))


class MemoryBodies(dict[Digest, bytes]):
    """Bodies in memory, or on a disk that is full."""

    full = False

    def put(self, digest: Digest, body: bytes, round_number: int) -> None:
        if self.full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self[digest] = body


class Child:
    """Takes frames as the true one does, and says what it is told to, or every second that it lives."""

    ready = True

    def __init__(self) -> None:
        self.sent: list[f.ToChild] = []
        self.says: list[f.FromChild] = []

    async def receive(self) -> f.FromChild:
        await trio.sleep(1)
        return self.says.pop(0) if self.says else f.Heartbeat()

    def send(self, frame: f.ToChild) -> None:
        f.frame_bytes(frame)
        self.sent.append(frame)


class ClientUnderTest:
    """A client to such a child, and what it has told the machine."""

    def __init__(self, manifest: Manifest) -> None:
        self.child, self.bodies = Child(), MemoryBodies()
        self.client = WorkerClient(TrainerSettings(), manifest, "0x" + "11" * 20, Path("nowhere"), self.bodies)
        self.client._child = self.child  # type: ignore[assignment]

    def hears(self, *frames: f.FromChild) -> None:
        for frame in frames:
            self.client._take(self.child, frame)  # type: ignore[arg-type]

    async def lost(self) -> str:
        with pytest.raises(WorkerLost) as lost:
            await self.client._listen(self.child)  # type: ignore[arg-type]
        return str(lost.value)

    def told(self) -> list[i.AnyInput]:
        found = []
        while self.client._reports_out.statistics().current_buffer_used:
            found.append(self.client._reports_out.receive_nowait())
        return found


@pytest.fixture
def under_test() -> ClientUnderTest:
    return ClientUnderTest(Manifest(name="test"))


async def test_a_job_that_no_frame_holds_is_refused(
    under_test: ClientUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine learns that nothing comes of it, and the child is not expected to answer."""
    monkeypatch.setattr(f, "FRAME_LIMIT", 64)
    await under_test.client.execute(c.GenerateRollouts(3, 0, bytes(100), 8))
    (failed,) = under_test.told()
    assert isinstance(failed, i.WorkFailed)
    assert "exceeds the limit" in failed.reason
    monkeypatch.undo()
    await under_test.client.execute(c.GenerateRollouts(3, 0, SEED, 8))
    assert under_test.told() == []
    assert [getattr(frame, "task", None) for frame in under_test.child.sent] == [1]


async def test_rollouts_that_can_not_be_kept_are_given_up(under_test: ClientUnderTest) -> None:
    """A full disk costs the stage and not the child: the machine learns why, and the next work is done."""
    under_test.bodies.full = True
    await under_test.client.execute(c.GenerateRollouts(3, 0, SEED, 8))
    under_test.hears(f.Generated(1, b"body", 8, 4.0, 9.0))
    (failed,) = under_test.told()
    reason = "the rollouts could not be kept: No space left on device"
    assert failed == i.WorkFailed("generate", 3, 0, reason, SEED)
    under_test.bodies.full = False
    await under_test.client.execute(c.GenerateRollouts(4, 0, SEED, 8))
    under_test.hears(f.Generated(2, b"next", 8, 4.0, 9.0))
    assert [type(each) for each in under_test.told()] == [i.RolloutsGenerated]


# --- aborted work -----------------------------------------------------------------------------------------------------

AGAIN = c.GenerateRollouts(3, 0, bytes(32), 8)
"""The same stage once more, after a reorg that gave it another seed."""


@pytest.mark.parametrize(
    "late", [f.Failed(1, "cancelled", "cancelled between two tokens"), f.Generated(1, b"old", 8, 4.0, 9.0)]
)
async def test_what_becomes_of_aborted_work_is_not_taken_for_the_new(
    under_test: ClientUnderTest, late: f.FromChild
) -> None:
    """It is neither told nor kept, whether the child gave it up or was done with it already; the new work's is."""
    await under_test.client.execute(c.GenerateRollouts(3, 0, SEED, 8))
    await under_test.client.execute(c.AbortWork(3, 0, "a reorg"))
    await under_test.client.execute(AGAIN)
    under_test.hears(late)
    assert under_test.told() == []
    assert under_test.bodies == {}
    under_test.hears(f.Generated(2, b"new", 8, 4.0, 9.0))
    (made,) = under_test.told()
    assert isinstance(made, i.RolloutsGenerated)
    assert list(under_test.bodies.values()) == [b"new"]


async def test_an_answer_nobody_asked_for_ends_the_child(under_test: ClientUnderTest) -> None:
    """Nor may an aborted task be answered twice."""
    with pytest.raises(WorkerLost, match="task 7"):
        under_test.hears(f.Saved(7, 3))
    await under_test.client.execute(AGAIN)
    await under_test.client.execute(c.AbortWork(3, 0, "late"))
    under_test.hears(f.Failed(1, "cancelled", ""))
    with pytest.raises(WorkerLost, match="task 1"):
        under_test.hears(f.Failed(1, "cancelled", ""))


async def test_a_child_that_only_lives_is_lost(under_test: ClientUnderTest, autojump_clock: MockClock) -> None:
    """Its reader says so every second, but what it was to give up it never does."""
    await under_test.client.execute(c.GenerateRollouts(3, 0, SEED, 8))
    await trio.sleep(5000)
    began = trio.current_time()
    await under_test.client.execute(c.AbortWork(3, 0, "late"))
    await under_test.client.execute(AGAIN)
    await trio.sleep(100)
    await under_test.client.execute(c.AbortWork(3, 0, "late"))
    assert await under_test.lost() == "it did not give up its task within 300 s"
    assert trio.current_time() - began == pytest.approx(301, abs=1)


async def test_a_child_that_gives_up_late_is_kept(under_test: ClientUnderTest, autojump_clock: MockClock) -> None:
    """Once it has answered what was aborted, nothing presses it."""
    await under_test.client.execute(c.GenerateRollouts(3, 0, SEED, 8))
    await under_test.client.execute(c.AbortWork(3, 0, "late"))
    await under_test.client.execute(AGAIN)
    await trio.sleep(290)
    under_test.child.says = [f.Failed(1, "cancelled", "")]
    with trio.move_on_after(5000):
        await under_test.lost()
    assert trio.current_time() > 5000


async def test_slow_machines_have_as_long_as_a_stage(autojump_clock: MockClock) -> None:
    """What some stage has time for is not taken for a fault."""
    slow = ClientUnderTest(
        Manifest(name="test", stages=(StageSpec(name="a", seconds=60), StageSpec(name="b", seconds=3600)))
    )
    await slow.client.execute(AGAIN)
    await slow.client.execute(c.AbortWork(3, 0, "late"))
    assert await slow.lost() == "it did not give up its task within 3600 s"
