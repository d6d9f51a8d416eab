"""The graders beyond the pure ones of `protocols.grading`, and the preparation of a swarm's grader."""

from __future__ import annotations

from node.exits import Exit, Refusal
from node.grading.pool import PooledGrader, Screen
from node.runtime.entry_points import GRADERS as GROUP
from node.runtime.entry_points import load_plugin, plugin_names
from protocols.grading import GRADERS, Grader

LATEX, GYM = "latex/1", "reasoning-gym/1"


def prepare_grader(name: str) -> None:
    """Register the swarm's grader for `protocols.grading.grades`. Call it once, before anything is graded.

    Raises ValueError in one line if the grader is unknown here or its package is missing.
    """
    if name in GRADERS:
        return
    known = (*GRADERS, LATEX, GYM, *plugin_names(GROUP))
    if name not in known:
        raise ValueError(f"the grader {name!r} is unknown here; there are {', '.join(known)}; install its plug-in")
    GRADERS[name] = PooledGrader(name, screen_of(name))


def require_grader(name: str) -> None:
    """Like `prepare_grader`, but raises `Refusal`."""
    try:
        prepare_grader(name)
    except ValueError as error:
        raise Refusal(Exit.CONFIG, f"this swarm's answers can't be graded here: {error}") from error


def foreign_grader(name: str) -> Grader:
    """Return the grading function for a worker. Raises ValueError if its package is missing or does not load."""
    if name == LATEX:
        from node.grading.latex_grader import latex_grader

        return latex_grader()
    if name == GYM:
        from node.grading.gym_grader import gym_grader

        return gym_grader()
    grade: Grader = load_plugin(GROUP, name)
    return grade


def screen_of(name: str) -> Screen | None:
    """Return a grader's screen, which grades without a worker where it can; None if it has none."""
    if name != LATEX:
        return None
    from node.grading.latex_grader import screen

    return screen


def gave_up() -> int:
    """Return how many completions have exceeded a limit of their grader since this process started."""
    return sum(grader.gave_up for grader in GRADERS.values() if isinstance(grader, PooledGrader))
