"""What a node announces stays one body for each stage, whatever the chain does and whatever is lost: the machine, the
vote protection and the store of bodies are the real ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from node.app.announcement_guard import AnnouncementGuard, GuardedTrainer
from node.machine import commands as c
from node.machine import inputs as i
from node.machine.state import initial, own_body
from node.machine.step import step
from node.store.body_store import BodyStore
from node.vote_protection import VoteProtection
from protocols.identifiers import body_digest
from protocols.manifest import GameSpec, Limits, Manifest, StageSpec, VotingSpec
from protocols.wire import NOTHING

ME, OTHER = "0x" + "01" * 20, "0x" + "02" * 20
SWARM = b"d" * 32
Slot = tuple[int, int, bytes]


def seed(round_number: int, variant: int = 0) -> bytes:
    return body_digest(f"seed {round_number} {variant}".encode())


class PlayingNode:
    """A machine whose commands are carried out at once. A new state with the old files is a start after a power cut
    that took the journal."""

    def __init__(self, home: Path, guard: VoteProtection, *, stages: int = 1, kept: int = 1) -> None:
        self.manifest = Manifest(
            name="guard",
            game=GameSpec(num_prompts=8, min_prompts=2),
            stages=tuple(StageSpec(name=str(number), seconds=20) for number in range(stages)),
            voting=VotingSpec(winners=2, minimum_groups=1),
            limits=Limits(rounds_kept=kept),
        )
        self.stages, self.bodies, self.made, self.now = stages, BodyStore(home / "bodies"), 0, 1000.0
        self.guard = AnnouncementGuard(guard, self.bodies)
        self.signed: list[tuple[Slot, bytes]] = []
        self.start()

    def start(self) -> None:
        self.state = initial(ME, self.manifest)
        for happened in (
            i.NodeStarted(), i.PeerRegistered(ME, 0), i.PeerRegistered(OTHER, 0), i.ChainRestored(0.0),
            i.NetworkChanged(1), i.TrainerReady(1, "cpu", -1),
        ):  # fmt: skip
            self.take(happened)

    def open(self, round_number: int, stage: int = 0, variant: int = 0, *, rewound: bool = False) -> None:
        self.now += 1
        opened = int(self.now)
        self.take(
            i.StageOpened(round_number, stage, seed(round_number, variant), opened + 20, opened, 1, rewound=rewound)
        )

    def take(self, happened: i.AnyInput) -> None:
        self.state, outputs = step(self.state, i.Stamped(self.now, happened))
        for output in outputs:
            match output:
                case c.GenerateRollouts():
                    self.take(self.guard.announced_before(output) or self.generated(output))
                case c.PublishRollouts():
                    admitted = self.guard.admit(output)
                    if admitted:
                        self.signed.append(((admitted.round, admitted.stage, admitted.seed), admitted.body))
                case c.EvaluateModel():
                    self.take(i.EvaluationFinished(output.round, 0.5, 400, 1.0))

    def generated(self, command: c.GenerateRollouts) -> i.RolloutsGenerated:
        """Make another body every time, as a model does that samples."""
        self.made += 1
        body = f"body {self.made}".encode()
        self.bodies.put(body_digest(body), body, command.round)
        return i.RolloutsGenerated(
            command.round, command.stage, body_digest(body), len(body), command.groups, 1.0, 1.0, seed=command.seed
        )

    @property
    def bodies_by_slot(self) -> dict[Slot, set[bytes]]:
        found: dict[Slot, set[bytes]] = {}
        for slot, body in self.signed:
            found.setdefault(slot, set()).add(body)
        return found


@contextmanager
def playing(home: Path, *, stages: int = 1, kept: int = 1) -> Iterator[PlayingNode]:
    with VoteProtection(home / "votes.sqlite", SWARM) as guard:
        yield PlayingNode(home, guard, stages=stages, kept=kept)


@pytest.mark.parametrize("back", [1, 2, 3, 4, 5])
def test_an_endpoint_that_falls_back_leads_to_no_second_body(tmp_path: Path, back: int) -> None:
    """However many rounds the chain seems to fall back and come again, the first body is announced again."""
    with playing(tmp_path) as node:
        for number in range(10 - back, 11):
            node.open(number)
        first = dict(node.signed)
        for number in range(10 - back, 11):
            node.open(number, rewound=number == 10 - back)
        assert len(first) == back + 1
        assert all(bodies == {first[slot]} for slot, bodies in node.bodies_by_slot.items())
        body = own_body(node.state)
        assert body is not None
        assert (body.digest, node.state.work.phase) == (first[10, 0, seed(10)], "train")


def test_two_reorgs_that_change_the_seed_and_back_lead_to_no_second_body(tmp_path: Path) -> None:
    """Also where the round was forgotten meanwhile."""
    with playing(tmp_path, stages=2, kept=0) as node:
        for round_number, stage in ((0, 0), (0, 1), (1, 0), (1, 1), (2, 0)):
            node.open(round_number, stage)
        node.open(0, 0, variant=1, rewound=True)
        node.open(0, 1, variant=1)
        node.open(1, 0)
        node.open(0, 0, variant=0, rewound=True)
        assert len(node.bodies_by_slot) == 7
        assert all(len(bodies) == 1 for bodies in node.bodies_by_slot.values())


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    moves=st.lists(
        st.tuples(st.integers(0, 6), st.integers(0, 1), st.integers(0, 1), st.booleans(), st.booleans()), max_size=12
    )
)
def test_no_order_of_reorgs_and_losses_leads_to_a_second_body(
    tmp_path_factory: pytest.TempPathFactory, moves: list[tuple[int, int, int, bool, bool]]
) -> None:
    """Whatever stages open under whatever seeds, and whenever the whole state is lost."""
    with playing(tmp_path_factory.mktemp("node"), stages=2) as node:
        for number, stage, variant, rewound, lost in moves:
            node.open(number, stage, variant, rewound=rewound)
            if lost:
                node.start()
        assert all(len(bodies) == 1 for bodies in node.bodies_by_slot.values())


def test_a_lost_journal_leads_to_no_second_body(tmp_path: Path) -> None:
    """A power cut may take the end of the journal: the first body is announced again, and trained on."""
    with playing(tmp_path) as node:
        node.open(3)
    with playing(tmp_path) as again:
        again.open(3)
        assert again.signed == node.signed
        assert (again.made, again.state.work.phase) == (0, "train")


def test_a_body_that_is_gone_is_not_made_again(tmp_path: Path) -> None:
    """Where the announced body is not kept either, the stage is skipped; the next one is played."""
    with playing(tmp_path) as node:
        node.open(3)
    for path in (tmp_path / "bodies").glob("*/*"):
        path.unlink()
    with playing(tmp_path) as again:
        again.open(3)
        assert (again.signed, again.state.work.phase) == ([], "skipped")
        assert "announced before" in again.state.last_skip
        again.open(4)
        assert [slot for slot, _ in again.signed] == [(4, 0, seed(4))]


def publish(body: bytes, size: int) -> c.PublishRollouts:
    return c.PublishRollouts(3, 0, seed(3), body, size, False, ())


@pytest.fixture
def guard(tmp_path: Path) -> Iterator[AnnouncementGuard]:
    with VoteProtection(tmp_path / "votes.sqlite", SWARM) as votes:
        bodies = BodyStore(tmp_path / "bodies")
        bodies.put(body_digest(b"first"), b"first", 3)
        yield AnnouncementGuard(votes, bodies)


def test_messages_travel_with_the_first_body(guard: AnnouncementGuard) -> None:
    """An announcement of messages alone, after a body that was forgotten, announces that body with the messages."""
    first = publish(body_digest(b"first"), 5)
    assert guard.admit(first) == first
    messages = (c.ReportReward(3, 0, seed(3), 0.5, 0.0),)
    asked = c.PublishRollouts(3, 0, seed(3), NOTHING, 0, True, messages)
    assert guard.admit(asked) == c.PublishRollouts(3, 0, seed(3), first.body, 5, True, messages)


def test_no_body_follows_an_announcement_without_one(guard: AnnouncementGuard) -> None:
    """It was announced that there are none: that is what is announced again."""
    nothing = publish(NOTHING, 0)
    assert guard.admit(nothing) == nothing
    assert guard.admit(publish(body_digest(b"first"), 5)) == nothing


def test_nothing_is_announced_where_the_first_body_is_gone(guard: AnnouncementGuard) -> None:
    """Neither the second body nor one that nobody could fetch."""
    guard.admit(publish(body_digest(b"gone"), 4))
    assert guard.admit(publish(body_digest(b"first"), 5)) is None


def test_what_peers_have_under_the_own_signature_was_announced(guard: AnnouncementGuard) -> None:
    """A record that was lost is made up for by what peers tell: their body is recorded as the first."""
    first = publish(body_digest(b"first"), 5)
    assert guard.admit(publish(body_digest(b"second"), 6), known=first.body) == first
    assert guard.announced_before(c.GenerateRollouts(3, 0, seed(3), 8, ())) is not None
    assert guard.admit(publish(body_digest(b"second"), 6)) == first


class IdleTrainer:
    """A trainer that notes what it is asked for."""

    name = "trainer"

    def __init__(self) -> None:
        self.asked: list[c.TrainerCommand] = []

    async def run(self, report: Callable[[i.AnyInput], object]) -> None:
        await trio.sleep_forever()

    async def execute(self, command: c.TrainerCommand) -> None:
        self.asked.append(command)


async def test_the_trainer_is_not_asked_for_a_stage_that_was_announced(guard: AnnouncementGuard) -> None:
    """The machine hears what was announced then; every other command reaches the trainer."""
    idle = IdleTrainer()
    trainer = GuardedTrainer(idle, guard)
    guard.admit(publish(body_digest(b"first"), 5))
    told_in, told = trio.open_memory_channel[i.AnyInput](9)
    asked = c.GenerateRollouts(4, 0, seed(4), 8, ()), c.EvaluateModel(3)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trainer.run, told_in.send)
        await trainer.execute(c.GenerateRollouts(3, 0, seed(3), 8, ()))
        for command in asked:
            await trainer.execute(command)
        with trio.fail_after(30):
            assert await told.receive() == i.AnnouncedBefore(3, 0, seed(3), body_digest(b"first"), 5)
        nursery.cancel_scope.cancel()
    assert idle.asked == list(asked)
