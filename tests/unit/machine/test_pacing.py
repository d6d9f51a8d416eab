"""What a node believes of its own speed: it is wrong for a few stages at most, whatever held it up once."""

from __future__ import annotations

import pytest

from node.machine import inputs as i
from node.machine.state import State, initial
from node.machine.step import step
from protocols.identifiers import body_digest
from protocols.manifest import Manifest, StageSpec

ME = f"0x{1:040x}"
SECONDS = 60
FEW = 8
"""Stages that a node may skip before it tries again."""


class Node:
    """A node alone in its swarm, whose trainer takes ten seconds to train, and as long to generate all groups."""

    def __init__(self, late: float) -> None:
        self.late = late
        self.state: State = initial(ME, Manifest(name="speed", stages=(StageSpec(name="play", seconds=SECONDS),)))
        for happened in (i.NodeStarted(), i.ChainRestored(0.0), i.PeerRegistered(ME, 0), i.TrainerReady(1, "cpu", -1)):
            self.happens(0.0, happened)

    def happens(self, at: float, happened: i.AnyInput) -> None:
        self.state, _ = step(self.state, i.Stamped(at, happened))

    def opens(self, number: int) -> float:
        """Open a round, of which it hears late; return when it does."""
        begun = number * SECONDS
        seed = body_digest(str(number).encode())
        self.happens(begun + self.late, i.StageOpened(number, 0, seed, begun + SECONDS, begun, 1))
        return begun + self.late

    def plays(self, number: int, *, until: str = "") -> bool:
        """Play a round, or as far as a kind of task, which hangs; return whether it was trained in."""
        at = self.opens(number)
        while (task := self.state.task) is not None and task.kind != until:
            seconds = 10 * task.groups / self.state.parameters.generated if task.kind == "generate" else 10
            at += seconds
            made = i.RolloutsGenerated(number, 0, body_digest(b"made %d" % number), 9, task.groups, 4.0, seconds)
            answers: dict[str, i.AnyInput] = {
                "generate": made,
                "train": i.TrainingFinished(number, 0, 1, 8, 0, 0.1, 10.0),
                "evaluate": i.EvaluationFinished(task.round, 0.5, 400, 3.0),
                "save": i.CheckpointSaved(task.round),
            }
            self.happens(at, answers[task.kind])
        return self.state.work.phase == "done"


@pytest.mark.parametrize("late", [0, 7, 13, 24])
def test_a_node_that_was_slow_once_works_again_however_late_its_news(late: int) -> None:
    """A training that was held up for two stages costs a few more, also where no stage is heard of in time."""
    node = Node(late)
    assert [node.plays(number) for number in range(1, 4)] == [True] * 3
    node.plays(4, until="train")
    node.opens(5)

    assert any(node.plays(number) for number in range(6, 6 + FEW))
    assert all(node.plays(number) for number in range(6 + FEW, 40))


@pytest.mark.parametrize("asleep_at", ["generate", "train"])
def test_a_machine_that_slept_for_hours_works_soon_after(asleep_at: str) -> None:
    """What was aborted after eight hours was not at it for eight hours."""
    node = Node(0)
    assert [node.plays(number) for number in range(1, 4)] == [True] * 3
    node.plays(4, until=asleep_at)

    assert any(node.plays(number) for number in range(484, 484 + FEW))


def test_one_late_piece_of_news_does_not_make_a_node_think_itself_faster() -> None:
    """Whoever worked in the stage before keeps what it has measured."""
    node = Node(0)
    assert [node.plays(number) for number in range(1, 4)] == [True] * 3
    speed = node.state.speed

    node.late = 50
    node.opens(4)
    assert node.state.work.phase == "skipped"
    assert node.state.speed == speed
