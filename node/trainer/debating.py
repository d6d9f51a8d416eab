"""The warm start's corpus for the game `debate`: its three stages in the compact wording of the built-in model.

As in `node.trainer.corpus`, what is right is mixed with bad habits: a critic that guesses, one that calculates
wrongly, one that never picks; a resolution that copies an answer, or that forgets its mark.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from node.data.arithmetic import Draws, Problem, Step, problems
from node.trainer.corpus import MIXED, Prompted, answer, spoilt
from protocols.games.debate import (
    ANSWER,
    CRITIQUE,
    NONE,
    Critic,
    Quote,
    Words,
    majority,
    prompt_of,
)
from protocols.games.quoting import content_key
from protocols.grading import final_number
from protocols.manifest import GameSpec

COMPACT: dict[str, str | int | float | bool] = {
    "critique": "<|im_start|>user\n{question}\n{answers}<|im_end|>\n<|im_start|>assistant\n",
    "resolve": "<|im_start|>user\n{question}\n{answers}{criticisms}<|im_end|>\n<|im_start|>assistant\n",
    "answer": "{text}@{number}\n",
    "criticism": "{text}@{number}\n",
    "pick": "@",
    "vote": "@",
    "none": "0",
    "quoted": 4,
    "answer_chars": 48,
    "criticism_chars": 32,
}
"""`game.parameters` for the built-in model: a mark is one token, and a number stands behind what it numbers, so that a
small model finds it as it finds whatever followed a text before."""

STAGES = (36, 28, 36)
"""Percent of records that are played in each stage."""

CRITIQUES = {"good": 40, "guess": 10, "wrong": 30, "unmarked": 20}
"""Percent: steps and the right pick; any pick alone; spoilt steps and the pick that fits them; steps without a pick."""

RESOLUTIONS = {"good": 60, "copy": 10, "wrong": 12, "unmarked": 18}
"""Percent: majority and solution; majority and its answer's number; any vote and a spoilt solution; majority and steps
without "####"."""


def debate_records(label: str) -> Iterator[Prompted]:
    """Return an endless stream of prompts and replies of all three stages; no question is a held-out one."""
    draws = Draws(label)
    spec = GameSpec(name="debate", parameters=COMPACT)
    words = Words(**COMPACT)  # type: ignore[arg-type]
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
            return f"{_lines(problem.steps)}@{_fitting(problem.answer, answers, draws)}"
        case "guess":
            return f"@{draws.below(len(answers) + 1)}"
        case "wrong":
            steps = spoilt(problem.steps, draws)
            return f"{_lines(steps)}@{_fitting(f'#### {steps[-1].value}', answers, draws)}"
        case "unmarked":
            return _lines(problem.steps)
    raise ValueError(f"no kind of critique is called {kind!r}")


def resolution(problem: Problem, answers: Sequence[Quote], critics: Sequence[Critic], kind: str, draws: Draws) -> str:
    """Return a resolution of the given kind. Raises ValueError for an unknown kind."""
    most = draws.choice(sorted(majority(critic.pick for critic in critics)) or [NONE])
    vote = draws.below(len(answers) + 1)
    match kind:
        case "good":
            return f"@{most}\n{problem.answer}"
        case "copy":
            copied = answers[most - 1] if most else draws.choice(answers)
            return f"@{most}\n#### {copied.text.rsplit(None, 1)[-1].rsplit('=', 1)[-1]}"
        case "wrong":
            return f"@{vote}\n{answer(problem, 'wrong', draws)}"
        case "unmarked":
            return f"@{most}\n{_lines(problem.steps)}"
    raise ValueError(f"no kind of resolution is called {kind!r}")


def _spread(mix: Mapping[str, int]) -> list[str]:
    return [kind for kind, percent in mix.items() for _ in range(percent)]


def _lines(steps: Sequence[Step]) -> str:
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


def _fitting(reference: str, answers: Sequence[Quote], draws: Draws) -> int:
    """Return the number of an answer that the reference calls right, `NONE` where there is none."""
    right = [number for number, quote in enumerate(answers, 1) if final_number(quote.text, reference)]
    return draws.choice(right) if right else NONE
