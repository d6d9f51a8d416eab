"""What the game `debate` asks of a manifest."""

import pytest

from protocols.games import game_problems
from protocols.manifest import GameSpec, Manifest, StageSpec
from tests.support.debate_tables import debate

MANIFEST = debate()
SPEC = MANIFEST.game


@pytest.mark.parametrize(
    ("parameters", "problem"),
    [
        ({"quoted": 6}, "quoted: 1 to 5"),
        ({"critique": "{question}"}, "critique: needs the place-holders answers, question"),
        ({"answer": "{text}"}, "answer: needs"),
        ({"pick": "  "}, "pick, vote"),
        ({"judge": "me"}, "judge"),
        ({"quoted": "many"}, "quoted"),
    ],
)
def test_wording_that_makes_no_sense_is_refused(parameters: dict[str, str | int], problem: str) -> None:
    """Each parameter is named with what it must be."""
    assert any(problem in text for text in game_problems(debate(**parameters)))


def test_a_debate_has_three_stages() -> None:
    """One stage more or less is refused with the order that they have."""
    short = Manifest(name="t", game=GameSpec(name="debate"), stages=(StageSpec(name="answer", seconds=1),))
    assert game_problems(MANIFEST) == []
    assert game_problems(short) == ["stages: 'debate' has 3, in this order: answer, critique, resolve"]
