"""The game `debate`: answer alone, criticise the answers of several peers, resolve the question.

The questions of a round are the same for every peer and every stage, so that answers can be compared and a peer that
missed a stage can play the next one. Answers are known by the hash of their text and numbered from 1 in the order of
these hashes; 0 stands for "none is right". Rules and rewards: docs/games.md.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache

import msgspec

from protocols.assignment import EVERYBODY, assigned_question
from protocols.games.interface import BuiltinModelSetup, QuotedBodies, StageContext
from protocols.games.quoting import MAX_QUOTE_CHARS, content_key, draw_hash, filled, places, quotable
from protocols.grading import grades
from protocols.identifiers import Address, Digest, Seed
from protocols.manifest import GameSpec
from protocols.ranking import Score, round_score
from protocols.wire import Group, Rollouts

ANSWER, CRITIQUE, RESOLVE = range(3)
NONE = 0
MOST_QUOTED = 5

FORM, PICK = 0.1, 0.9
"""Weights of a critique's reward: it names an answer (or none) in the right form; that answer is right."""
RESOLVE_FORM, MAJORITY, FINAL = 0.1, 0.2, 0.7
"""Weights of a resolution's reward: form; the answer that most critics picked is named; the final answer is right."""


class DebateWording(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The parameters of a debate: its wording, how many bodies are quoted, and the longest quotes in characters.

    `critique` and `resolve` are the prompts of these stages; `answer` and `criticism` say how one of each is quoted.
    A critique ends in `pick` and a number, a resolution has a line with `vote` and a number; `none` may stand for 0.
    """

    critique: str = (
        "<|im_start|>user\nAnswers of a study group to one question may be right or wrong.\n\nQuestion: {question}\n\n"
        '{answers}\nWork the question out and compare. Close with a line "Best answer: N", where N is the number '
        'of a right answer, or "none" if no answer is right.<|im_end|>\n<|im_start|>assistant\n'
    )
    resolve: str = (
        "<|im_start|>user\nA study group has answered a question and judged its answers.\n\nQuestion: {question}\n\n"
        '{answers}\n{criticisms}\nSum up what the critics say. Then write a line "Majority: N", where N is the '
        'answer that most critics hold for the best, or "none". Then solve the question yourself and close with '
        'a line "#### " and the number.<|im_end|>\n<|im_start|>assistant\n'
    )
    answer: str = "Answer {number}: {text}\n"
    criticism: str = "Critic: {text} (best: {number})\n"
    pick: str = "Best answer:"
    vote: str = "Majority:"
    none: str = "none"
    quoted: int = MOST_QUOTED
    answer_chars: int = 800
    criticism_chars: int = 400


COMPACT: dict[str, str | int | float | bool] = {
    "critique": "<|im_start|>user\n{question}\n{answers}<|im_end|>\n<|im_start|>assistant\n",
    "resolve": "<|im_start|>user\n{question}\n{answers}{criticisms}<|im_end|>\n<|im_start|>assistant\n",
    "answer": "{number} {text}\n",
    "criticism": "{text}@{number}\n",
    "pick": "@",
    "vote": "@",
    "none": "0",
    "quoted": 4,
    "answer_chars": 7,
    "criticism_chars": 10,
}
"""A wording of few tokens, for the built-in model: a mark is one token. Of an answer its last line is shown behind its
number, of a criticism the answer that it closes with: what a small model can find again."""


class Quote(msgspec.Struct, frozen=True):
    """An answer that is shown: known by its content."""

    key: bytes
    text: str


class Critic(msgspec.Struct, frozen=True):
    """One peer's criticism as it is shown: what it says, and its pick in the numbering of whoever quotes it."""

    text: str
    pick: int


class Debate:
    """`protocols.games.interface.Game` in three stages."""

    stages: tuple[str, ...] = ("answer", "critique", "resolve")
    questions_are_common = True
    builtin_model = BuiltinModelSetup(
        spec=GameSpec(
            name="debate", parameters=COMPACT, num_prompts=12, min_prompts=2, num_generations=8, local_groups=12,
            external_groups=12, updates=2, max_prompt=160, max_completion=80,
        ),
        # Answers have short prompts; critiques and resolutions wait for what they quote, and have longer prompts.
        seconds=(6, 8, 9),
        rounds=20,
        warmup="debate",
    )  # fmt: skip

    def problems(self, spec: GameSpec) -> list[str]:
        """Return what is wrong with the parameters."""
        try:
            wording = msgspec.convert(spec.parameters, DebateWording)
        except msgspec.ValidationError as error:
            return [f"game.parameters: {error}"]
        needed = {
            "critique": {"question", "answers"},
            "resolve": {"question", "answers", "criticisms"},
            "answer": {"text", "number"},
            "criticism": {"text", "number"},
        }
        rules = [
            (names <= places(getattr(wording, field)), f"{field}: needs the place-holders {', '.join(sorted(names))}")
            for field, names in needed.items()
        ]
        rules += [
            (bool(wording.pick.strip() and wording.vote.strip()), "pick, vote: a mark is not blank"),
            (1 <= wording.quoted <= MOST_QUOTED, f"quoted: 1 to {MOST_QUOTED} bodies of a stage are quoted"),
            (wording.answer_chars > 0 and wording.criticism_chars > 0, "answer_chars, criticism_chars: at least 1"),
        ]
        return [f"game.parameters.{text}" for holds, text in rules if not holds]

    def quotes(self, stage: int) -> tuple[int, ...]:
        """Quote all earlier stages: a resolution shows answers and criticisms."""
        return tuple(range(stage))

    def max_quoted(self, spec: GameSpec) -> int:
        """Return the parameter `quoted`."""
        return wording_of(spec).quoted

    def question(
        self, data: Digest, seed: Seed, peer: Address, stage: int, slot: int, size: int, common: int = 0
    ) -> int:
        """Return the round's question: the same for every peer and stage."""
        return assigned_question(data, seed, EVERYBODY, ANSWER, slot, size)

    def prompt(self, spec: GameSpec, context: StageContext, max_chars: int) -> str:
        """Return the stage's prompt with answers and criticisms quoted."""
        wording = wording_of(spec)
        answers = shown_answers(context, wording.quoted) if context.stage != ANSWER else ()
        critics = shown_criticisms(context, answers, wording) if context.stage == RESOLVE else ()
        return prompt_of(spec, context.stage, context.question, answers, critics, max_chars)

    def rewards(
        self, spec: GameSpec, context: StageContext, completions: Sequence[str], answer: str
    ) -> tuple[float, ...]:
        """Return the rewards of docs/games.md."""
        if context.stage == ANSWER:
            return grades(spec.grader, completions, answer)
        wording = wording_of(spec)
        answers = shown_answers(context, wording.quoted)
        if context.stage == CRITIQUE:
            worth = pick_values(grades(spec.grader, [each.text for each in answers], answer))
            return tuple(critique_reward(picked(wording, text, len(answers)), worth) for text in completions)
        most = majority(critic.pick for critic in shown_criticisms(context, answers, wording))
        split = [voted(wording, text, len(answers)) for text in completions]
        votes = [vote if answers else None for vote, _ in split]
        right = grades(spec.grader, [solution for _, solution in split], answer)
        return tuple(
            RESOLVE_FORM * (vote is not None) + MAJORITY * (vote in most) + FINAL * worth
            for vote, worth in zip(votes, right, strict=True)
        )

    def final(self, spec: GameSpec, stage: int, completion: str) -> str:
        """Return the answer, or a resolution's solution; a critique answers nothing."""
        if stage == ANSWER:
            return completion
        return voted(wording_of(spec), completion, MOST_ANSWERS)[1] if stage == RESOLVE else ""

    def published(self, stage: int, group: Group) -> Group:
        """Return the whole group."""
        return group

    def score(self, peer: Address, stages: Sequence[tuple[int, float]]) -> Score:
        """Return the mean over stages: one that was not played counts as nothing."""
        return round_score(peer, stages)


MOST_ANSWERS = MOST_QUOTED
"""Numbers that an answer can have."""


def wording_of(spec: GameSpec) -> DebateWording:
    """Return the parameters of a manifest that has no problem."""
    return _wording(msgspec.msgpack.encode(spec.parameters))


@lru_cache(maxsize=16)
def _wording(encoded: bytes) -> DebateWording:
    return msgspec.msgpack.decode(encoded, type=DebateWording)


# --- what is shown --------------------------------------------------------------------------------------------------


def shown_answers(context: StageContext, most: int) -> tuple[Quote, ...]:
    """Return the answers that a scene shows, in the order of their numbers: at most `most`, no text twice."""
    return answers_in(context.seed, context.slot, context.quoted, context.quoted_bodies, most)


def answers_in(
    seed: Seed, slot: int, quoted: Iterable[Digest], quoted_bodies: QuotedBodies, most: int
) -> tuple[Quote, ...]:
    """Return answers of the quoted bodies to a slot's question.

    Each body gives one, drawn by the seed. If that makes less than `most`, each gives another, and so on: a peer that
    is alone sees several answers of its own.
    """
    texts = [
        _drawn_texts(seed, slot, digest, quoted_bodies) for digest in quoted if _is_of(quoted_bodies, digest, ANSWER)
    ]
    found: dict[bytes, str] = {}
    for turn in range(max(map(len, texts), default=0)):
        for each in texts:
            if turn < len(each) and len(found) < most and each[turn].strip():
                found.setdefault(content_key(each[turn]), each[turn])
    return tuple(Quote(key, found[key]) for key in sorted(found))


def shown_criticisms(context: StageContext, answers: Sequence[Quote], wording: DebateWording) -> tuple[Critic, ...]:
    """Return what the quoted critics say, one voice for each body, in the order of their texts' hashes.

    A critic's pick is read with the answers that it was shown itself, then numbered as here. One that made no pick, or
    picked an answer that is not shown here, is left out.
    """
    numbers = {quote.key: number for number, quote in enumerate(answers, 1)}
    found: list[tuple[bytes, Critic]] = []
    lists: dict[tuple[Digest, ...], tuple[Quote, ...]] = {}
    for digest in context.quoted:
        if not _is_of(context.quoted_bodies, digest, CRITIQUE):
            continue
        quoted = context.quoted_bodies[digest].quoted
        if quoted not in lists:
            lists[quoted] = answers_in(context.seed, context.slot, quoted, context.quoted_bodies, wording.quoted)
        critic = _critic(context, digest, lists[quoted], numbers, wording)
        if critic is not None:
            found.append((content_key(critic.text) + digest, critic))
    return tuple(critic for _, critic in sorted(found, key=lambda each: each[0]))


def _critic(
    context: StageContext, digest: Digest, seen: Sequence[Quote], numbers: dict[bytes, int], wording: DebateWording
) -> Critic | None:
    """Return the voice of a body that saw these answers: its first completion, from the drawn one on, with a pick."""
    for text in _drawn_texts(context.seed, context.slot, digest, context.quoted_bodies):
        pick = picked(wording, text, len(seen))
        if pick is not None:
            number = NONE if pick == NONE else numbers.get(seen[pick - 1].key)
            return None if number is None else Critic(_mark(wording.pick, wording.none).sub("", text), number)
    return None


def _is_of(quoted_bodies: QuotedBodies, digest: Digest, stage: int) -> bool:
    body = quoted_bodies.get(digest)
    return body is not None and body.stage == stage


def _drawn_texts(seed: Seed, slot: int, digest: Digest, quoted_bodies: QuotedBodies) -> list[str]:
    """Return a body's completions for a slot, starting with the one that is drawn."""
    completions = _group_texts(quoted_bodies[digest], slot)
    first = draw_hash(seed, digest, slot) % len(completions) if completions else 0
    return completions[first:] + completions[:first]


def _group_texts(body: Rollouts, slot: int) -> list[str]:
    groups = body.groups[slot : slot + 1]
    return [each.text for group in groups for each in group.completions]


def prompt_of(
    spec: GameSpec,
    stage: int,
    question: str,
    answers: Sequence[Quote],
    critics: Sequence[Critic],
    max_chars: int = MAX_QUOTE_CHARS,
) -> str:
    """Return a stage's prompt that shows these answers and critics, at most `max_chars` characters of each."""
    wording = wording_of(spec)
    template = (spec.prompt, wording.critique, wording.resolve)[stage]
    answer_lines, critic_lines = (
        _answer_lines(wording, answers, max_chars),
        _criticism_lines(wording, critics, max_chars),
    )
    return filled(template, {"question": question, "answers": answer_lines, "criticisms": critic_lines})


def _answer_lines(wording: DebateWording, answers: Sequence[Quote], max_chars: int) -> str:
    own = (wording.pick, wording.vote)
    most = min(max_chars, wording.answer_chars)
    return "".join(
        filled(wording.answer, {"text": quotable(quote.text, own, most), "number": str(number)})
        for number, quote in enumerate(answers, 1)
    )


def _criticism_lines(wording: DebateWording, critics: Sequence[Critic], max_chars: int) -> str:
    own = (wording.pick, wording.vote)
    most = min(max_chars, wording.criticism_chars)
    return "".join(
        filled(
            wording.criticism,
            {"text": quotable(critic.text, own, most), "number": str(critic.pick) if critic.pick else wording.none},
        )
        for critic in critics
    )


# --- what is said ---------------------------------------------------------------------------------------------------


def picked(wording: DebateWording, text: str, answers: int) -> int | None:
    """Return the number with which a critique ends (`NONE` for none), or None where its form is wrong.

    The mark stands once, at the end, whatever lines come before it, and names one of `answers` answers or none.
    """
    found = list(_mark(wording.pick, wording.none).finditer(text))
    if len(found) != 1 or text[found[0].end() :].strip(" \t\n.*"):
        return None
    return _number(found[0], answers)


def voted(wording: DebateWording, text: str, answers: int) -> tuple[int | None, str]:
    """Return the answer that a resolution takes for the majority's (None where its form is wrong), and its solution."""
    found = list(_mark(wording.vote, wording.none).finditer(text))
    if len(found) != 1:
        return None, text
    return _number(found[0], answers), text[found[0].end() :]


@lru_cache(maxsize=64)
def _mark(mark: str, none: str) -> re.Pattern[str]:
    """Return the pattern of a mark and what follows it: a number of at most two ASCII digits or the word for none."""
    words = r"\s+".join(map(re.escape, mark.split()))
    return re.compile(rf"{words}[ \t*#]{{0,4}}(?:{re.escape(none)}|([0-9]{{1,2}}))(?![0-9])", re.IGNORECASE)


def _number(found: re.Match[str], answers: int) -> int | None:
    number = NONE if found.group(1) is None else int(found.group(1))
    return number if 0 <= number <= answers else None


# --- what it is worth -----------------------------------------------------------------------------------------------


def pick_values(grades: Sequence[float]) -> tuple[float, ...]:
    """Return what each pick is worth, from the grades of the answers: "none" as much as the best of them lacks. Where
    no answer is shown there is nothing to judge, and nothing to gain."""
    return (1.0 - max(grades), *grades) if grades else ()


def critique_reward(pick: int | None, worth: Sequence[float]) -> float:
    """Return the reward of a critique: nothing where its form is wrong, or where it has nothing to judge."""
    return 0.0 if pick is None or not worth else FORM + PICK * worth[pick]


def majority(picks: Iterable[int]) -> frozenset[int]:
    """Return the most frequent picks: several where they tie, none where nobody picked."""
    counts = Counter(picks)
    most = max(counts.values(), default=0)
    return frozenset(pick for pick, count in counts.items() if count == most)
