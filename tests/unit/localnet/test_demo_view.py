import io
import re
import sys
from pathlib import Path

import pytest
from rich.console import Console

from node.cli.demo import draw_picture
from node.localnet.demo_plan import DemoOptions, demo_plan
from node.localnet.demo_summary import summed_up
from node.localnet.demo_view import PlainView, head, line, picture, view_for
from node.localnet.learning_curves import NO_PICTURE, NoPictureError, draw, mean_curve
from tests.support.demo_snapshots import sighting, snapshot, status, vote

PLAN = demo_plan(DemoOptions(peers=3, rounds=4))
SWARM = snapshot(
    sighting(1, status(1, round_number=4, curve=((0, 0.2), (4, 0.55)))),
    sighting(2, status(2, round_number=3, curve=((0, 0.3),), note="no peer is connected: training goes on alone")),
    sighting(3, None),
    votes=(vote(2, 1, 2),),
)


def test_the_live_view_names_what_matters() -> None:
    """Round, stage, time to the deadline, and for each peer name, phase, reward, accuracy, votes and peers."""
    console = Console(file=io.StringIO(), width=140)
    console.print(picture(PLAN, SWARM))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    for expected in (
        "round 4", "stage play", "4 s to the deadline", "1 votes on chain", "quick brown fox1", "working", "0.50",
        "55.0 %", "+35.0", "starting", "no peer is connected",
    ):  # fmt: skip
        assert expected in text


def test_before_the_first_round_the_head_says_so() -> None:
    """No round is invented while no node knows of one."""
    assert head(PLAN, snapshot(sighting(1, None))).startswith("the nodes are starting")


def test_plain_lines_come_once_a_round() -> None:
    """Where nobody looks at a terminal, the same round is told once."""
    stream = io.StringIO()
    with PlainView(stream) as view:
        view.step("starting")
        view.show(PLAN, SWARM)
        view.show(PLAN, SWARM)
    assert stream.getvalue().splitlines() == ["starting", line(PLAN, SWARM)]
    assert "round 4 (2 of" in line(PLAN, SWARM)


def test_a_file_gets_plain_lines() -> None:
    """Only a terminal is redrawn."""
    assert isinstance(view_for(io.StringIO()), PlainView)


def test_the_mean_curve_counts_each_peer_with_its_newest_value() -> None:
    """Rounds before every peer has a value are left out; a peer that was not measured in a round keeps its last."""
    assert mean_curve([([0, 4], [20.0, 60.0]), ([2, 6], [30.0, 40.0])]) == ([2, 4, 6], [25.0, 45.0, 50.0])


def test_curves_are_drawn_also_for_peers_without_any(tmp_path: Path) -> None:
    """The picture is a PNG whatever the peers have to show."""
    told = tuple(seen for seen in SWARM.sightings if seen.status)
    never = sighting(3, status(3, round_number=4, curve=(), rewards=()))
    path = tmp_path / "curves.png"
    draw(summed_up(PLAN, snapshot(*told, never), seconds=1.0, contract="0xc0"), path)
    assert path.read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_no_picture_is_drawn_and_the_error_says_how_to_get_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Drawing needs the extra `demo`, nothing else of the demo does."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    told = tuple(seen for seen in SWARM.sightings if seen.status)
    with pytest.raises(NoPictureError, match=re.escape("swarm-node[demo]")):
        draw(summed_up(PLAN, snapshot(*told), seconds=1.0, contract="0xc0"), tmp_path / "curves.png")
    assert list(tmp_path.iterdir()) == []


def test_the_demo_goes_on_without_a_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line says that none was drawn."""

    def fails() -> None:
        raise NoPictureError(NO_PICTURE)

    draw_picture(fails, tmp_path / "curves.png")
    assert capsys.readouterr().out == f"{NO_PICTURE}\n"
