"""What the red team's attackers publish is what the checks are for, without the swarm around it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from node.data.arithmetic import ArithmeticQuestions
from node.data.local_files import read_questions
from node.data.questions import Questions
from node.machine.commands import GenerateRollouts
from node.ports.bodies import Verdict
from node.validation.body_check import check_body
from node.validation.copy_detector import CopyDetector
from protocols.identifiers import Address, body_digest
from protocols.likeness import REFERENCE_LEAST, parts
from protocols.manifest import Checks, Manifest
from protocols.wire import Announcement, Rollouts, decode_rollouts, encode
from tests.redteam.arena import manifest_for, write_questions
from tests.redteam.attacks import ATTACKS, Sight
from tests.support.fake_trainer import fake_body

HONEST, ATTACKER = "0x" + "1" * 40, "0x" + "2" * 40
SEED = bytes(32)


class Stage:
    """One stage: an honest body, which is checked first, and the check."""

    def __init__(self, home: Path) -> None:
        write_questions(home / "questions.jsonl")
        self.manifest = manifest_for(home / "questions.jsonl")
        self.questions: Questions = read_questions(home / "questions.jsonl", self.manifest.data)
        self._comparison = CopyDetector()
        self.honest = self.made(HONEST, 0.5)

    def made(self, peer: Address, skill: float) -> Rollouts:
        """Return what a peer's own trainer makes."""
        asked = GenerateRollouts(1, 0, SEED, self.manifest.game.num_prompts)
        body, _ = fake_body(self.manifest, self.questions, peer, asked, skill, {})
        return decode_rollouts(body, body_digest(body), len(body))

    def verdict(self, peer: Address, rollouts: Rollouts, manifest: Manifest | None = None) -> Verdict:
        """Return what an honest node makes of a body."""
        body = encode(rollouts)
        said = Announcement(1, bytes(32), 1, 0, SEED, body_digest(body), len(body), b"")
        return check_body(manifest or self.manifest, self.questions, peer, said, body, None, self._comparison)

    def forged(self, attack: str) -> Rollouts:
        """Return what an attacker publishes."""
        known = ATTACKS[attack]
        sight = Sight(self.manifest, self.questions, ATTACKER, 1, (self.honest,))
        return known.forge(sight, self.made(ATTACKER, known.skill))


@pytest.fixture(name="stage", scope="module")
def _stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    return Stage(tmp_path_factory.mktemp("stage"))


@pytest.mark.parametrize(("attack", "reason"), [("poisoner", "poison"), ("oracle", "reference")])
def test_a_forged_body_is_refused(stage: Stage, attack: str, reason: str) -> None:
    """The check refuses each for what it is, and for nothing else."""
    assert stage.verdict(ATTACKER, stage.forged(attack)).reason == reason


def test_an_oracle_passes_where_the_check_is_off(stage: Stage) -> None:
    """Without `checks.reference` an oracle has every answer right: that is the limit."""
    trusting = msgspec.structs.replace(stage.manifest, checks=Checks(reference="off"))
    found = stage.verdict(ATTACKER, stage.forged("oracle"), trusting)
    assert (found.reason, found.reward) == ("", found.groups)


def test_a_copier_is_told_from_the_honest(stage: Stage) -> None:
    """Two honest bodies are not alike; a copied one is."""
    found = stage.verdict(HONEST, stage.honest)
    assert (found.reason, found.alike) == ("", ())
    assert stage.verdict("0x" + "3" * 40, stage.made("0x" + "3" * 40, 0.5)).alike == ()
    assert stage.verdict(ATTACKER, stage.forged("copier")).alike == (HONEST,)


def test_solutions_of_the_built_in_problems_are_too_short_to_be_known_again() -> None:
    """With `checks.reference` on nothing would change there; the threat model says so."""
    questions = ArithmeticQuestions()
    assert max(len(parts(questions[at].answer)) for at in range(0, len(questions), 16)) < REFERENCE_LEAST
