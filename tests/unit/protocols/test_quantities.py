"""What a short answer means, and which of a completion's words are its answer."""

import time
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.grading import GRADERS, bounded, final_answers, gradable, grades, mathematics
from protocols.quantities import LONGEST, Quantity, equivalent, normal_form, quantity


@pytest.mark.parametrize(
    ("reference", "answer"),
    [
        ("0.50", "1/2"), ("1/2", r"\frac{1}{2}"), ("1000", "1,000"), ("1,234,567.5", "1234567.50"), ("42", "42.0"),
        ("42", "42."), ("42", "$42$"), ("42", r"\$42"), ("42", "42 apples"),
        ("12", r"12\text{ cm}"), ("90", r"90^\circ"),
        ("5", "x = 5"), ("-3", "\u22123"), (r"\frac12", "0.5"), ("-0.5", r"-\dfrac{1}{2}"), (".5", "0.5"), ("7", "+7"),
        ("50%", "0.5"), ("50%", "50"), ("50", r"50\%"), ("0.5", "50%"), ("6/4", "1.5"), ("1e5", "1e5"),
        ("x^2+1", "x^2 + 1"), (r"\left( 3, 4 \right)", "(3,4)"), (r"\frac{\pi}{2}", r"\dfrac{\pi}{2}"),
        ("B", r"\text{B}"),
        ("0", "-0"), ("2", "**2**"), ("-1/2", r"\frac{-1}{2}"), ("-1/2", r"\frac{1}{-2}"), ("1/2", r"-\frac{-1}{2}"),
        ("10000", "10{,}000"), ("5", "5cm"), ("5", "5 km per h"), ("3", "3rd"),
        ("7", "7apples"), ("3", "3 times"), ("10 AM", "10AM"), ("2x", "2 x"),
    ],
)  # fmt: skip
def test_the_same_answer_is_recognised_in_another_spelling(reference: str, answer: str) -> None:
    """Separators, decimals, fractions, percentages, units and delimiters do not change what is meant."""
    assert equivalent(reference, answer)


@pytest.mark.parametrize(
    ("reference", "answer"),
    [
        ("42", "41 or 42"), ("0.333", "1/3"), ("50%", "0.5%"), ("4", "٤"), ("4", "\uff14"), ("100", "1,00"),
        ("1000", "10,00"),
        ("42", ""), ("", ""), ("1", "1/0"), ("42", "42 43"), ("42", "6*7"), ("42", "forty-two"), ("1024", "2^{10}"),
        ("2", "2x"), ("2", "2i"), ("5x", "5y"), ("6", "6a"), ("6", "6 a"), ("2", "2xy"), ("2", "2 pi"),
        ("10 AM", "10 PM"), ("42", "42 or forty one"), ("42", "42 and more"), ("42", "42 is not right"),
        ("42", "42 apples or none"), ("2", "2 thousand"), ("2", "2Million"), ("2", "2 Or 3"), ("x+1", "1+x"),
        ("42", "4" * 41), ("42", "--42"), ("42", "0x2a"), ("a" * 300, "a" * 300), ("nan", "inf"),
    ],
)  # fmt: skip
def test_another_answer_is_not_taken_for_the_reference(reference: str, answer: str) -> None:
    """Two guesses, rounded values, foreign digits, misplaced separators and expressions to work out are wrong."""
    assert not equivalent(reference, answer)


@given(st.fractions(min_value=-(10**12), max_value=10**12, max_denominator=10**12), st.integers(1, 9))
def test_a_number_is_read_exactly_in_every_spelling(value: Fraction, factor: int) -> None:
    """A fraction equals itself however it is written, and differs from its neighbours."""
    above, below = value.numerator * factor, value.denominator * factor
    spellings = [f"{above}/{below}", rf"{'-' * (above < 0)}\frac{{{abs(above)}}}{{{below}}}", f"{above:,}/{below:,}"]

    assert {quantity(normal_form(each)) for each in spellings} == {Quantity(value)}
    assert not equivalent(str(value.numerator + value.denominator) + f"/{value.denominator}", spellings[0])


@given(st.text(max_size=300), st.text(max_size=40))
def test_no_text_makes_the_comparison_fail(reference: str, answer: str) -> None:
    """Whatever stands there, the answer is yes or no; and an answer that is not empty equals itself."""
    assert equivalent(reference, answer) in (True, False)
    assert equivalent(answer, answer) == bool(normal_form(answer))


@pytest.mark.parametrize(
    ("completion", "found"),
    [
        (r"so \boxed{42}.", ["42"]),
        (r"first \boxed{1}" + "\n" + r"then \boxed{\frac{84}{2}} or \boxed{43}", [r"\frac{84}{2}", "43"]),
        ("1+1=2\n#### 42\n", ["42"]),
        ("#### 41\n#### 42", ["42"]),
        ("**Answer:** 42\nI hope that helps.", ["42"]),
        ("The answer is 42.", ["42."]),
        ("The answer depends on the weather: 42", []),
        ("42", []),
        (r"\boxed{42", [""]),
        (r"So the result is \boxed{42}. This is the final answer: see the box.", ["42"]),
        (r"\boxed{41} #### 42", ["41"]),
        (r"The answer is \boxed{42}, so the answer is right.", ["42"]),
        (r"\boxed{41}" + "\nAnswer: 42", ["42"]),
        (r"\boxed{\frac{1}{2}} and \boxed{3", [r"\frac{1}{2}", ""]),
        (r"} \boxed{4}} }", ["4"]),
        ("#### 42" + " " * 3000, []),
    ],
)
def test_the_final_answer_stands_on_the_last_marked_line(completion: str, found: list[str]) -> None:
    """Boxes win on their line, all of them; without a mark there is no answer; far from the end nothing is found."""
    assert final_answers(completion) == found


def test_guesses_can_not_be_stacked() -> None:
    """Two boxes on one line are right only if both are."""
    assert mathematics(r"\boxed{42} = \boxed{42.0}", "#### 42") == 1.0
    assert mathematics(r"\boxed{41} or \boxed{42}", "#### 42") == 0.0


BOMBS = [
    "9**9**9**9", "9^{9^{9^9}}", "10^{10^{10}}!", "(" * 3000 + "1" + ")" * 3000, "{" * 100_000, "9" * 100_000,
    r"\frac{1}{" * 400 + "1" + "}" * 400, "(x+y+z+w)^{300}", "٤" * 5000, "1," * 50_000, "-" * 100_000, "1/" * 50_000,
    r"\boxed{" * 20_000, "#### " * 20_000, "answer is " * 20_000, r"\text{" * 10_000, "a " * 100_000, ". " * 50_000,
    "\\" * 100_000, "~" * 100_000, "1" + "0" * 39 + "." + "9" * 40, "__import__('os').system('true')",
]  # fmt: skip


@pytest.mark.parametrize("grader", sorted(GRADERS))
def test_no_bomb_costs_a_pure_grader_time(grader: str) -> None:
    """Powers, nesting, huge integers, foreign digits and what makes a bad expression backtrack: 0.0 within moments."""
    for bomb in BOMBS:
        for text in (bomb, f"#### {bomb}", rf"\boxed{{{bomb}}}", f"#### {bomb[: LONGEST - 20]}"):
            began = time.thread_time()
            assert grades(grader, [text], "#### 42") == (0.0,)
            assert time.thread_time() - began < 0.5


def test_nested_boxes_cost_no_more_than_one_look() -> None:
    """Each brace is looked at once, however many boxes are open."""
    text = r"\boxed{" * 292
    fastest = min(timed(text) for _ in range(5))
    assert fastest < 0.003


def timed(text: str) -> float:
    began = time.thread_time()
    assert mathematics(text, "#### 42") == 0.0
    return time.thread_time() - began


def test_rewards_stay_inside_their_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a grader returns, a reward lies in [0, 1]; an unknown grader is an error."""
    returned = iter([2.0, -1.0, float("nan"), float("inf"), 0.25])
    monkeypatch.setitem(GRADERS, "odd/1", lambda completion, answer: next(returned))

    assert grades("odd/1", [""] * 5, "") == (1.0, 0.0, 0.0, 0.0, 0.25)
    assert bounded(True) == 1.0
    with pytest.raises(KeyError):
        grades("none/1", [""], "")


@pytest.mark.parametrize(
    ("grader", "answer", "able"),
    [
        ("final-number/1", "#### 1,000", True), ("final-number/1", "x", False), ("final-number/1", "NaN", False),
        ("math/1", "x", True), ("math/1", "#### ", False), ("latex/1", "x", True), ("latex/1", "", False),
    ],
)  # fmt: skip
def test_an_answer_is_gradable_where_something_could_be_right(grader: str, answer: str, able: bool) -> None:
    """Graders of numbers need a number, the others any text."""
    assert gradable(grader, answer) == able
