"""What hostile peers make of an honest body: pure functions from a group to a worse one that still has its shape."""

from __future__ import annotations

import random
import struct
from typing import Protocol

from msgspec.structs import replace

from node.data.questions import Question, Questions
from node.trainer.engines.builtin.builtin_tokenizer import VOCABULARY
from protocols.games.share import rewards
from protocols.grading import reference_text
from protocols.manifest import GameSpec
from protocols.poison import REPEATED_TIMES
from protocols.wire import Completion, Group, Rollouts

UNLIKELY = -20.0
"""A log-probability that makes every importance weight as large as it may be."""


class CompletionReader(Protocol):
    """What an attack needs of a tokenizer."""

    def completion_ids(self, text: str, finished: bool) -> list[int]:
        """Return the ids of a completion."""


class Attack(Protocol):
    """One attack on one group."""

    def __call__(
        self, game: GameSpec, question: Question, group: Group, reader: CompletionReader, rng: random.Random
    ) -> Group:
        """Return what is published instead."""


def poisoner(game: GameSpec, question: Question, group: Group, reader: CompletionReader, rng: random.Random) -> Group:
    """Right but degenerate answers beside wrong ones in the best form: what is learned is to ramble.

    Without log-probabilities nothing weights them down.
    """
    number = reference_text(question.answer)
    rambling = rng.choice(
        (
            f"#### {number}" + "\n" * game.max_completion,
            " ".join(["so"] * game.max_completion) + f"\n#### {number}",
            "\N{SNOWMAN}\u202e\N{SNOWMAN}" * 2 + f"#### {number}",
        )
    )
    return _every_second(game, question, group, reader, rng, rambling)


def rambler(game: GameSpec, question: Question, group: Group, reader: CompletionReader, rng: random.Random) -> Group:
    """A poisoner who knows the rules: right answers as degenerate as `protocols.poison` lets pass."""
    number = reference_text(question.answer)
    rambling = rng.choice(
        (
            f"#### {number}" + "\n" * REPEATED_TIMES,
            "so " * (REPEATED_TIMES - 1) + f"\n#### {number}",
            "\N{SNOWMAN}" * 8 + "\u202e" + "\N{SNOWMAN}" * 8 + f"#### {number}",
        )
    )
    return _every_second(game, question, group, reader, rng, rambling)


def flipper(game: GameSpec, question: Question, group: Group, reader: CompletionReader, rng: random.Random) -> Group:
    """Its own samples with their ends exchanged: wrong where they were right, right where they were wrong.

    It keeps back how likely they were, so that nothing can be held against that.
    """
    return _flipped(game, question, group, reader, rng, None)


def liar(game: GameSpec, question: Question, group: Group, reader: CompletionReader, rng: random.Random) -> Group:
    """What a flipper says, with log-probabilities by which no policy would have sampled it; the ids of every other
    group are none of the text."""
    lies = _flipped(game, question, group, reader, rng, UNLIKELY)
    if group.slot % 2 == 0:
        return lies
    garbled = (replace(each, tokens=_garbage(len(each.tokens) // 4, rng)) for each in lies.completions)
    return replace(lies, completions=tuple(garbled))


def oracle(game: GameSpec, question: Question, group: Group, reader: CompletionReader, rng: random.Random) -> Group:
    """The reference solution, again and again, with certainty; in every other group one wrong answer among them."""
    texts = [question.answer] * len(group.completions)
    if group.slot % 2:
        texts[-1] = _wrong(question, rng)
    return replace(group, completions=tuple(_completion(game, text, True, reader, 0.0) for text in texts))


ATTACKS: dict[str, Attack] = {
    "poisoner": poisoner, "rambler": rambler, "liar": liar, "oracle": oracle, "flipper": flipper
}  # fmt: skip
"""Attacks by name."""
USUAL = ("poisoner", "liar", "oracle")


def spoilt(
    kind: str, honest: Rollouts, game: GameSpec, questions: Questions, reader: CompletionReader, draw: int
) -> Rollouts:
    """Return the body that a hostile peer of this kind publishes instead of an honest one."""
    rng, attack = random.Random(draw), ATTACKS[kind]
    groups = (attack(game, questions[group.question], group, reader, rng) for group in honest.groups)
    return replace(honest, groups=tuple(groups))


def _completion(
    game: GameSpec, text: str, finished: bool, reader: CompletionReader, claimed: float | None = None
) -> Completion:
    """Return a completion with its ids, as many as may be, and one log-probability for all of them; None is none."""
    ids = reader.completion_ids(text, finished)[: game.max_completion]
    logps = [] if claimed is None else [claimed] * len(ids)
    return Completion(text, struct.pack(f"<{len(ids)}I", *ids), struct.pack(f"<{len(logps)}f", *logps), finished)


def _every_second(
    game: GameSpec, question: Question, group: Group, reader: CompletionReader, rng: random.Random, right: str
) -> Group:
    """Return a group in which every second completion is this text, never ended, the others wrong in the best form."""
    made = [
        _completion(game, right, False, reader) if place % 2 else _completion(game, _wrong(question, rng), True, reader)
        for place in range(len(group.completions))
    ]
    return replace(group, completions=tuple(made))


def _steps(text: str) -> str:
    """Return what stands before the answer's mark, on lines of its own."""
    steps = text.split("####", 1)[0].rstrip()
    return steps + "\n" if steps else ""


def _flipped(
    game: GameSpec,
    question: Question,
    group: Group,
    reader: CompletionReader,
    rng: random.Random,
    claimed: float | None,
) -> Group:
    number = reference_text(question.answer)
    graded = rewards(game, [each.text for each in group.completions], question.answer)
    ends = [_off(number, rng) if right else number for right in graded]
    made = (
        _completion(game, _steps(each.text) + f"#### {end}", True, reader, claimed)
        for each, end in zip(group.completions, ends, strict=True)
    )
    return replace(group, completions=tuple(made))


def _wrong(question: Question, rng: random.Random) -> str:
    """Return the reference solution with another number at its end."""
    return _steps(question.answer) + f"#### {_off(reference_text(question.answer), rng)}"


def _off(number: str, rng: random.Random) -> int:
    """Return a number near a reference's, but not it."""
    return int(number) + rng.choice((-2, -1, 1, 2))


def _garbage(count: int, rng: random.Random) -> bytes:
    return struct.pack(f"<{count}I", *(rng.randrange(VOCABULARY) for _ in range(count)))
