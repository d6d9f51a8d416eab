"""The link to the child, with one that only says what it is told to say."""

from __future__ import annotations

from pathlib import Path

import pytest

from node.config import TrainerSettings
from node.machine import commands as c
from node.machine import inputs as i
from node.trainer import frames as f
from node.trainer.link import TrainerLink
from protocols.identifiers import Digest
from protocols.manifest import Manifest

SEED = bytes(range(32))


class Shelf(dict[Digest, bytes]):
    """Bodies in memory."""

    def put(self, digest: Digest, body: bytes, round_number: int) -> None:
        self[digest] = body


class Child:
    """Takes frames as the true one does."""

    ready = True

    def __init__(self) -> None:
        self.sent: list[f.ToChild] = []

    def send(self, frame: f.ToChild) -> None:
        f.frame_bytes(frame)
        self.sent.append(frame)


class Linked:
    """A link to such a child, and what it has told the machine."""

    def __init__(self, manifest: Manifest) -> None:
        self.child, self.shelf = Child(), Shelf()
        self.link = TrainerLink(TrainerSettings(), manifest, "0x" + "11" * 20, Path("nowhere"), self.shelf)
        self.link._child = self.child  # type: ignore[assignment]

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
    assert [frame.task for frame in linked.child.sent] == [1]
