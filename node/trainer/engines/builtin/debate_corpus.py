"""The SFT warm-up's corpus for the game `debate`: its three stages in the compact wording of the built-in model.

As in `node.trainer.engines.builtin.corpus`, what is right is mixed with bad habits: a critic that guesses, one that
calculates wrongly, one that never picks; a resolution that copies an answer, or that forgets its mark.

A model of three layers does not find in one step which of several answers fits its own. So its critic thinks aloud: it
works the question out, then goes through the answers, each beside its own result, up to the first that agrees.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from node.data.arithmetic import CalculationStep, Draws, Problem, problems, solution
from node.trainer.engines.builtin.corpus import MIXED, Prompted, answer, spoilt
from protocols.games.debate import (
    ANSWER,
    COMPACT,
    CRITIQUE,
    NONE,
    Critic,
    DebateWording,
    Quote,
    majority,
    prompt_of,
)
from protocols.games.quoting import content_key
from protocols.grading import final_number
from protocols.manifest import GameSpec

MARK = "####"
"""What an answer closes with that is to be judged."""

STAGES = (34, 34, 32)
"""Percent of records that are played in each stage."""

CRITIQUES = {"good": 45, "guess": 10, "wrong": 25, "unmarked": 20}
"""Percent: solution, review and the right pick; any pick alone; spoilt steps and the pick that fits them; a solution
without review and pick."""

RESOLUTIONS = {"good": 40, "copy": 25, "wrong": 15, "unmarked": 20}
"""Percent: majority and solution; majority and its answer's number; any vote and a spoilt solution; majority and steps
without `MARK`."""


def debate_records(label: str) -> Iterator[Prompted]:
    """Return an endless stream of prompts and replies of all three stages; no question is a held-out one."""
    draws = Draws(label)
    spec = GameSpec(parameters=COMPACT)
    words = DebateWording(**COMPACT)  # type: ignore[arg-type]
    stages = _spread({str(stage): percent for stage, percent in enumerate(STAGES)})
    for problem in problems(draws, held_out=False):
        stage = int(draws.choice(stages))
        if stage == ANSWER:
            yield prompt_of(spec, stage, problem.question, (), ()), answer(problem, draws.choice(_spread(MIXED)), draws)
            continue
        skill = draws.between(20, 90)
        answers = peer_answers(problem, skill, draws, words.quoted)
        if stage == CRITIQUE:
            reply = critique(problem, answers, draws.choice(_spread(CRITIQUES)), draws)
            yield prompt_of(spec, stage, problem.question, answers, ()), reply
        else:
            critics = peer_critics(problem, answers, skill, draws, words.quoted)
            reply = resolution(problem, answers, critics, draws.choice(_spread(RESOLUTIONS)), draws)
            yield prompt_of(spec, stage, problem.question, answers, critics), reply


def critique(problem: Problem, answers: Sequence[Quote], kind: str, draws: Draws) -> str:
    """Return a critique of the given kind. Raises ValueError for an unknown kind."""
    match kind:
        case "good":
            return review(problem.steps, answers)
        case "guess":
            return f"@{draws.below(len(answers) + 1)}"
        case "wrong":
            return review(spoilt(problem.steps, draws), answers)
        case "unmarked":
            return problem.answer
    raise ValueError(f"no kind of critique is called {kind!r}")


def review(steps: Sequence[CalculationStep], answers: Sequence[Quote]) -> str:
    """Return a solution, a line for each answer up to the first that agrees with it, and the pick."""
    own, value = solution(steps), steps[-1].value
    lines = [own]
    for number, quote in enumerate(answers, 1):
        if final_number(quote.text, own):
            return "\n".join([*lines, f"{number} {value}={value}+@{number}"])
        said = quote.text.rsplit(None, 1)[-1]
        lines.append(f"{number} {said}={value}x" if MARK in quote.text else f"{number} -x")
    return "\n".join(lines) + f"@{NONE}"


def resolution(problem: Problem, answers: Sequence[Quote], critics: Sequence[Critic], kind: str, draws: Draws) -> str:
    """Return a resolution of the given kind. Raises ValueError for an unknown kind."""
    most = draws.choice(sorted(majority(critic.pick for critic in critics)) or [NONE])
    vote = draws.below(len(answers) + 1)
    match kind:
        case "good":
            return f"@{most}\n{problem.answer}"
        case "copy":
            copied = answers[most - 1] if most else draws.choice(answers)
            return f"@{most}\n{MARK} {copied.text.rsplit(None, 1)[-1].rsplit('=', 1)[-1]}"
        case "wrong":
            return f"@{vote}\n{answer(problem, 'wrong', draws)}"
        case "unmarked":
            return f"@{most}\n{_lines(problem.steps)}"
    raise ValueError(f"no kind of resolution is called {kind!r}")


def _spread(mix: Mapping[str, int]) -> list[str]:
    return [kind for kind, percent in mix.items() for _ in range(percent)]


def _lines(steps: Sequence[CalculationStep]) -> str:
    return "\n".join(map(str, steps))


def peer_answers(problem: Problem, skill: int, draws: Draws, most: int) -> tuple[Quote, ...]:
    """Return one to `most` answers of peers that are right about `skill` times in a hundred."""
    bad = [kind for kind in MIXED if kind != "good"]
    texts = {
        answer(problem, "good" if draws.below(100) < skill else draws.choice(bad), draws)
        for _ in range(draws.between(2, most + 1))
    }
    keyed = sorted((content_key(text), text) for text in texts)[:most]
    return tuple(Quote(key, text) for key, text in keyed)


def peer_critics(problem: Problem, answers: Sequence[Quote], skill: int, draws: Draws, most: int) -> tuple[Critic, ...]:
    """Return one voice of each critic, right about `skill` times in a hundred."""
    kinds = ["good" if draws.below(100) < skill else draws.choice(["guess", "wrong"]) for _ in range(most)]
    said = [critique(problem, answers, kind, draws).split("@") for kind in kinds[: draws.between(1, most)]]
    return tuple(Critic(text, int(pick)) for text, pick in sorted(said, key=lambda each: content_key(each[0])))
