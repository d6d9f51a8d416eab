"""What it costs to check a body that a peer sent and to recompute its rewards, on one core.

GSM8K-length texts come from `SWARM_GSM8K` (a directory with train.jsonl and test.jsonl), else from made ones as long.
"""

from __future__ import annotations

import os
import struct
import time
from typing import Any

from node.data.load import load_questions
from node.data.questions import Question, Questions
from node.validation.body_check import check_body
from protocols.assignment import assignment
from protocols.identifiers import body_digest
from protocols.manifest import DataSpec, GameSpec, Manifest
from protocols.wire import PROTOCOL_VERSION, Announcement, Completion, Group, Rollouts, encode

GOAL = 2_000
GROUPS, GROUP_SIZE = 16, 8
SECONDS = 2.0
PEER = f"0x{7:040x}"
SEED = bytes(32)
TYPICAL_GSM8K = 290
"""Characters of a solution in GSM8K, on average."""


def run() -> list[dict[str, Any]]:
    """Return the rows: groups per second for the built-in task, then for texts as long as GSM8K's by both graders."""
    builtin = load_questions(DataSpec())
    longer = _gsm8k() or _Padded(builtin)
    name = "texts as long as GSM8K's" if isinstance(longer, _Padded) else "GSM8K"
    cases = (
        ("the built-in task", builtin, "final-number/1", 24, GOAL),
        (f"{name}, final-number/1", longer, "final-number/1", 110, None),
        (f"{name}, math/1", longer, "math/1", 110, None),
    )
    return [_row(*case) for case in cases]


def _row(name: str, questions: Questions, grader: str, tokens: int, goal: int | None) -> dict[str, Any]:
    speed = groups_per_second(questions, grader, tokens)
    what = f"groups of {GROUP_SIZE} checked and rescored, {name}"
    return {"name": what, "value": speed, "unit": "1/s", "goal": goal, "met": None if goal is None else speed >= goal}


def groups_per_second(questions: Questions, grader: str, tokens: int) -> float:
    """Return how many groups a second pass the whole check: decoding, assignment, bounds, rewards."""
    manifest = Manifest(name="bench", game=GameSpec(grader=grader, num_prompts=GROUPS, max_completion=512))
    bodies = [_body(questions, number.to_bytes(32, "big"), tokens) for number in range(8)]
    checked, begun = 0, time.perf_counter()
    while (spent := time.perf_counter() - begun) < SECONDS:
        for said, body in bodies:
            verdict = check_body(manifest, questions, PEER, said, body)
            assert (verdict.reason, verdict.reward) == ("", GROUPS / 2)
            checked += verdict.groups
    return checked / spent


def _body(questions: Questions, seed: bytes, tokens: int) -> tuple[Announcement, bytes]:
    """Return an honest body of which every second completion is right, and its announcement."""
    given = assignment(questions.digest, seed, PEER, 0, GROUPS, len(questions))
    groups = tuple(Group(slot, at, _completions(questions[at], tokens)) for slot, at in enumerate(given))
    body = encode(Rollouts(0, 0, bytes(32), groups))
    return Announcement(PROTOCOL_VERSION, bytes(32), 0, 0, seed, body_digest(body), len(body), b""), body


def _completions(question: Question, tokens: int) -> tuple[Completion, ...]:
    ids, logps = struct.pack(f"<{tokens}I", *range(tokens)), struct.pack(f"<{tokens}f", *[-0.5] * tokens)
    texts = (question.answer, question.answer.rsplit("####", 1)[0] + "#### -1")
    return tuple(Completion(texts[number % 2], ids, logps, True) for number in range(GROUP_SIZE))


def _gsm8k() -> Questions | None:
    path = os.environ.get("SWARM_GSM8K", "")
    return load_questions(DataSpec(source="jsonl:gsm8k"), path) if path else None


class _Padded:
    """Questions whose solutions are as long as GSM8K's."""

    def __init__(self, questions: Questions) -> None:
        self._questions, self.digest = questions, questions.digest

    def __len__(self) -> int:
        return len(self._questions)

    def __getitem__(self, index: int) -> Question:
        question = self._questions[index]
        others = [self._questions[(index + step) % len(self)].text for step in range(8)]
        number = question.answer.rsplit("####", 1)[1]
        return Question(question.text, " ".join(others)[:TYPICAL_GSM8K] + f"\n####{number}")

    def held_out(self, count: int) -> list[Question]:
        """Return the first held-out questions."""
        return self._questions.held_out(count)
