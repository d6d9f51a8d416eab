"""The stage manager's timer and key, without a chain."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.identifiers import keccak256
from tools.stage_manager import KEY_VARIABLE, PAUSE, keep_time, next_tick, read_key, reason


class Time:
    """A clock that moves with what sleeps and works."""

    def __init__(self, works: list[float], fails: frozenset[int] = frozenset()) -> None:
        self.now, self.works, self.fails = 0.0, works, fails
        self.ticks: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def tick(self) -> None:
        self.ticks.append(self.now)
        self.now += self.works[(len(self.ticks) - 1) % len(self.works)]
        if len(self.ticks) - 1 in self.fails:
            raise ConnectionError("http://127.0.0.1/secret")

    def keep(self, seconds: float, updates: int) -> list[float]:
        keep_time(self.tick, seconds, updates, clock=lambda: self.now, sleep=self.sleep)
        return self.ticks


def test_stages_are_as_long_as_asked_for_however_long_a_transaction_takes() -> None:
    """The pace does not drift by what each update costs."""
    assert Time([3.0]).keep(60, 4) == [60, 120, 180, 240]


def test_missed_ticks_are_not_made_up_for() -> None:
    """A chain that was away for a while does not get its stages all at once."""
    assert Time([200.0, 0.0, 0.0]).keep(60, 3) == [60, 320, 380]


def test_a_failed_update_is_tried_again_soon(capsys: pytest.CaptureFixture[str]) -> None:
    """It counts once it worked; no URL, and no key in it, is shown."""
    assert Time([0.0], frozenset({0})).keep(60, 1) == [60, 60 + PAUSE]
    assert capsys.readouterr().err == "not updated: ConnectionError; again in 5 s\n"


@given(st.floats(0, 1e6), st.floats(0, 1e6), st.floats(1, 1e4))
def test_the_next_tick_lies_ahead(due: float, late: float, seconds: float) -> None:
    """Never in the past, never more than a stage away."""
    now = due + late
    assert now < next_tick(due, now, seconds) <= now + seconds


def test_the_contracts_own_word_is_told() -> None:
    """An account without the role reads why."""
    error = ValueError("reverted")
    error.data = "0x" + keccak256(b"OnlyStageManager()")[:4].hex()  # type: ignore[attr-defined]
    assert reason(error) == "OnlyStageManager"


def test_the_key_comes_from_a_file_or_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without either, the line says what to do."""
    (tmp_path / "key").write_text("0xfile\n")
    monkeypatch.setenv(KEY_VARIABLE, "0xenvironment")
    assert (read_key(tmp_path / "key"), read_key(None)) == ("0xfile", "0xenvironment")
    monkeypatch.delenv(KEY_VARIABLE)
    for path in (None, tmp_path / "missing"):
        with pytest.raises(click.ClickException, match=r"--key-file|check path"):
            read_key(path)
