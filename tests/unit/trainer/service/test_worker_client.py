"""The link to the child, with one that only says what it is told to say."""

from __future__ import annotations

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
    """Bodies in memory."""

    def put(self, digest: Digest, body: bytes, round_number: int) -> None:
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


class Linked:
    """A link to such a child, and what it has told the machine."""

    def __init__(self, manifest: Manifest) -> None:
        self.child, self.bodies = Child(), MemoryBodies()
        self.link = WorkerClient(TrainerSettings(), manifest, "0x" + "11" * 20, Path("nowhere"), self.bodies)
        self.link._child = self.child  # type: ignore[assignment]

    def hears(self, *frames: f.FromChild) -> None:
        for frame in frames:
            self.link._take(self.child, frame)  # type: ignore[arg-type]

    async def lost(self) -> str:
        with pytest.raises(WorkerLost) as lost:
            await self.link._listen(self.child)  # type: ignore[arg-type]
        return str(lost.value)

    def told(self) -> list[i.AnyInput]:
        found = []
        while self.link._reports_out.statistics().current_buffer_used:
            found.append(self.link._reports_out.receive_nowait())
        return found


@pytest.fixture
def linked() -> Linked:
    return Linked(Manifest(name="test"))


async def test_an_order_that_no_frame_holds_is_refused(linked: Linked, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine learns that nothing comes of it, and the child is not expected to answer."""
    monkeypatch.setattr(f, "FRAME_LIMIT", 64)
    await linked.link.execute(c.GenerateRollouts(3, 0, bytes(100), 8))
    (failed,) = linked.told()
    assert isinstance(failed, i.WorkFailed)
    assert "exceeds the limit" in failed.reason
    monkeypatch.undo()
    await linked.link.execute(c.GenerateRollouts(3, 0, SEED, 8))
    assert linked.told() == []
    assert [getattr(frame, "task", None) for frame in linked.child.sent] == [1]


# --- aborted work -----------------------------------------------------------------------------------------------------

AGAIN = c.GenerateRollouts(3, 0, bytes(32), 8)
"""The same stage once more, after a reorg that gave it another seed."""


@pytest.mark.parametrize(
    "late", [f.Failed(1, "cancelled", "cancelled between two tokens"), f.Generated(1, b"old", 8, 4.0, 9.0)]
)
async def test_what_becomes_of_aborted_work_is_not_taken_for_the_new(linked: Linked, late: f.FromChild) -> None:
    """It is neither told nor kept, whether the child gave it up or was done with it already; the new work's is."""
    await linked.link.execute(c.GenerateRollouts(3, 0, SEED, 8))
    await linked.link.execute(c.AbortWork(3, 0, "a reorg"))
    await linked.link.execute(AGAIN)
    linked.hears(late)
    assert linked.told() == []
    assert linked.bodies == {}
    linked.hears(f.Generated(2, b"new", 8, 4.0, 9.0))
    (made,) = linked.told()
    assert isinstance(made, i.RolloutsGenerated)
    assert list(linked.bodies.values()) == [b"new"]


async def test_an_answer_nobody_asked_for_ends_the_child(linked: Linked) -> None:
    """Nor may an aborted task be answered twice."""
    with pytest.raises(WorkerLost, match="task 7"):
        linked.hears(f.Saved(7, 3))
    await linked.link.execute(AGAIN)
    await linked.link.execute(c.AbortWork(3, 0, "late"))
    linked.hears(f.Failed(1, "cancelled", ""))
    with pytest.raises(WorkerLost, match="task 1"):
        linked.hears(f.Failed(1, "cancelled", ""))


async def test_a_child_that_only_lives_is_lost(linked: Linked, autojump_clock: MockClock) -> None:
    """Its reader says so every second, but what it was to give up it never does."""
    await linked.link.execute(c.GenerateRollouts(3, 0, SEED, 8))
    await trio.sleep(5000)
    began = trio.current_time()
    await linked.link.execute(c.AbortWork(3, 0, "late"))
    await linked.link.execute(AGAIN)
    await trio.sleep(100)
    await linked.link.execute(c.AbortWork(3, 0, "late"))
    assert await linked.lost() == "it did not give up its task within 300 s"
    assert trio.current_time() - began == pytest.approx(301, abs=1)


async def test_a_child_that_gives_up_late_is_kept(linked: Linked, autojump_clock: MockClock) -> None:
    """Once it has answered what was aborted, nothing presses it."""
    await linked.link.execute(c.GenerateRollouts(3, 0, SEED, 8))
    await linked.link.execute(c.AbortWork(3, 0, "late"))
    await linked.link.execute(AGAIN)
    await trio.sleep(290)
    linked.child.says = [f.Failed(1, "cancelled", "")]
    with trio.move_on_after(5000):
        await linked.lost()
    assert trio.current_time() > 5000


async def test_slow_machines_have_as_long_as_a_stage(autojump_clock: MockClock) -> None:
    """What some stage has time for is not taken for a fault."""
    slow = Linked(Manifest(name="test", stages=(StageSpec(name="a", seconds=60), StageSpec(name="b", seconds=3600))))
    await slow.link.execute(AGAIN)
    await slow.link.execute(c.AbortWork(3, 0, "late"))
    assert await slow.lost() == "it did not give up its task within 3600 s"
