"""The check of bodies that strangers send."""

import random
import struct
from collections.abc import Sequence

import msgspec
import pytest

from node.data.questions import Question
from node.grading.pool import PooledGrader
from node.ports.bodies import Verdict
from node.validation.body_check import BodyCheck, check_body, comparable
from node.validation.copy_detector import NGRAMS_COMPARED
from protocols.assignment import assignment
from protocols.copies import COMPARED, ngrams
from protocols.games import game_named
from protocols.grading import GRADERS
from protocols.identifiers import body_digest
from protocols.manifest import Checks, DataSpec, GameSpec, Manifest
from protocols.wire import PROTOCOL_VERSION, Announcement, Completion, Group, Rollouts, encode

PEER = "0x" + "11" * 20
SEED = b"s" * 32
MANIFEST = Manifest(name="t", game=GameSpec(num_prompts=4, min_prompts=2, num_generations=2, max_completion=4))


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
        (with_completions(rollouts(), (GOOD[0], Completion("x" * 200, b"\1\0\0\0", b"", True))), "length"),
        (with_completions(rollouts(), (GOOD[0], Completion(" " * 192, b"\1\0\0\0", b"", True))), ""),
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

    assert verdict(rollouts(4), manifest=weary) == Verdict(reason="grader-limit")
    assert grader.gave_up == 4


@pytest.mark.parametrize("size", [10, 10_000])
def test_a_body_of_another_size_than_announced_is_refused(size: int) -> None:
    """The announced size is a promise, both ways: nobody can fetch what has another one."""
    assert verdict(rollouts(), size=size).reason == "size"


def of_texts(*texts: str, logps: bytes = b"") -> Rollouts:
    """Return a body whose every group says these texts, each followed by the right answer."""
    given = assignment(Doubles.digest, SEED, PEER, 0, 4, 50)
    groups = tuple(
        Group(slot, at, tuple(Completion(f"{text}\n#### {2 * at}", bytes(16), logps, True) for text in texts))
        for slot, at in enumerate(given)
    )
    return Rollouts(5, 0, bytes(32), groups)


def test_right_answers_after_endless_text_are_refused() -> None:
    """A poisoner wins nothing: most of what is right in its body is degenerate, so it has no rank."""
    off = msgspec.structs.replace(MANIFEST, checks=Checks(poison=False))

    assert verdict(of_texts("well " * 60, "well " * 60)).reason == "poison"
    assert verdict(of_texts("well " * 60, "twice")).reason == ""
    assert verdict(of_texts("well " * 60, "well " * 60), manifest=off) == Verdict(reason="", groups=4, reward=4.0)


class Solved(Doubles):
    """Doublings with solutions that are long enough to be recognised."""

    def __getitem__(self, index: int) -> Question:
        solution = f"To double {index} we add it to itself, since two times anything is the sum of it and itself again"
        return Question(f"twice {index}?", f"{solution}.\n#### {2 * index}")


@pytest.mark.parametrize(
    ("source", "wanted", "reason"),
    [
        ("hub:owner/name", "auto", "reference"),
        ("builtin:arithmetic", "auto", ""),
        ("builtin:arithmetic", "on", "reference"),
        ("hub:owner/name", "off", ""),
    ],
)
def test_recited_solutions_are_refused_where_the_manifest_wants_it(source: str, wanted: str, reason: str) -> None:
    """By default for data that others wrote, not for generated problems, whose format models are made to imitate."""
    data = DataSpec(source=source, revision="1")
    manifest = msgspec.structs.replace(MANIFEST, data=data, checks=Checks(reference=wanted))  # type: ignore[arg-type]
    given = assignment(Doubles.digest, SEED, PEER, 0, 4, 50)
    solved = Solved()
    groups = tuple(
        Group(slot, at, (Completion(solved[at].answer, bytes(16), b"", True),) * 2) for slot, at in enumerate(given)
    )
    body = encode(Rollouts(5, 0, bytes(32), groups))
    said = Announcement(PROTOCOL_VERSION, bytes(32), 5, 0, SEED, body_digest(body), len(body), b"")

    assert check_body(manifest, solved, PEER, said, body).reason == reason


@pytest.mark.parametrize("value", [0.5, float("inf"), float("-inf"), float("nan")])
def test_impossible_log_probabilities_are_refused(value: float) -> None:
    """No software computes them: they are made up, to weigh more in others' training."""
    assert verdict(of_texts("a", "b", logps=struct.pack("<4f", -1.0, 0.0, -2.0, value))).reason == "logps"


def test_a_body_that_claims_to_be_certain_of_everything_is_in_doubt() -> None:
    """It passes, since it may be true of a few tokens, but the verdict says so."""
    generous = msgspec.structs.replace(MANIFEST, game=msgspec.structs.replace(MANIFEST.game, num_generations=16))
    texts = [f"text {number}" for number in range(16)]

    assert verdict(of_texts(*texts, logps=bytes(16)), manifest=generous).doubt == "certain"
    assert verdict(of_texts(*texts, logps=struct.pack("<4f", *[-0.1] * 4)), manifest=generous).doubt == ""


def test_bodies_of_the_common_questions_are_compared_with_others_and_the_own_one() -> None:
    """Who repeats what this node wrote, or another peer, is named; own questions can't be compared."""
    game = msgspec.structs.replace(MANIFEST.game, common=2, num_generations=16)
    manifest = msgspec.structs.replace(MANIFEST, game=game)
    texts = [f"thought number {number}" for number in range(16)]
    check = BodyCheck(manifest, Doubles(), Nothing())

    def made(peer: str) -> tuple[Announcement, bytes]:
        given = assignment(Doubles.digest, SEED, peer, 0, 3, 50, common=2)
        completions = tuple(Completion(text, bytes(16), b"", True) for text in texts)
        body = encode(Rollouts(5, 0, bytes(32), tuple(Group(slot, at, completions) for slot, at in enumerate(given))))
        return Announcement(PROTOCOL_VERSION, bytes(32), 5, 0, SEED, body_digest(body), len(body), b""), body

    me, ada, bob = (f"0x{number:040x}" for number in range(1, 4))
    check.remember(me, *made(me))
    assert check(ada, *made(ada)).alike == (me,)
    assert check(bob, *made(bob)).alike == (me, ada)


def test_of_rich_bodies_only_the_first_questions_are_compared() -> None:
    """However much a body says, what is kept of it has a bound."""
    game = msgspec.structs.replace(MANIFEST.game, num_prompts=16, common=16, num_generations=8, max_completion=999)
    manifest = msgspec.structs.replace(MANIFEST, game=game)
    rng = random.Random(5)
    given = assignment(Doubles.digest, SEED, PEER, 0, 16, 50, common=16)
    groups = tuple(
        Group(slot, at, tuple(Completion("".join(rng.choices("0123456789", k=600)), b"", b"", True) for _ in range(8)))
        for slot, at in enumerate(given)
    )
    said = Announcement(PROTOCOL_VERSION, bytes(32), 5, 0, SEED, bytes(32), 1, b"")
    found = comparable(manifest, game_named("share"), Doubles(), said, Rollouts(5, 0, bytes(32), groups))

    assert 4 <= len(found) < 16
    assert ngrams(found) < NGRAMS_COMPARED + 8 * COMPARED


class Nothing:
    """A store without bodies."""

    def get(self, digest: bytes) -> None:
        return None

    def put(self, digest: bytes, body: bytes, round_number: int) -> None:
        raise AssertionError
