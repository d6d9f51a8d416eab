r"""The grader "latex/1": accepts what "math/1" accepts, and LaTeX expressions that math-verify finds equal.

math-verify parses with ANTLR and compares with sympy, without limits on hostile text (measured: 10 s and half a
gigabyte for one answer). Plain numbers therefore never reach it, and expressions only if they are short and shallow,
without exponent towers, factorials, long numbers or commands that a final answer does not need.
"""

from __future__ import annotations

import re

from protocols.grading import Grader, final_answers, mathematics, reference_text
from protocols.quantities import LONGEST, normal_form, quantity

DEEPEST = 12
DIGITS = 20

_LONG_DIGITS = re.compile(rf"[0-9]{{{DIGITS + 1}}}")
_POWERS = re.compile(r"\^\s*\{?\s*[+-]?[0-9]{4}|\*\s*\*|!")
_TOWER = re.compile(r"\^\s*\{[^}]*\^|\^\s*[0-9A-Za-z]\s*\^")
_COMMAND = re.compile(r"\\([A-Za-z]+)")
_TYPICAL = r"\frac{\sqrt{3}}{2} + (x - 1)^2 \cdot \pi"
COMMANDS = frozenset([
    "frac", "dfrac", "tfrac", "sqrt", "pi", "cdot", "times", "div", "pm", "mp", "left", "right", "text", "mathrm",
    "textbf", "mbox", "infty", "cup", "cap", "in", "notin", "emptyset", "mathbb", "le", "leq", "ge", "geq", "lt",
    "gt", "ne", "neq", "sin", "cos", "tan", "cot", "sec", "csc", "arcsin", "arccos", "arctan", "log", "ln", "exp",
    "circ", "degree", "begin", "end", "pmatrix", "bmatrix", "matrix", "theta", "alpha", "beta", "gamma", "lambda",
    "mu", "phi", "omega", "overline", "quad",
])  # fmt: skip
"""LaTeX commands that a final answer may contain."""


def screen(completion: str, answer: str) -> float | None:
    """Grade without math-verify if possible: right by "math/1", no answer, plain numbers, or not harmless."""
    given, right = final_answers(completion), mathematics(completion, answer)
    if right or not given:
        return right
    reference = reference_text(answer)
    numbers = [quantity(normal_form(each)) for each in (reference, *given)]
    return None if None in numbers and all(map(is_harmless, given)) else 0.0


def is_harmless(text: str) -> bool:
    """Return True if an expression is safe to parse: short, shallow, ASCII, no large number in it or produced by it."""
    if len(text) > LONGEST or not text.isascii() or _LONG_DIGITS.search(text):
        return False
    if _POWERS.search(text) or _TOWER.search(text) or any(each not in COMMANDS for each in _COMMAND.findall(text)):
        return False
    return _depth(text) <= DEEPEST


def _depth(text: str) -> int:
    depth = deepest = 0
    for character in text:
        depth += (character in "({[") - (character in ")}]")
        deepest = max(deepest, depth)
    return deepest


def latex_grader() -> Grader:
    """Return the comparison by math-verify, to be run in a killable process. Raises ValueError if it is missing.

    It is run once here: the parser builds its tables in 0.2 s, which forks should not repeat.
    """
    try:
        from math_verify import parse, verify
    except ImportError as error:
        raise ValueError("math-verify is not installed; install swarm-node[math]") from error

    def grade(completion: str, answer: str) -> float:
        gold = parse(_boxed(reference_text(answer)), parsing_timeout=None)
        given = [parse(_boxed(each), parsing_timeout=None) for each in final_answers(completion)]
        return float(bool(gold) and bool(given) and all(verify(gold, each, timeout_seconds=None) for each in given))

    for reference in (_TYPICAL, "x^2 + 2x + 1"):
        grade(f"Answer: {_TYPICAL}", reference)
    return grade


def _boxed(text: str) -> str:
    return f"$\\boxed{{{text.strip('$')}}}$"
