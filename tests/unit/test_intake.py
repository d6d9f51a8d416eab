"""The check of bodies that strangers send."""

from collections.abc import Sequence

import msgspec
import pytest

from node.grading.pool import PooledGrader
from node.intake import check_body
from node.seams import Question, Verdict
from protocols.assignment import assignment
from protocols.grading import GRADERS
from protocols.identifiers import body_digest
from protocols.manifest import GameSpec, Manifest
from protocols.wire import PROTOCOL_VERSION, Announcement, Completion, Group, Rollouts, encode

PEER = "0x" + "11" * 20
SEED = b"s" * 32
MANIFEST = Manifest(name="t", game=GameSpec(generated=4, minimum=2, group_size=2, max_completion=4))


class Doubles:
    """A data set of doublings."""

    digest = b"d" * 32

    def __len__(self) -> int:
        return 50

    def __getitem__(self, index: int) -> Question:
        return Question(f"twice {index}?", f"#### {2 * index}")

    def held_out(self, count: int) -> list[Question]:
        return []


def right_and_wrong(question: int) -> tuple[Completion, Completion]:
    ids = b"\1\0\0\0"
    return Completion(f"#### {2 * question}", ids, bytes(4), True), Completion("#### -1", ids, bytes(4), True)


def rollouts(groups: int = 3) -> Rollouts:
    given = assignment(Doubles.digest, SEED, PEER, 0, groups, 50)
    made = tuple(Group(slot, question, right_and_wrong(question)) for slot, question in enumerate(given))
    return Rollouts(5, 0, bytes(32), made)


def verdict(body: Rollouts, manifest: Manifest = MANIFEST, **changes: object) -> Verdict:
    data = encode(body)
    said = Announcement(PROTOCOL_VERSION, bytes(32), 5, 0, SEED, body_digest(data), len(data), b"")
    return check_body(manifest, Doubles(), PEER, msgspec.structs.replace(said, **changes), data)


def test_an_honest_body_is_accepted_with_its_recomputed_reward() -> None:
    """Half of the completions are right: three groups of mean 0.5."""
    assert verdict(rollouts()) == Verdict(reason="", groups=3, reward=1.5)


def swapped(body: Rollouts) -> Rollouts:
    first, *rest = body.groups
    return msgspec.structs.replace(body, groups=(msgspec.structs.replace(first, question=first.question ^ 1), *rest))


def without_first(body: Rollouts) -> Rollouts:
    return msgspec.structs.replace(body, groups=body.groups[1:])


def with_completions(body: Rollouts, completions: tuple[Completion, ...]) -> Rollouts:
    group = msgspec.structs.replace(body.groups[0], completions=completions)
    return msgspec.structs.replace(body, groups=(group, *body.groups[1:]))


GOOD = right_and_wrong(1)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (swapped(rollouts()), "assignment"),
        (without_first(rollouts()), "assignment"),
        (msgspec.structs.replace(rollouts(), round=6), "round"),
        (rollouts(1), "groups"),
        (rollouts(5), "groups"),
        (with_completions(rollouts(), GOOD[:1]), "incomplete"),
        (with_completions(rollouts(), (GOOD[0], Completion("x" * 20_000, b"\1\0\0\0", b"", True))), "length"),
        (with_completions(rollouts(), (GOOD[0], Completion("", bytes(20), bytes(20), True))), "length"),
        (with_completions(rollouts(), (GOOD[0], Completion("", bytes(4), bytes(8), True))), "length"),
        (with_completions(rollouts(), (GOOD[0], Completion("", b"\1", b"", True))), "length"),
    ],
)
def test_each_dishonesty_has_its_reason(body: Rollouts, reason: str) -> None:
    """Foreign questions, gaps, other rounds, missing or oversized completions are refused by name."""
    assert reason == verdict(body).reason


def test_groups_of_the_common_slots_are_checked_but_have_no_rank() -> None:
    """The common slots hold everybody's questions; only the peer's own groups count and are rewarded."""
    shared = msgspec.structs.replace(MANIFEST, game=msgspec.structs.replace(MANIFEST.game, common=1))
    given = assignment(Doubles.digest, SEED, PEER, 0, 3, 50, common=1)
    body = Rollouts(5, 0, bytes(32), tuple(Group(slot, at, right_and_wrong(at)) for slot, at in enumerate(given)))

    assert verdict(body, manifest=shared) == Verdict(reason="", groups=2, reward=1.0)
    assert verdict(body).reason == "assignment"
    assert verdict(rollouts(), manifest=shared).reason == "assignment"


class Weary(PooledGrader):
    """A grader that gives up on every completion, without any process."""

    def __init__(self) -> None:
        self.gave_up = 0

    def many(self, completions: Sequence[str], answer: str) -> list[float]:
        self.gave_up += len(completions)
        return [0.0] * len(completions)


def test_a_body_made_to_wear_the_grader_out_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """More than three completions that run into a bound are no accident; the grader isn't asked any further."""
    grader = Weary()
    monkeypatch.setitem(GRADERS, "weary/1", grader)
    weary = msgspec.structs.replace(MANIFEST, game=msgspec.structs.replace(MANIFEST.game, grader="weary/1"))

    assert verdict(rollouts(4), manifest=weary) == Verdict(reason="dear")
    assert grader.gave_up == 4


def test_a_body_longer_than_announced_is_refused() -> None:
    """The announced size is a promise."""
    assert verdict(rollouts(), size=10).reason == "size"
