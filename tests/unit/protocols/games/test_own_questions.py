"""A game of two stages in which each peer has its own questions: its bodies are those of a game of one stage."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import pytest

from node.data.questions import Question
from node.ports.bodies import Verdict
from node.validation.body_check import check_body
from protocols.assignment import assigned_question
from protocols.games import StageContext, body_author, body_seed, builtin_setup, game_named, register_game
from protocols.grading import grades
from protocols.identifiers import Address, Digest, Seed, body_digest
from protocols.manifest import GameSpec, Manifest, StageSpec
from protocols.ranking import Score, round_score, winners
from protocols.wire import PROTOCOL_VERSION, Announcement, Completion, Group, Rollouts, encode

NAME = "twice"
ONE, OTHER, ME = ("0x" + digit * 40 for digit in "123")
SEED = b"s" * 32
GROUPS = 3
MANIFEST = Manifest(
    name="t",
    game=GameSpec(name=NAME, num_prompts=4, min_prompts=2, num_generations=2, max_completion=4),
    stages=(StageSpec(name="draft", seconds=60), StageSpec(name="final", seconds=60)),
)


class Twice:
    """Answer one's own questions, then others of one's own. It quotes nothing and says nothing of any model."""

    stages: tuple[str, ...] = ("draft", "final")
    questions_are_common = False

    def problems(self, spec: GameSpec) -> list[str]:
        return []

    def quotes(self, stage: int) -> tuple[int, ...]:
        return ()

    def max_quoted(self, spec: GameSpec) -> int:
        return 0

    def question(
        self, data: Digest, seed: Seed, peer: Address, stage: int, slot: int, size: int, common: int = 0
    ) -> int:
        return assigned_question(data, seed, peer, stage, slot, size, common)

    def prompt(self, spec: GameSpec, context: StageContext, max_chars: int) -> str:
        return f"{self.stages[context.stage]}: {context.question}"

    def rewards(
        self, spec: GameSpec, context: StageContext, completions: Sequence[str], answer: str
    ) -> tuple[float, ...]:
        return grades(spec.grader, completions, answer)

    def final(self, spec: GameSpec, stage: int, completion: str) -> str:
        return completion

    def published(self, stage: int, group: Group) -> Group:
        return group

    def score(self, peer: Address, stages: Sequence[tuple[int, float]]) -> Score:
        return round_score(peer, stages)


class Doubles:
    """A data set of doublings."""

    digest = b"d" * 32

    def __len__(self) -> int:
        return 50

    def __getitem__(self, index: int) -> Question:
        return Question(f"twice {index}?", f"#### {2 * index}")

    def held_out(self, count: int) -> list[Question]:
        return []


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("protocols.games._games", {})
    register_game(NAME, Twice())


def body_of(peer: Address, stage: int, right: int) -> Rollouts:
    """Return what a peer publishes of a stage, with so many right completions in each group of two."""
    game, data = game_named(NAME), Doubles()
    made = []
    for slot in range(GROUPS):
        question = game.question(data.digest, SEED, peer, stage, slot, len(data))
        texts = [data[question].answer if at < right else "#### -1" for at in range(2)]
        made.append(
            Group(slot, question, tuple(Completion(text, struct.pack("<I", 1), bytes(4), True) for text in texts))
        )
    return Rollouts(5, stage, bytes(32), tuple(made), (), body_seed(game, SEED), body_author(game, peer))


def check(peer: Address, body: Rollouts) -> Verdict:
    data = encode(body)
    announcement = Announcement(PROTOCOL_VERSION, bytes(32), 5, body.stage, SEED, body_digest(data), len(data), b"")
    return check_body(MANIFEST, Doubles(), peer, announcement, data)


def test_every_peer_and_stage_has_its_own_questions() -> None:
    """So that a body needs neither the round's seed nor its author to be told from another's."""
    asked = {
        tuple(group.question for group in body_of(peer, stage, 1).groups) for peer in (ONE, OTHER) for stage in (0, 1)
    }
    assert len(asked) == 4
    body = body_of(ONE, 1, 1)
    assert (body.seed, body.author) == (b"", "")


@pytest.mark.parametrize("stage", [0, 1])
def test_a_body_of_either_stage_is_accepted(stage: int) -> None:
    """Half of the completions are right."""
    assert check(ONE, body_of(ONE, stage, 1)) == Verdict(reason="", groups=GROUPS, reward=0.5 * GROUPS)


def test_another_peer_s_or_stage_s_body_is_refused() -> None:
    """By its questions."""
    assert check(OTHER, body_of(ONE, 0, 1)).reason == "assignment"


def test_the_ranking_is_over_both_stages() -> None:
    """Who plays one stage well and leaves the other out is behind a peer that plays both as well."""
    game = game_named(NAME)
    found = {
        peer: [check(peer, body_of(peer, stage, right)) for stage, right in enumerate(rights)]
        for peer, rights in {ONE: (1, 2), OTHER: (2,)}.items()
    }
    scores = [
        game.score(peer, [(each.groups, each.reward) for each in verdicts] + [(0, 0.0)] * (2 - len(verdicts)))
        for peer, verdicts in found.items()
    ]
    assert [score.mean for score in scores] == [0.75, 0.5]
    assert winners(scores, ME, 1, 1) == (ONE,)


def test_the_built_in_model_does_not_play_what_says_nothing_of_it() -> None:
    """That part of a game is optional."""
    assert builtin_setup(NAME) is None
