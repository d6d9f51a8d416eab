"""`swarm explain` and `swarm leaderboard`, called in this process on a directory without a node or a chain."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from node.cli import main
from node.cli.known_names import known_peer_ids
from node.config import load_config
from node.exits import Exit
from node.explain.leaderboard_rows import places_of
from node.identity import name_of
from node.identity.key import load, new_key
from node.identity.rsa import FILE as RSA_FILE
from node.identity.rsa import RsaIdentity
from node.machine.round_report import PeerRoundReport, RoundReport
from node.machine.state import BodyRecord, VoteRecord
from node.manifest_file import load_manifest
from node.store.round_reports import FILE, RoundStore, read_round
from protocols.identifiers import body_digest
from protocols.tally import Registered
from protocols.wire import Completion, Group, Rollouts, encode
from tests.support.rsa_keys import stored

CONTRACT = "0x" + "ab" * 20
GIVEN = ("--swarm", "local", "--chain-url", "http://127.0.0.1:1", "--contract", CONTRACT)
SEED = body_digest(b"seed")


def call(capsys: pytest.CaptureFixture[str], command: str, home: Path, *args: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main([command, "--data-dir", str(home), *args])
    output = capsys.readouterr()
    return int(ended.value.code or 0), output.out, output.err


@pytest.fixture
def home(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that keeps the rounds 3 and 4; the own body in its cache has too few groups for the swarm."""
    for variable in [name for name in os.environ if name.startswith("SWARM_") or name == "IDENTITY_PATH"]:
        monkeypatch.delenv(variable)
    assert call(capsys, "init", tmp_path, *GIVEN)[0] == 0
    me = load(tmp_path / "swarm.pem")
    group = Group(0, 0, (Completion("#### 1", b"\1\0\0\0", b"", True),))
    stored = encode(Rollouts(4, 0, bytes(32), (group,)))
    digest = body_digest(stored)
    (tmp_path / "bodies" / "4").mkdir(parents=True)
    (tmp_path / "bodies" / "4" / digest.hex()).write_bytes(stored)
    body = BodyRecord(digest, len(stored), "arrived", 1, 0.0)
    store = RoundStore(tmp_path / FILE)
    for number, vote in ((3, None), (4, VoteRecord(4, SEED, (), "done"))):
        entry = PeerRoundReport(me.address, "", 0, (body,), 1, 0.0, 0, 0.0, me.peer_id)
        store.put(
            RoundReport(round=number, seed=SEED, me=me.address, at=0.0, opened=0, game="share", sealed=True, winners=1,
                    minimum_groups=1, entries=(entry,), vote=vote, no_vote="" if vote else "no other peer could win")
        )  # fmt: skip
    store.close()
    return tmp_path


def test_without_a_chain_the_last_vote_is_explained_and_the_gap_named(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No node runs and no endpoint answers: everything that is kept is told, and why there is no tally."""
    code, text, _ = call(capsys, "explain", home)
    assert code == 0
    assert text.startswith("Round 4 ")
    assert "tally      not known: no coordinator answers" in text
    assert "not read (--offline)" in call(capsys, "explain", home, "--round", "3", "--offline")[1]


def test_json_holds_the_same(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """For machines: one object, digests as hex."""
    facts = msgspec.json.decode(call(capsys, "explain", home, "--offline", "--json")[1])
    assert (facts["round"], facts["seed"], facts["vote"]) == (4, SEED.hex(), "done")


def test_a_peer_is_graded_again(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By its name or the beginning of its address; what is in the cache is checked as if it had just arrived."""
    me = load(home / "swarm.pem")
    for name in (me.address[:10], me.peer_id):
        code, text, _ = call(capsys, "explain", home, "--offline", "--peer", name)
        assert code == 0
        assert me.address in text
        assert "graded again: refused (groups)" in text
    again = msgspec.json.decode(call(capsys, "explain", home, "--offline", "--peer", me.address, "--json")[1])
    assert again["graded"][0]["stage"] == "play"


def test_without_this_nodes_questions_the_reason_is_told(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Grading needs the data set; what is kept is shown without it."""
    me = load(home / "swarm.pem")
    manifest = (home / "manifest.toml").read_text()
    (home / "manifest.toml").write_text(
        manifest.replace('source = "builtin:arithmetic"', 'source = "jsonl:nowhere.jsonl"')
    )
    assert load_manifest(home / "manifest.toml").data.source == "jsonl:nowhere.jsonl"
    code, text, _ = call(capsys, "explain", home, "--offline", "--peer", me.address)
    assert code == 0
    assert "can't be graded again: " in text


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("--round", "9"), "the last one it ranked is 4"),
        (("--round", "1"), "there are 2 of the rounds 3 to 4"),
        (("--peer", "no such peer"), "no peer of round 4"),
    ],
)
def test_what_is_not_kept_or_known_is_said(
    home: Path, capsys: pytest.CaptureFixture[str], args: tuple[str, ...], says: str
) -> None:
    """One line and a code of its own."""
    code, out, err = call(capsys, "explain", home, "--offline", *args)
    assert (code, out, says in err, err.count("\n")) == (Exit.UNKNOWN, "", True, 1)


def test_a_directory_without_rounds_says_so(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A node that has ranked nothing yet has nothing to explain."""
    (home / FILE).unlink()
    code, _, err = call(capsys, "explain", home)
    assert (code, "has no round reports" in err) == (Exit.UNKNOWN, True)


def test_a_leaderboard_needs_a_chain(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without an endpoint the line names what was tried."""
    code, out, err = call(capsys, "leaderboard", home)
    assert (code, out, CONTRACT in err, err.count("\n")) == (Exit.CHAIN, "", True, 1)


def test_two_peers_of_one_name_are_told_apart(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Three words are no proof of who is meant: both addresses are named."""
    store = RoundStore(home / FILE)
    me = load(home / "swarm.pem")
    entry = PeerRoundReport(me.address, "", 0, (None,), 0, 0.0, 0, 0.0, me.peer_id)
    twin = replace(entry, peer="0x" + "99" * 20)
    store.put(
        RoundReport(round=5, seed=SEED, me=me.address, at=0.0, opened=0, game="share", sealed=True, winners=1,
                minimum_groups=1, entries=(entry, twin), no_vote="no other peer could win")
    )  # fmt: skip
    store.close()
    code, _, err = call(capsys, "explain", home, "--round", "5", "--offline", "--peer", me.peer_id)
    assert code == Exit.UNKNOWN
    assert twin.peer in err


def test_whom_a_directory_knows_by_name(home: Path) -> None:
    """Peers that were met, whose ids hold their keys, peers of the rounds kept, and the node itself."""
    met, me = new_key(), load(home / "swarm.pem")
    (home / "peers.json").write_bytes(msgspec.json.encode({met.peer_id: {}, "QmNoKey": {}}))
    config = load_config(home, {}, {})
    assert known_peer_ids(home, config) == {met.address: met.peer_id, me.address: me.peer_id}
    (home / "peers.json").write_text("damaged")
    assert known_peer_ids(home, config) == {me.address: me.peer_id}


def test_peers_with_an_imported_identity_go_by_its_name(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The session key is registered, the RSA identity is what people know: this node's own, and another's as it was
    heard by gossip."""
    own, other, session = RsaIdentity(stored()), RsaIdentity(stored()), new_key().address
    (home / RSA_FILE).touch(0o600)
    (home / RSA_FILE).write_bytes(own.stored)
    store = RoundStore(home / FILE)
    account = read_round(home / FILE, 4)
    assert account is not None
    heard = replace(account.entries[0], peer=session, peer_id=other.peer_id)
    store.put(replace(account, entries=(*account.entries, heard)))
    store.close()

    facts = msgspec.json.decode(call(capsys, "explain", home, "--offline", "--json")[1])
    assert facts["me"]["name"] == name_of(own.peer_id)
    assert [peer["peer_id"] for peer in facts["peers"]] == [own.peer_id, other.peer_id]
    assert call(capsys, "explain", home, "--offline", "--peer", other.peer_id)[1].startswith(name_of(other.peer_id))
    known = known_peer_ids(home, load_config(home, {}, {}))
    assert (known[account.me], known[session]) == (own.peer_id, other.peer_id)
    places = places_of([Registered(session, session)], (), (), known)
    assert places[0].node.name == name_of(other.peer_id)
