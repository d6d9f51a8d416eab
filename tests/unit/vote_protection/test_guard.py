"""The vote protection."""

import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from node.exits import Exit, Refusal
from node.store.database import open_database
from node.vote_protection import SignedRecord, VoteProtection
from node.vote_protection.guard import MIGRATIONS

KEYS = st.tuples(
    st.sampled_from(["commit", "reveal", "vote"]), st.integers(0, 3), st.sampled_from([bytes(32), b"s" * 32])
)
PAYLOADS = st.binary(max_size=3)
STAGES = st.tuples(st.integers(0, 2), st.integers(0, 1), st.sampled_from([bytes(32), b"s" * 32]))
BODIES = st.sampled_from([b"1" * 32, b"2" * 32])


class NeverTwo(RuleBasedStateMachine):
    """Whatever is asked, in whatever order and across restarts, one key never gets two payloads signed, nor two bodies
    announced."""

    @initialize()
    def begin(self) -> None:
        self.directory = tempfile.TemporaryDirectory()
        self.path = Path(self.directory.name) / "votes.sqlite"
        self.guard = VoteProtection(self.path)
        self.signed: dict[tuple[str, int, int, bytes], bytes] = {}

    @rule(key=KEYS, payload=PAYLOADS)
    def ask(self, key: tuple[str, int, bytes], payload: bytes) -> None:
        kind, round_number, seed = key
        first = self.signed.setdefault((kind, round_number, 0, seed), payload)
        assert self.guard.admit(*key, payload) is (first == payload)

    @rule(where=STAGES, body=BODIES)
    def announce(self, where: tuple[int, int, bytes], body: bytes) -> None:
        round_number, stage, seed = where
        first = self.signed.setdefault(("announce", round_number, stage, seed), body)
        assert self.guard.admit_announcement(*where, body) == first
        assert self.guard.announced(*where) == first

    @rule()
    def reopen(self) -> None:
        self.guard.close()
        self.guard = VoteProtection(self.path)

    @invariant()
    def the_history_is_what_was_signed(self) -> None:
        if hasattr(self, "guard"):
            assert {each.place[1:]: each.payload for each in self.guard.history()} == self.signed

    def teardown(self) -> None:
        if hasattr(self, "guard"):
            self.guard.close()
            self.directory.cleanup()


NeverTwo.TestCase.settings = settings(max_examples=15, stateful_step_count=15, deadline=None)
TestNeverTwo = NeverTwo.TestCase

SIGNER = """
import sys
from pathlib import Path
from node.vote_protection import VoteProtection
guard = VoteProtection(Path(sys.argv[1]))
for number in range(1_000_000):
    assert guard.admit("vote", number, bytes(32), b"first %d" % number)
    guard.admit_announcement(number, 1, bytes(32), number.to_bytes(32, "big"))
    print(number, flush=True)
"""


def test_kill_9_forgets_no_vote(tmp_path: Path) -> None:
    """A signer killed in the middle: after a restart nothing else can be signed or announced for any round it had
    admitted."""
    path = tmp_path / "votes.sqlite"
    signer = subprocess.Popen([sys.executable, "-c", SIGNER, str(path)], stdout=subprocess.PIPE, text=True)
    assert signer.stdout is not None
    said = [signer.stdout.readline() for _ in range(15)]
    os.kill(signer.pid, signal.SIGKILL)
    said += signer.stdout.read().splitlines(keepends=True)
    signer.wait()
    with VoteProtection(path) as guard:
        for number in (int(line) for line in said if line.endswith("\n")):
            assert not guard.admit("vote", number, bytes(32), b"second")
            assert guard.admit("vote", number, bytes(32), b"first %d" % number)
            first = number.to_bytes(32, "big")
            assert guard.announced(number, 1, bytes(32)) == first
            assert guard.admit_announcement(number, 1, bytes(32), b"b" * 32) == first


def test_a_second_process_is_refused_by_name(tmp_path: Path) -> None:
    """Whoever comes second is told process, machine and time of the first; when the first goes, it may come."""
    path = tmp_path / "votes.sqlite"
    with VoteProtection(path):
        with pytest.raises(Refusal, match=f"process {os.getpid()} on .* since 20") as refused:
            VoteProtection(path)
        assert refused.value.code is Exit.LOCKED
    VoteProtection(path).close()


def test_another_programs_hold_on_the_file_is_refused_at_the_start(tmp_path: Path) -> None:
    """Not at the first vote; and once it is open nobody else can begin to read."""
    path = tmp_path / "votes.sqlite"
    VoteProtection(path).close()
    reader = sqlite3.connect(path, isolation_level=None, timeout=0.0)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM records").fetchall()
    with pytest.raises(Refusal, match="close the program that has it open"):
        VoteProtection(path)
    reader.execute("COMMIT")
    with VoteProtection(path), pytest.raises(sqlite3.OperationalError, match="locked"):
        reader.execute("SELECT * FROM records")
    reader.close()


def test_a_damaged_protection_is_refused(tmp_path: Path) -> None:
    """A damaged file never counts as an empty one, and the lock is free again after the refusal."""
    path = tmp_path / "votes.sqlite"
    path.write_bytes(b"damaged" * 1000)
    for _ in range(2):
        with pytest.raises(Refusal, match="backup") as refused:
            VoteProtection(path)
        assert refused.value.code is Exit.STORE


@pytest.mark.parametrize("beside", ["journal.sqlite", "outbox.sqlite"])
@pytest.mark.parametrize("left", [None, b"", b"SQLite format 3\0", b"SQLite format 3\0" + bytes(84)])
def test_a_lost_protection_is_never_taken_for_an_empty_one(tmp_path: Path, beside: str, left: bytes | None) -> None:
    """Missing, empty, cut short or without a schema beside the files of a node that ran: refused, and nothing is
    created; only whoever restores it may go on."""
    path = tmp_path / "votes.sqlite"
    (tmp_path / beside).touch()
    if left is not None:
        path.write_bytes(left)
    for _ in range(2):
        with pytest.raises(Refusal, match=r"has run before; restore it .* listens") as refused:
            VoteProtection(path)
        assert refused.value.code is Exit.STORE
        assert (path.read_bytes() if path.exists() else None) == left
    if left in (None, b""):
        VoteProtection(path, restoring=True).close()
        VoteProtection(path).close()


def test_a_protection_that_was_written_opens_beside_a_journal(tmp_path: Path) -> None:
    """Also without a single record: the first start has come so far."""
    path = tmp_path / "votes.sqlite"
    VoteProtection(path).close()
    (tmp_path / "journal.sqlite").touch()
    VoteProtection(path).close()


def test_the_seed_is_part_of_the_key(tmp_path: Path) -> None:
    """A reorg that gives the round another seed does not block an honest vote."""
    with VoteProtection(tmp_path / "v") as guard:
        assert guard.admit("vote", 1, b"a" * 32, b"x")
        assert guard.admit("vote", 1, b"b" * 32, b"y")
        assert not guard.admit("vote", 1, b"a" * 32, b"y")


def test_the_deployment_is_part_of_the_key(tmp_path: Path) -> None:
    """Another contract, or a chain that began afresh, does not block an honest vote; bound again, the record holds."""
    with VoteProtection(tmp_path / "v", b"a" * 32) as guard:
        assert guard.admit("vote", 1, bytes(32), b"x")
        guard.bind(b"b" * 32)
        assert guard.admit("vote", 1, bytes(32), b"y")
        guard.bind(b"a" * 32)
        assert not guard.admit("vote", 1, bytes(32), b"y")


def test_records_of_the_first_schema_still_forbid(tmp_path: Path) -> None:
    """A file from before deployments were kept is brought up to date; what it holds counts in every deployment."""
    path = tmp_path / "v"
    old = open_database(path, (), MIGRATIONS[:1], "")
    old.execute("INSERT INTO signed VALUES ('vote', 1, ?, x'aa', 1.0)", (bytes(32),))
    old.close()
    with VoteProtection(path, b"a" * 32) as guard:
        assert not guard.admit("vote", 1, bytes(32), b"y")
        assert guard.admit("vote", 1, bytes(32), b"\xaa")
        assert len(guard.history()) == 1


def signed(round_number: int, payload: bytes) -> SignedRecord:
    return SignedRecord(b"a" * 32, "vote", round_number, bytes(32), payload, 1.0)


def test_merging_never_forgets(tmp_path: Path) -> None:
    """What is new is added, what contradicts is told and does not replace; done again it changes nothing."""
    with VoteProtection(tmp_path / "v") as guard:
        guard.merge((signed(1, b"x"), signed(2, b"x")))
        given = (signed(2, b"y"), signed(3, b"x"))
        assert guard.merge(given) == ((signed(3, b"x"),), (signed(2, b"y"),))
        assert guard.merge(given) == ((), (signed(2, b"y"),))
        assert guard.history() == (signed(1, b"x"), signed(2, b"x"), signed(3, b"x"))


def announced(round_number: int, body: bytes, stage: int = 0) -> SignedRecord:
    return SignedRecord(b"a" * 32, "announce", round_number, bytes(32), body * 32, 1.0, stage)


def test_one_announcement_per_stage_seed_and_deployment(tmp_path: Path) -> None:
    """Another stage, another seed or another contract is another place."""
    with VoteProtection(tmp_path / "v", b"a" * 32) as guard:
        places = [(1, 0, bytes(32)), (1, 1, bytes(32)), (1, 0, b"s" * 32), (2, 0, bytes(32))]
        for number, place in enumerate(places):
            assert guard.announced(*place) is None
            assert guard.admit_announcement(*place, bytes([number]) * 32) == bytes([number]) * 32
        assert [guard.admit_announcement(*place, b"?" * 32) for place in places] == [bytes([n]) * 32 for n in range(4)]
        guard.bind(b"b" * 32)
        assert guard.announced(*places[0]) is None


def test_the_newest_announcements_are_kept(tmp_path: Path) -> None:
    """At the bound all are there, ten times beyond it only the newest, and room is given back; votes stay for ever."""
    with VoteProtection(tmp_path / "v", b"a" * 32, announcements_kept=4) as guard:
        guard.admit("vote", 0, bytes(32), b"x")
        for number in range(4):
            guard.admit_announcement(number, 0, bytes(32), b"b" * 32)
        assert [each.round for each in guard.history() if each.kind == "announce"] == [0, 1, 2, 3]
        for number in range(4, 40):
            guard.admit_announcement(number, 0, bytes(32), b"b" * 32)
        assert [each.round for each in guard.history() if each.kind == "announce"] == [36, 37, 38, 39]
        assert not guard.admit("vote", 0, bytes(32), b"y")
    with VoteProtection(tmp_path / "v", b"a" * 32, announcements_kept=2) as guard:
        guard.admit_announcement(40, 0, bytes(32), b"b" * 32)
        assert [each.round for each in guard.history() if each.kind == "announce"] == [39, 40]


def test_imported_announcements_never_displace_own_ones(tmp_path: Path) -> None:
    """They hold as long as there is room, the newest longest; what contradicts is told and does not replace."""
    with VoteProtection(tmp_path / "v", b"a" * 32, announcements_kept=3) as guard:
        guard.admit_announcement(1, 0, bytes(32), b"1" * 32)
        given = (announced(1, b"2"), announced(7, b"7"), announced(8, b"8"), announced(8, b"9", stage=1))
        assert guard.merge(given) == (given[1:], given[:1])
        assert guard.admit_announcement(8, 1, bytes(32), b"?" * 32) == b"9" * 32
        guard.admit_announcement(2, 0, bytes(32), b"2" * 32)
        kept = [(each.round, each.stage) for each in guard.history()]
        assert kept == [(1, 0), (2, 0), (8, 1)]


def test_a_file_without_announcements_is_migrated(tmp_path: Path) -> None:
    """A file of the second schema keeps its votes, and takes announcements."""
    path = tmp_path / "v"
    open_database(path, (), MIGRATIONS[:2], "").close()
    with VoteProtection(path, b"a" * 32) as guard:
        assert guard.admit_announcement(1, 0, bytes(32), b"b" * 32) == b"b" * 32


@pytest.mark.parametrize("kind", ["vote", "announce"])
def test_nothing_is_signed_where_the_disk_is_full(tmp_path: Path, kind: str) -> None:
    """A record that can't be written is refused in one line that says what to do, for votes and announcements."""

    def sign_many(guard: VoteProtection) -> None:
        for number in range(1000):
            if kind == "vote":
                guard.admit("vote", number, bytes(32), bytes(4096))
            else:
                guard.admit_announcement(number, 0, bytes(32), bytes(4096))

    with VoteProtection(tmp_path / "v", b"a" * 32) as guard:
        guard._connection.execute("PRAGMA max_page_count = 20")
        with pytest.raises(Refusal, match="full; free disk space") as refused:
            sign_many(guard)
        assert refused.value.code is Exit.DISK_FULL
