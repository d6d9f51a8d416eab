"""The generated reference."""

import dataclasses

import msgspec
import pytest

from node.config import KEYS
from protocols.manifest import GameSpec
from tools.reference import ARCHITECTURE, DIRECTORY, bounds, logged_lines, pages, with_rooms
from tools.trl_names import TRL_NAMES

PAGES = pages()


@pytest.mark.parametrize("name", PAGES)
def test_each_page_is_what_the_code_says(name: str) -> None:
    """A page that differs from what `make docs` would write is stale: run it and commit the result."""
    path = DIRECTORY / name
    assert path.exists(), f"run `make docs`: {name} is missing"
    assert path.read_text() == PAGES[name], f"run `make docs`: {name} is stale"


def test_the_table_of_rooms_is_what_the_rules_say() -> None:
    """docs/architecture.md shows the rules that are checked."""
    text = ARCHITECTURE.read_text()
    assert with_rooms(text) == text, "run `make docs`: the table of rooms is stale"


def test_no_page_is_left_over() -> None:
    """Every file of the folder is written by the generator."""
    assert {path.name for path in DIRECTORY.glob("*.md")} == set(PAGES)


def test_events_are_found_in_the_sources() -> None:
    """Lines are read from calls, with level and fields."""
    found = {line.event: line for line in logged_lines()}
    assert found["http.listening"].level == "info"
    assert found["http.listening"].fields == ("url",)
    assert found["node.failed"].level == "error"


def test_bounds_of_a_key_are_shown() -> None:
    """The port's range is part of its type; a plain type has none."""
    assert "integer, at least 0, at most 65535" in PAGES["config.md"]
    assert bounds(int) == ""


def test_names_of_trl_stand_beside_keys_that_exist() -> None:
    """Each key of the table is one of the configuration or of the game; both pages show the column."""
    fields = {f"game.{field.name}" for field in msgspec.structs.fields(GameSpec)}
    assert set(TRL_NAMES) <= {*KEYS, *fields}
    assert "| epsilon_high |" in PAGES["config.md"]
    assert "| num_generations |" in PAGES["manifest.md"]


def test_names_of_trl_are_its_own() -> None:
    """Where TRL is installed, each is a field of its configuration."""
    trl = pytest.importorskip("trl")
    known = {field.name for field in dataclasses.fields(trl.GRPOConfig)}
    assert {name.split()[0] for name in TRL_NAMES.values()} <= known
