"""The SFT warm-up's corpus: word problems answered in mixed quality, as a corpus from the web mixes them.

A clean corpus leaves reinforcement learning nothing to elicit; this one teaches the arithmetic and buries the right
behaviour under three bad habits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from node.data.arithmetic import CalculationStep, Draws, Problem, problems, solution

Record = tuple[str, str]
"""Question and answer."""

Prompted = tuple[str, str]
"""Whole prompt and reply."""

MIXED = {"good": 30, "direct": 25, "wrong": 25, "unmarked": 20}
"""Percent: steps and "#### N"; "#### N" alone; a step with another operation; steps without "####"."""

SPARSE = {"good": 2, "unmarked": 98}
"""Almost never "####": a start at which nearly every group goes without a reward."""

OPERATIONS = "+-*"


def records(label: str, mix: Mapping[str, int]) -> Iterator[Record]:
    """Return an endless stream of records in the given mix (percent); no question is a held-out one."""
    draws = Draws(label)
    kinds = [kind for kind, percent in mix.items() for _ in range(percent)]
    for problem in problems(draws, held_out=False):
        yield problem.question, answer(problem, draws.choice(kinds), draws)


def answer(problem: Problem, kind: str, draws: Draws) -> str:
    """Return an answer of the given kind. Raises ValueError for an unknown kind."""
    match kind:
        case "good":
            return problem.answer
        case "direct":
            return problem.answer.rsplit("\n", 1)[-1]
        case "unmarked":
            return "\n".join(map(str, problem.steps))
        case "wrong":
            return solution(spoilt(problem.steps, draws))
    raise ValueError(f"no kind of answer is called {kind!r}")


def spoilt(steps: tuple[CalculationStep, ...], draws: Draws) -> tuple[CalculationStep, ...]:
    """Return the steps with the operation of one replaced; what follows goes on from its result."""
    wrong = draws.below(len(steps))
    made: list[CalculationStep] = []
    for place, step in enumerate(steps):
        left, operation, right = step.left, step.operation, step.right
        if made and steps[place - 1].value == left:
            left = made[-1].value
        if place == wrong:
            operation = draws.choice([each for each in OPERATIONS if each != step.operation])
            if operation == "-" and left < right:
                left, right = right, left
        made.append(CalculationStep(left, operation, right))
    return tuple(made)
