"""Graders by regular expression: bounded, linear-time, equal on every peer. Third-party parsers are in node.grading."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import Protocol, runtime_checkable

from protocols.quantities import equivalent, normal_form

Grader = Callable[[str, str], float]
"""Function of completion and reference answer that returns a reward in [0, 1]; a non-finite result counts as 0."""


@runtime_checkable
class GroupGrader(Protocol):
    """A grader that grades a whole group at once."""

    def many(self, completions: Sequence[str], answer: str) -> Sequence[float]:
        """Return the reward of each completion."""


_TAIL = 256
_MATH_TAIL = 2048
_DIGITS = 32
_FINAL = re.compile(r"####[ \t]*\$?(-?[0-9][0-9,]{0,40}(?:\.[0-9]{1,32})?)\s*\Z")
_NUMBER = re.compile(r"-?[0-9][0-9,]{0,40}(?:\.[0-9]{1,32})?")
_MARK = re.compile(r"\\boxed ?\{|####|(?:[Aa]nswer|ANSWER)\**(?: is\b:?|[:=])\**")
_BRACE = re.compile(r"[{}]")


def parse_number(text: str) -> Decimal | None:
    """Return `text` as an ASCII decimal number with optional thousands separators, None if it is not one."""
    plain = text.strip().replace(",", "").replace("$", "")
    if not plain or len(plain) > _DIGITS or not plain.isascii():
        return None
    try:
        value = Decimal(plain)
    except InvalidOperation:
        return None
    return value if value.is_finite() else None


def reference_text(answer: str) -> str:
    """Return the final answer in a reference answer: what follows its last "####" (GSM8K), else the whole text."""
    return answer.rsplit("####", 1)[-1].strip()


@lru_cache(maxsize=1024)
def reference_number(answer: str) -> Decimal | None:
    """Return the number that a reference answer ends in, or None."""
    return parse_number(reference_text(answer)[-_TAIL:])


def final_number(completion: str, answer: str) -> float:
    """Return 1.0 if the completion ends in "#### N" with the reference's number, else 0.0 (GSM8K's format)."""
    found = _FINAL.search(completion[-_TAIL:])
    return _equal(found.group(1) if found else None, answer)


def last_number(completion: str, answer: str) -> float:
    """Return 1.0 if the last number of the completion's first line is the reference's, else 0.0."""
    line = completion.lstrip().split("\n", 1)[0][-_TAIL:]
    found = _NUMBER.findall(line)
    return _equal(found[-1] if found else None, answer)


def _equal(found: str | None, answer: str) -> float:
    value = parse_number(found) if found else None
    return float(value is not None and value == reference_number(answer))


def mathematics(completion: str, answer: str) -> float:
    r"""Return 1.0 if the completion's final answer means the same as the reference, else 0.0.

    `final_answers` finds the final answer; several must all be right, so that guesses can't be stacked. "1/2",
    "\frac{1}{2}", "0.50" and "50%" are equal, and so are "1,000" and "1000". Anything that is not a number must be the
    same text except for spacing (`protocols.quantities`). Expressions to evaluate, like "2^{10}", are for "latex/1".
    """
    given = final_answers(completion)
    return float(bool(given) and all(equivalent(reference_text(answer), each) for each in given))


def final_answers(completion: str) -> list[str]:
    r"""Return the answers on the last line with a mark: the content of each "\boxed{...}" on it, or, without a box,
    what follows its last "####", "Answer:" or "answer is". Only the last 2,048 characters are searched."""
    tail = completion[-_MATH_TAIL:]
    marks = list(_MARK.finditer(tail))
    if not marks:
        return []
    last = marks[-1]
    line = tail.rfind("\n", 0, last.start())
    boxes = [mark.end() for mark in marks if mark.start() > line and mark.group().startswith("\\")]
    if not boxes:
        return [tail[last.end() :].split("\n", 1)[0].strip()]
    closed = _closed(tail, boxes[0] - 1)
    return [tail[start : closed.get(start, start)].strip() for start in boxes]


def _closed(text: str, start: int) -> dict[int, int]:
    """Return the closing position for each opening brace from `start` on, by the position after the opening brace."""
    opened: list[int] = []
    found: dict[int, int] = {}
    for brace in _BRACE.finditer(text, start):
        if brace.group() == "{":
            opened.append(brace.end())
        elif opened:
            found[opened.pop()] = brace.start()
    return found


GRADERS: dict[str, Grader] = {
    "final-number/1": final_number,
    "last-number/1": last_number,
    "math/1": mathematics,
}
"""Graders by their name in a manifest; at start, `node.grading` adds the swarm's grader if it is not among them."""

NUMERIC = frozenset({"final-number/1", "last-number/1"})
"""Graders whose reference answers are numbers."""


def grades(name: str, completions: Sequence[str], answer: str) -> tuple[float, ...]:
    """Return the reward of each completion, clamped to [0, 1]. Raises KeyError for an unknown grader."""
    grade = GRADERS[name]
    found = (
        grade.many(completions, answer) if isinstance(grade, GroupGrader) else [grade(c, answer) for c in completions]
    )
    return tuple(map(bounded, found))


def bounded(reward: float) -> float:
    """Return a reward clamped to [0, 1]; 0.0 if it is not finite."""
    return min(1.0, max(0.0, float(reward))) if math.isfinite(reward) else 0.0


def gradable(name: str, answer: str) -> bool:
    """Return True if a completion can be right for this reference answer by this grader."""
    if name in NUMERIC:
        return reference_number(answer) is not None
    return bool(normal_form(reference_text(answer)) if name == "math/1" else answer)
