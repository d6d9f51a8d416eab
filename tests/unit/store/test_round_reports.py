"""Accounts of rounds on disk: whole, bounded, repeatable, readable beside their writer."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs

from node.app.round_recorder import RoundRecorder
from node.exits import Exit, Refusal
from node.machine import inputs as i
from node.machine.round_report import RoundReport
from node.machine.state import State, VoteRecord, initial
from node.machine.step import step
from node.store.round_reports import KEPT, RoundStore, kept_rounds, open_round_store, read_round
from protocols.identifiers import body_digest
from protocols.manifest import Manifest

ME = "0x" + "11" * 20
SEED = body_digest(b"seed")
VOTE = VoteRecord(3, SEED, (), "planned")


def account(number: int, seed: bytes = SEED, vote: VoteRecord | None = None) -> RoundReport:
    return RoundReport(
        round=number, seed=seed, me=ME, at=1.0, opened=0, game="share", sealed=True, winners=2, minimum_groups=1,
        entries=(), vote=vote, no_vote="" if vote else "no other peer could win",
    )  # fmt: skip


def test_a_round_is_read_while_its_writer_has_the_file_and_after(tmp_path: Path) -> None:
    """Without a number the last round whose vote is done is meant, else with a vote; without a file nothing is kept."""
    path = tmp_path / "rounds.sqlite"
    assert (read_round(path), kept_rounds(path)) == (None, [])
    store = RoundStore(path)
    for each in (account(3, vote=VOTE), account(4)):
        store.put(each)
    assert read_round(path) == account(3, vote=VOTE)
    assert read_round(path, 4) == account(4)
    assert read_round(path, 9) is None
    store.put(account(2, vote=replace(VOTE, phase="done")))
    store.close()
    assert kept_rounds(path) == [2, 3, 4]
    assert read_round(path, 3) == account(3, vote=VOTE)
    assert read_round(path) == account(2, vote=replace(VOTE, phase="done"))
    assert [each.name for each in tmp_path.iterdir()] == ["rounds.sqlite"]


def damage(path: Path, how: str) -> None:
    """Damage a file in one of the ways that disks and copies do."""
    whole = path.read_bytes()
    if how == "overwritten":
        path.write_bytes(b"damaged" * 1000)
    elif how == "cut short":
        path.write_bytes(whole[: len(whole) // 2])
    elif how == "a page zeroed":
        path.write_bytes(whole[:4096] + bytes(4096) + whole[8192:])
    else:
        with sqlite3.connect(path) as db:
            db.execute("PRAGMA user_version = 9")
        db.close()


@pytest.mark.parametrize("how", ["overwritten", "cut short", "a page zeroed", "of a newer version"])
def test_a_damaged_file_is_moved_aside(tmp_path: Path, how: str) -> None:
    """It explains past rounds only: the node goes on with a new one, and the operator is told where the old one is."""
    path = tmp_path / "rounds.sqlite"
    store = RoundStore(path)
    for number in range(20):
        store.put(account(number))
    store.close()
    damage(path, how)
    damaged = path.read_bytes()
    with capture_logs() as logs:
        store = open_round_store(path)
    assert [(each["event"], each["log_level"]) for each in logs] == [("rounds.moved_aside", "warning")]
    aside = Path(logs[0]["to"])
    assert (aside.read_bytes(), aside.name.startswith("rounds.sqlite.damaged-")) == (damaged, True)
    RoundRecorder(store, lambda peers: {})
    store.put(account(3))
    assert kept_rounds(path) == [3]
    store.close()


def test_a_file_in_use_is_not_moved_aside(tmp_path: Path) -> None:
    """Another program's hold on it, or a directory in its place, is the operator's to mend."""
    path = tmp_path / "rounds.sqlite"
    path.mkdir()
    with pytest.raises(Refusal, match="unable to open"):
        open_round_store(path)
    assert [each.name for each in tmp_path.iterdir()] == ["rounds.sqlite"]


def test_a_vote_is_written_into_its_round_alone(tmp_path: Path) -> None:
    """The same round under another seed is another round; a round that is not kept changes nothing."""
    store = RoundStore(tmp_path / "rounds.sqlite")
    store.put(account(3, vote=VOTE))
    done = replace(VOTE, phase="done", transactions=("0xc0",))
    store.put_vote(replace(done, seed=body_digest(b"fork")))
    store.put_vote(replace(done, round=8))
    assert read_round(store.path, 3) == account(3, vote=VOTE)
    store.put_vote(done)
    assert read_round(store.path, 3) == account(3, vote=done)
    store.close()


def test_what_a_killed_writer_left_is_read(tmp_path: Path) -> None:
    """Until the log is folded in, what was written stands beside the file; a reader finds it there."""
    store = RoundStore(tmp_path / "rounds.sqlite")
    store.put(account(3, vote=VOTE))
    copy = tmp_path / "copy"
    copy.mkdir()
    for suffix in ("", "-wal"):
        shutil.copy(f"{store.path}{suffix}", copy)
    store.close()
    assert read_round(copy / "rounds.sqlite") == account(3, vote=VOTE)


def test_the_oldest_rounds_go(tmp_path: Path) -> None:
    """No more than the bound are kept, however long the node runs."""
    store = RoundStore(tmp_path / "rounds.sqlite")
    for number in range(KEPT + 3):
        store.put(account(number))
    assert kept_rounds(store.path) == list(range(3, KEPT + 3))
    store.close()


def test_a_file_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    """Reader and writer say so in one line."""
    path = tmp_path / "rounds.sqlite"
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 9")
    for attempt in (RoundStore, read_round):
        with pytest.raises(Refusal, match="newer version") as refused:
            attempt(path)
        assert refused.value.code is Exit.STORE


def test_a_damaged_round_is_refused_and_costs_the_node_nothing(tmp_path: Path) -> None:
    """The reader names the file; the node that would write the vote into it goes on."""
    store = RoundStore(tmp_path / "rounds.sqlite")
    keeper = RoundRecorder(store, lambda peers: {})
    state = run(beginning(), keeper, i.NodeStarted(), i.ChainRestored(0.0), opened(1))
    with sqlite3.connect(store.path) as db:
        db.execute("INSERT INTO rounds VALUES (3, ?, x'00')", (SEED,))
    with pytest.raises(Refusal, match="can't be read"):
        read_round(store.path, 3)
    keeper.follow(replace(state, votes=(VOTE,)), 6.0)
    store.close()


def opened(number: int, seed: bytes = b"") -> i.StageOpened:
    return i.StageOpened(number, 0, seed or body_digest(bytes([number])), 60 * number + 60, 60 * number, 1)


def run(state: State, keeper: RoundRecorder, *happened: i.AnyInput) -> State:
    """Take inputs as the loop does: first the state, then whoever follows it."""
    for each in happened:
        state, _ = step(state, i.Stamped(5.0, each))
        keeper.follow(state, 5.0)
    return state


def beginning() -> State:
    return replace(initial(ME, Manifest(name="t")), peers={ME: 0})


def test_a_round_is_kept_when_the_next_one_opens_and_when_it_was_killed_in_between(tmp_path: Path) -> None:
    """After kill -9 between the journal's write and this one the round is written at the next start."""
    store = RoundStore(tmp_path / "rounds.sqlite")
    keeper = RoundRecorder(store, lambda peers: {})
    state = run(beginning(), keeper, i.NodeStarted(), i.ChainRestored(0.0), opened(1), opened(2))
    assert kept_rounds(store.path) == [1]
    state, _ = step(state, i.Stamped(5.0, opened(3)))
    run(state, RoundRecorder(store, lambda peers: {}), i.NodeStarted())
    assert kept_rounds(store.path) == [1, 2]
    store.close()


def test_a_reorg_to_another_seed_replaces_the_round(tmp_path: Path) -> None:
    """What was ranked under the seed that is gone explains nothing any more; the same seed again changes nothing."""
    store = RoundStore(tmp_path / "rounds.sqlite")
    keeper = RoundRecorder(store, lambda peers: {})
    state = run(beginning(), keeper, i.NodeStarted(), i.ChainRestored(0.0), opened(1), opened(2))
    first = read_round(store.path, 1)
    fork = replace(opened(1, b"f" * 32), rewound=True)
    state = run(state, keeper, fork, opened(2))
    forked = read_round(store.path, 1)
    assert first is not None
    assert forked is not None
    assert (first.seed, forked.seed) == (body_digest(bytes([1])), b"f" * 32)
    run(state, keeper, fork, opened(2))
    assert read_round(store.path, 1) == forked
    store.close()
