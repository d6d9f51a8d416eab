"""Generated arithmetic word problems in GSM8K's answer format: the data set that needs no download.

Equal on every machine and Python version: all choices are drawn from BLAKE2b, not from `random`. A problem whose
question has a CRC-32 divisible by ten is held out; nothing that uses this module ever trains on it.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import islice
from typing import TypeVar

import msgspec

from node.data.questions import Question
from node.data.recorded_questions import records_digest

TRAINING_QUESTIONS = 8192
HELD_OUT_QUESTIONS = 2048

LOW, HIGH = 2, 9
"""Range of the operands in a problem (the larger operand of a subtraction may be one more)."""

NAMES = ("Tom", "Mia", "Sam", "Ana", "Ben", "Lily", "Omar", "Zoe", "Ivan", "Ruth")
THINGS = ("apples", "books", "coins", "cards", "stamps", "shells", "pens", "eggs", "marbles", "cups")
BOXES = ("boxes", "bags", "trays", "packs")

ItemT = TypeVar("ItemT")


class Draws:
    """An endless stream of choices derived from a label by BLAKE2b in counter mode."""

    def __init__(self, label: str) -> None:
        self._key = hashlib.blake2b(label.encode(), digest_size=32).digest()
        self._counter = 0
        self._block = b""

    def below(self, bound: int) -> int:
        """Return a number in [0, bound); the bias is below bound / 2**64."""
        if not self._block:
            self._block = hashlib.blake2b(self._counter.to_bytes(8, "big"), key=self._key).digest()
            self._counter += 1
        word, self._block = self._block[:8], self._block[8:]
        return int.from_bytes(word, "big") % bound

    def between(self, low: int, high: int) -> int:
        """Return a number in [low, high]."""
        return low + self.below(high - low + 1)

    def operand(self) -> int:
        """Return a number in [LOW, HIGH]."""
        return self.between(LOW, HIGH)

    def choice(self, items: Sequence[ItemT]) -> ItemT:
        """Return one of the items."""
        return items[self.below(len(items))]


class CalculationStep(msgspec.Struct, frozen=True):
    """One calculation of a solution."""

    left: int
    operation: str
    right: int

    @property
    def value(self) -> int:
        """The result; integer division, and 0 for division by zero."""
        match self.operation:
            case "+":
                return self.left + self.right
            case "-":
                return self.left - self.right
            case "*":
                return self.left * self.right
            case _:
                return self.left // self.right if self.right else 0

    def __str__(self) -> str:
        return f"{self.left}{self.operation}{self.right}={self.value}"


class Problem(msgspec.Struct, frozen=True):
    """One generated question with the steps of its solution."""

    question: str
    steps: tuple[CalculationStep, ...]

    @property
    def held_out(self) -> bool:
        """Whether the question belongs to the held-out split."""
        return zlib.crc32(self.question.encode()) % 10 == 0

    @property
    def answer(self) -> str:
        """The reference answer: one step per line, then "#### N"."""
        return solution(self.steps)


def solution(steps: Sequence[CalculationStep]) -> str:
    """Return the text of a solution, ending in its last step's value."""
    return "\n".join([*map(str, steps), f"#### {steps[-1].value}"])


Drawn = tuple[dict[str, int], tuple[CalculationStep, ...]]


class Family(msgspec.Struct, frozen=True):
    """A kind of problem: two wordings, and the function that draws its numbers."""

    wordings: tuple[str, str]
    numbers: Callable[[Draws], Drawn]


def _add(draws: Draws) -> Drawn:
    a, b = draws.operand(), draws.operand()
    return {"a": a, "b": b}, (CalculationStep(a, "+", b),)


def _sub(draws: Draws) -> Drawn:
    first, second = draws.operand(), draws.operand()
    a, b = max(first, second) + 1, min(first, second)
    return {"a": a, "b": b}, (CalculationStep(a, "-", b),)


def _mul(draws: Draws) -> Drawn:
    a, b = draws.operand(), draws.operand()
    return {"a": a, "b": b}, (CalculationStep(a, "*", b),)


def _div(draws: Draws) -> Drawn:
    a, b = draws.operand(), draws.operand()
    return {"a": a, "ab": a * b}, (CalculationStep(a * b, "/", a),)


def _add_sub(draws: Draws) -> Drawn:
    a, b = draws.operand(), draws.operand()
    c = draws.between(LOW, min(HIGH, a + b - 1))
    return {"a": a, "b": b, "c": c}, (CalculationStep(a, "+", b), CalculationStep(a + b, "-", c))


def _mul_add(draws: Draws) -> Drawn:
    a, b, c = draws.operand(), draws.operand(), draws.operand()
    return {"a": a, "b": b, "c": c}, (CalculationStep(a, "*", b), CalculationStep(a * b, "+", c))


def _mul_sub(draws: Draws) -> Drawn:
    a, b = draws.operand(), draws.operand()
    c = draws.between(1, min(HIGH, a * b - 1))
    return {"a": a, "b": b, "c": c}, (CalculationStep(a, "*", b), CalculationStep(a * b, "-", c))


def _twice(draws: Draws) -> Drawn:
    a = draws.operand()
    return {"a": a}, (CalculationStep(a, "*", 2), CalculationStep(a, "+", 2 * a))


FAMILIES = (
    Family(
        (
            "{n} has {a} {t}. {m} gives {n} {b} more {t}. How many {t} does {n} have now?",
            "{n} found {a} {t} and {m} found {b} {t}. How many {t} did they find in total?",
        ),
        _add,
    ),
    Family(
        (
            "{n} had {a} {t} and gave {b} to {m}. How many {t} does {n} have left?",
            "There were {a} {t}. {n} took {b} of them. How many {t} remain?",
        ),
        _sub,
    ),
    Family(
        (
            "Each of the {x} holds {a} {t}. How many {t} are in {b} {x}?",
            "{n} buys {b} {x} with {a} {t} each. How many {t} does {n} buy?",
        ),
        _mul,
    ),
    Family(
        (
            "{n} shares {ab} {t} equally among {a} friends. How many {t} does each friend get?",
            "{n} puts {ab} {t} evenly into {a} {x}. How many {t} are in each?",
        ),
        _div,
    ),
    Family(
        (
            "{n} had {a} {t}, bought {b} more and then lost {c}. How many {t} does {n} have?",
            "A shop had {a} {t}. It got {b} more {t} and sold {c}. How many {t} are left?",
        ),
        _add_sub,
    ),
    Family(
        (
            "{n} has {b} {x} of {a} {t} and {c} loose {t}. How many {t} does {n} have?",
            "{n} packs {a} {t} in each of {b} {x}. {m} adds {c} {t}. How many {t} are there?",
        ),
        _mul_add,
    ),
    Family(
        (
            "{n} bought {b} {x} of {a} {t} and used {c} {t}. How many {t} are left?",
            "{b} {x} hold {a} {t} each. {c} {t} are broken. How many {t} are good?",
        ),
        _mul_sub,
    ),
    Family(
        (
            "{n} has {a} {t}. {m} has twice as many. How many {t} do they have together?",
            "{n} read {a} pages today and double that yesterday. How many pages did {n} read in all?",
        ),
        _twice,
    ),
)


def draw_problem(draws: Draws) -> Problem:
    """Return one problem of a uniformly drawn family."""
    family = draws.choice(FAMILIES)
    numbers, steps = family.numbers(draws)
    name = draws.choice(NAMES)
    other = draws.choice([each for each in NAMES if each != name])
    words = {"n": name, "m": other, "t": draws.choice(THINGS), "x": draws.choice(BOXES)}
    return Problem(draws.choice(family.wordings).format(**words, **numbers), steps)


def problems(draws: Draws, *, held_out: bool) -> Iterator[Problem]:
    """Return an endless stream of problems of one split; questions may repeat."""
    while True:
        problem = draw_problem(draws)
        if problem.held_out == held_out:
            yield problem


@cache
def _distinct(label: str, count: int, *, held_out: bool) -> tuple[Question, ...]:
    found: dict[str, Question] = {}
    for problem in problems(Draws(label), held_out=held_out):
        found.setdefault(problem.question, Question(problem.question, problem.answer))
        if len(found) == count:
            break
    return tuple(found.values())


class ArithmeticQuestions:
    """`Questions` of generated problems: 8,192 distinct ones to train on, 2,048 held out."""

    def __init__(self) -> None:
        self._training = _distinct("swarm/arithmetic/1/training", TRAINING_QUESTIONS, held_out=False)
        self.digest = records_digest(self._training)

    def __len__(self) -> int:
        return len(self._training)

    def __getitem__(self, index: int) -> Question:
        return self._training[index]

    def held_out(self, count: int) -> list[Question]:
        """Return the first `count` held-out questions (at most 2,048)."""
        return list(islice(_distinct("swarm/arithmetic/1/held-out", HELD_OUT_QUESTIONS, held_out=True), count))
