"""Degenerate texts, impossible log-probabilities, recited solutions."""

from __future__ import annotations

import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.data.arithmetic import ArithmeticQuestions
from protocols.likeness import REFERENCE_COMPLETIONS, is_recital, nearness
from protocols.logps import CERTAIN_LEAST, are_certain, are_possible
from protocols.poison import RIGHT_LEAST, Flaw, flaw, is_poison
from protocols.wire import Completion

PROSE = (
    "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May. In May she sold "
    "48/2 = 24 clips, so that altogether she has sold 48 + 24 = 72 clips in April and May.\n#### 72"
)


def completion(text: str, tokens: int = 0, logps: bytes = b"") -> Completion:
    return Completion(text, bytes(4 * (tokens or max(1, len(text) // 3))), logps, True)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (PROSE, ""),
        ("3+4=7\n#### 7", ""),
        ("#### 7", ""),
        ("", ""),
        ("so so so so so so so", ""),
        ("1, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233, 377, 610, 987, 1597, 2584 #### 2584", ""),
        ("Сначала сложим 48 и 24, получим 72, затем разделим на два и ответим на вопрос задачи: 36", ""),
        ("首先四十八加二十四等于七十二。然后除以二得到三十六。" * 3, ""),
        ("نیم‌فاصله در نوشتار فارسی همیشه به کار می‌رود و نشانهٔ بدخواهی نیست", ""),
        ("\u00a0".join(["la", "réponse", "vaut", "72,", "car", "48", "et", "24", "font", "72"]), ""),
        ("the answer is " * 30 + "#### 72", "repetition"),
        (PROSE + " and" * 40, "repetition"),
        (PROSE * 40, "repetition"),
        ("a" * 500, "repetition"),
        ("#### 72\u202e\u200b\u200b\u200b\u200b", "characters"),
        ("\x00\x01\x02\x03 72", "characters"),
        ("#### 7\u202e", "characters"),
        ("a square of side 7 has 4 sides\n#### 28\ufffd\ufffd\ufffd", ""),
        ("three\u200b sums are better than one, and two are better than none\n#### 7", ""),
        ("#### 72" + "\n" * 32, "repetition"),
        ("so " * 32 + "#### 72", "repetition"),
        ("1\n2\n" * 8 + "#### 3", ""),
        ("5 + 5 + 5 + 5 + 5 + 5 + 5 + 5 + 5 + 5 = 50\n#### 50", ""),
        ("\ufffd\ufffd\ufffd\ufffd\ufffd #### 72", "characters"),
    ],
)
def test_a_degenerate_text_is_told_from_an_odd_one(text: str, found: Flaw) -> None:
    """Short sums, prose, sequences and other scripts are sound; loops and unreadable signs are not."""
    assert flaw(completion(text)) == found


def test_a_long_period_at_the_end_is_a_loop_whatever_came_before() -> None:
    """The end of a text is looked at, with every length of the part that may be repeated."""
    part = PROSE[:100]
    assert flaw(completion("A new beginning. " + part * 16)) == "repetition"
    assert flaw(completion("A new beginning. " + part * 3)) == ""


def test_more_text_than_the_tokens_can_hold_is_a_flaw() -> None:
    """A text of thousands of characters does not come from three tokens; a short one may."""
    assert flaw(completion(PROSE * 5, tokens=3)) == "length"
    assert flaw(completion("3+4=7\n#### 7", tokens=1)) == ""


@given(st.text(max_size=400), st.integers(0, 500))
def test_every_text_gets_a_verdict(text: str, tokens: int) -> None:
    """Whatever a stranger writes, the rules answer and do not raise."""
    assert flaw(completion(text, tokens)) in ("", "repetition", "characters", "length")


def test_every_reference_solution_is_sound() -> None:
    """The built-in problems' own solutions have no flaw."""
    questions = ArithmeticQuestions()
    assert all(flaw(completion(questions[at].answer)) == "" for at in range(0, len(questions), 17))


def test_a_body_is_poison_when_most_of_what_is_right_is_degenerate() -> None:
    """An honest young model loops now and then, mostly when it is wrong; too little that is right proves nothing."""
    loop, sound = completion("ha" * 100), completion("3+4=7\n#### 7")

    assert is_poison([loop] * 3 + [sound] * 2)
    assert not is_poison([loop] * 2 + [sound] * 2)
    assert not is_poison([loop] * (RIGHT_LEAST - 1))


FLOATS = st.floats(width=32, allow_nan=True, allow_infinity=True)


@given(st.lists(FLOATS, max_size=20))
def test_log_probabilities_are_finite_and_at_most_zero(values: list[float]) -> None:
    """Decided from the bytes as from the numbers."""
    packed = struct.pack(f"<{len(values)}f", *values)

    assert are_possible(packed) == all(math.isfinite(value) and value <= 0 for value in values)


def test_only_long_bodies_that_are_certain_throughout_are_in_doubt() -> None:
    """One token with any doubt, or a short body, is as honest models are; without claims there is nothing to doubt."""
    certain = completion("x", logps=bytes(4 * CERTAIN_LEAST))
    unsure = completion("x", logps=struct.pack("<f", -1e-6))

    assert are_certain([certain])
    assert not are_certain([certain, unsure])
    assert not are_certain([completion("x", logps=bytes(4 * (CERTAIN_LEAST - 1)))])
    assert not are_certain([completion("x")])


def test_a_recited_solution_is_told_from_an_own_one() -> None:
    """Spacing and case make no difference, another wording does; short solutions tell nothing."""
    other = "In April 48 clips were sold. Half of that, 24, in May. Both months make 72 in total.\n#### 72"

    assert nearness(PROSE.replace(" ", "  ").upper(), PROSE) is True
    assert nearness(other, PROSE) is False
    assert nearness("3+4=7\n#### 7", "3+4=7\n#### 7") is None


def test_a_body_recites_when_most_of_its_long_right_answers_do() -> None:
    """A few memorised solutions are no offence."""
    assert is_recital([True] * REFERENCE_COMPLETIONS)
    assert not is_recital([True] * (REFERENCE_COMPLETIONS - 1))
    assert not is_recital([True] * 5 + [False] * 5)
