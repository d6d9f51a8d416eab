"""A body graded once more: as when it arrived, or with a word on why not."""

from __future__ import annotations

from msgspec.structs import replace

from node.explain.regrade import Regraded, regrade
from node.explain.round_facts import StageFact
from node.machine.round_report import RoundReport
from node.validation.body_check import check_body
from protocols.assignment import assignment
from protocols.identifiers import body_digest
from protocols.manifest import GameSpec, Manifest
from protocols.wire import PROTOCOL_VERSION, Announcement, Completion, Group, Rollouts, encode
from tests.support.debate_tables import ROUND, SEED, Doubles, Memory

PEER = "0x" + "11" * 20
MANIFEST = Manifest(
    name="t", game=GameSpec(num_prompts=4, min_prompts=2, num_generations=2, max_completion=4, common=1)
)
ACCOUNT = RoundReport(
    round=ROUND,
    seed=SEED,
    me=PEER,
    at=0.0,
    opened=0,
    game="share",
    sealed=True,
    winners=1,
    minimum_groups=1,
    entries=(),
)


def body() -> bytes:
    """Return three groups; in each the first completion is right."""
    given = assignment(Doubles.digest, SEED, PEER, 0, 3, 50, common=1)
    return encode(Rollouts(ROUND, 0, bytes(32), tuple(Group(slot, at, said(at)) for slot, at in enumerate(given))))


def said(question: int) -> tuple[Completion, Completion]:
    ids = b"\1\0\0\0"
    return Completion(f"#### {2 * question}", ids, bytes(4), True), Completion("#### -1", ids, bytes(4), True)


def kept(data: bytes) -> StageFact:
    promised = Announcement(PROTOCOL_VERSION, bytes(32), ROUND, 0, SEED, body_digest(data), len(data), b"")
    verdict = check_body(MANIFEST, Doubles(), PEER, promised, data)
    return StageFact(
        stage="play", outcome="accepted", groups=verdict.groups, mean=verdict.reward / max(1, verdict.groups),
        digest=body_digest(data).hex(), size=len(data),
    )  # fmt: skip


def graded(stage: StageFact, *bodies: bytes) -> Regraded:
    (found,) = regrade(
        MANIFEST, Doubles(), Memory({body_digest(each): each for each in bodies}), ACCOUNT, PEER, [stage]
    )
    return found


def test_a_body_is_graded_as_it_was() -> None:
    """Each group shows the rewards of its completions; the common one has no rank."""
    found = graded(kept(body()), body())
    assert found.note == "graded again: 2 groups, mean 0.500, as then"
    assert [(group.slot, group.rewards, group.ranked) for group in found.groups] == [
        (0, (1.0, 0.0), False),
        (1, (1.0, 0.0), True),
        (2, (1.0, 0.0), True),
    ]


def test_other_questions_than_then_show() -> None:
    """Where this node's data has changed, what was kept is not what is found."""
    assert graded(replace(kept(body()), mean=0.75), body()).note.endswith("NOT as then")


def test_a_copy_passes_by_itself() -> None:
    """What was refused for repeating another body is no contradiction to grading it."""
    copied = replace(kept(body()), outcome="refused", reason="copy", groups=0, mean=0.0)
    assert graded(copied, body()).note.endswith("on its own it passes")


def test_a_body_that_is_gone_or_refused_says_so() -> None:
    """Neither has groups to show; of a stage without a body nothing is said."""
    assert "not in this node's cache" in graded(kept(body())).note
    longer = encode(Rollouts(ROUND + 1, 0, bytes(32), ()))
    stage = StageFact(stage="play", outcome="refused", digest=body_digest(longer).hex(), size=len(longer))
    assert graded(stage, longer).note.startswith("graded again: refused (round)")
    assert graded(StageFact(stage="play", outcome="none")) == Regraded(stage="play")
