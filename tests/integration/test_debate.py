"""A round of `debate` between two trainers with the built-in model, checked as strangers would check it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from node.config import TrainerSettings
from node.data.arithmetic import ArithmeticQuestions
from node.trainer.engines.builtin.sft_warmup import build_builtin_model
from node.trainer.messages import Evaluate, Generate, Generated, SetUp, Train
from node.trainer.service.jobs import bodies_quoted_by
from node.trainer.worker.session import Session, TaskContext
from node.validation.body_check import check_body
from node.validation.quoted_bodies import QuoteResolver
from protocols.games.debate import COMPACT
from protocols.games.quoting import drawn
from protocols.identifiers import Digest, body_digest
from protocols.manifest import DataSpec, GameSpec, Manifest, StageSpec
from protocols.wire import PROTOCOL_VERSION, Announcement, quoted_in
from tests.support.debate_tables import NAMES, Memory

pytestmark = pytest.mark.integration

PEERS = tuple(f"0x{number:040x}" for number in range(1, 3))
SEED = bytes(range(32))
GROUPS = 4
MANIFEST = Manifest(
    name="test",
    data=DataSpec(held_out=20),
    game=GameSpec(name="debate", parameters=COMPACT, num_prompts=GROUPS, max_prompt=160, max_completion=80),
    stages=tuple(StageSpec(name=name, seconds=60) for name in NAMES),
)
TASK = TaskContext(lambda: False, lambda done, total: None)


class Round:
    """Two sessions, the bodies of their round, and one check for all."""

    def __init__(self, sessions: Sequence[Session]) -> None:
        self.sessions, self.bodies = sessions, Memory()
        self.library, self.questions = QuoteResolver(self.bodies), ArithmeticQuestions()

    def play(self, stage: int, quoted: tuple[Digest, ...]) -> list[Digest]:
        """Play a stage; return the digests of both bodies. What each says it is worth is what the other finds."""
        quoted_bodies, missing = bodies_quoted_by(quoted, self.bodies)
        assert missing == ()
        asked = Generate(1, 3, stage, SEED, GROUPS, quoted, quoted_bodies)
        made = [session.generate(asked, TASK) for session in self.sessions]
        for each in made:
            self.bodies.put(body_digest(each.body), each.body, 3)
        for peer, each in zip(PEERS, made, strict=True):
            self.check(peer, stage, each)
        return [body_digest(each.body) for each in made]

    def check(self, peer: str, stage: int, made: Generated) -> None:
        said = Announcement(
            PROTOCOL_VERSION, bytes(32), 3, stage, SEED, body_digest(made.body), len(made.body), b""
        )  # fmt: skip
        verdict = check_body(MANIFEST, self.questions, peer, said, made.body, self.library)
        assert (verdict.reason, verdict.groups) == ("", GROUPS)
        assert verdict.reward == pytest.approx(made.reward)

    def train(self, stage: int, own: Digest, other: Digest) -> int:
        """Train the first session on both bodies; return the groups that taught something."""
        bodies = [self.bodies[own], self.bodies[other]]
        quoted_bodies, _ = bodies_quoted_by([each for body in bodies for each in quoted_in(body)], self.bodies)
        trained = self.sessions[0].train(Train(2, 3, stage, bodies[0], (bodies[1],), 1, 60.0, quoted_bodies), TASK)
        return trained.own + trained.external


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("model") / "builtin"
    build_builtin_model(directory, 0, warmup="debate", steps=30)
    return directory


def test_a_round_of_three_stages(model: Path, tmp_path: Path) -> None:
    """Every stage quotes what came before, is worth the same to everybody, and can be trained on."""
    sessions = [
        Session(SetUp(TrainerSettings(seed=number, model=str(model)), MANIFEST, peer, str(tmp_path / peer)))
        for number, peer in enumerate(PEERS)
    ]
    table = Round(sessions)
    answers = table.play(0, ())
    quoted = drawn(SEED, 0, answers, 4)
    critiques = table.play(1, quoted)
    quoted += drawn(SEED, 1, critiques, 4)
    resolutions = table.play(2, quoted)
    taught = [table.train(stage, *played) for stage, played in enumerate((answers, critiques, resolutions))]
    assert sum(taught) > 0
    assert sessions[0].evaluate(Evaluate(3, 3), TASK).questions == 20
