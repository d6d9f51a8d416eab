"""The command line, called in this process."""

import os
import socket
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from node.cli import COMMANDS, main, swarm
from node.cli.init import swarm_manifests
from node.cli.options import FLAGS
from node.cli.status import text_of
from node.config import KEYS, load_config
from node.exits import MEANING, Exit
from node.machine.status import CurvePoint, PeerStatus, Status, VoteStatus
from protocols.manifest_rules import parse_manifest

CONTRACT = "0x" + "aB" * 20
GIVEN = ("--swarm", "local", "--chain-url", "ws://127.0.0.1:1", "--contract", CONTRACT)

STATUS = Status(
    address="0x" + "12" * 20,
    phase="working",
    round=7,
    stage=0,
    deadline=1030.0,
    registered=True,
    chain="present",
    network="absent",
    trainer="unknown",
    connected=0,
    reward=0.25,
    accuracy=0.5,
    peers=tuple(PeerStatus(address=f"0x{number:040x}", groups=1, reward=0.5) for number in range(15)),
    votes=(VoteStatus(round=6, winners=("0x1",), phase="committed"),),
    curve=(CurvePoint(5, 1.0, 0.5),),
    note="the network is away",
    name="slow cunning wallaby",
    peer_id="QmQ1cyNkEkEKajPmwRh4NwgpCjun8rVkmtAv8ttxXStKtA",
)


def call(*args: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(args)
    return int(ended.value.code or 0)


def refused(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str]:
    code = call(*args)
    output = capsys.readouterr()
    assert output.err.startswith("swarm: ")
    assert output.err.count("\n") == 1
    assert output.out == ""
    return code, output.err


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables of the machine that runs the tests must not matter."""
    for variable in [name for name in os.environ if name.startswith("SWARM_") or name == "IDENTITY_PATH"]:
        monkeypatch.delenv(variable)


def test_init_writes_a_directory_that_run_accepts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Configuration, manifest and key are there, for their owner only, and say what the flags said."""
    home = tmp_path / "node"
    assert call("init", "--data-dir", str(home), *GIVEN, "--model", "name/of-model", "--bootnode", "/dns4/b/tcp/1") == 0
    config = load_config(home, {}, {})
    assert (config.chain.urls, config.chain.contract) == (("ws://127.0.0.1:1",), CONTRACT.lower())
    assert (config.trainer.model, config.gossip.bootnodes) == ("name/of-model", ("/dns4/b/tcp/1",))
    assert parse_manifest((home / config.manifest).read_bytes()).name == "local"
    assert all((home / name).stat().st_mode & 0o077 == 0 for name in ("swarm.toml", "manifest.toml", "swarm.pem"))
    assert "0x" in capsys.readouterr().out


def test_init_never_overwrites(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A second init changes no byte and says so; another manifest that is there already is left alone too."""
    call("init", "--data-dir", str(tmp_path), *GIVEN)
    capsys.readouterr()
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    code, line = refused(capsys, "init", "--data-dir", str(tmp_path), *GIVEN)
    assert (code, "swarm.toml" in line) == (Exit.EXISTS, True)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    (tmp_path / "swarm.toml").unlink()
    (tmp_path / "manifest.toml").write_text("name = 'mine'")
    assert refused(capsys, "init", "--data-dir", str(tmp_path), *GIVEN)[0] == Exit.EXISTS
    assert (tmp_path / "manifest.toml").read_text() == "name = 'mine'"


def test_init_may_be_repeated_after_it_was_cut_off(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With manifest and key written but no configuration, init goes on and keeps the key."""
    call("init", "--data-dir", str(tmp_path), *GIVEN)
    key = (tmp_path / "swarm.pem").read_bytes()
    (tmp_path / "swarm.toml").unlink()
    assert call("init", "--data-dir", str(tmp_path), *GIVEN) == 0
    assert (tmp_path / "swarm.pem").read_bytes() == key
    capsys.readouterr()


@pytest.mark.parametrize(
    ("lost", "flags", "code", "says"),
    [
        ("swarm.pem", (), Exit.IDENTITY, "swarm.pem: the node key is missing"),
        ("votes.sqlite", (), Exit.STORE, "votes.sqlite is missing, but this node has run before"),
        ("", ("--identity", "swarm.pme"), Exit.IDENTITY, "swarm.pme: the node key is missing"),
    ],
)
def test_a_node_that_lost_its_key_or_votes_does_not_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], lost: str, flags: tuple[str, ...], code: Exit, says: str
) -> None:
    """Neither is ever replaced by a new one where a node has run; a mistyped path of the key is not either."""
    call("init", "--data-dir", str(tmp_path), *GIVEN)
    capsys.readouterr()
    for name in ("votes.sqlite", "journal.sqlite"):
        (tmp_path / name).touch()
    if lost:
        (tmp_path / lost).unlink()
    found, line = refused(capsys, "run", "--data-dir", str(tmp_path), *flags)
    assert (found, says in line) == (code, True)
    assert not (tmp_path / "swarm.pme").exists()
    assert not lost or not (tmp_path / lost).exists()


def test_init_makes_no_second_key_for_a_node_that_lost_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where there are votes, there was a key."""
    (tmp_path / "votes.sqlite").touch()
    code, line = refused(capsys, "init", "--data-dir", str(tmp_path), *GIVEN)
    assert (code, "the node key is missing" in line) == (Exit.IDENTITY, True)


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        ((), Exit.USAGE, "--swarm is missing"),
        (("--swarm", "local", "--chain-url", "127.0.0.1"), Exit.USAGE, "ws://"),
        (("--swarm", "local", "--chain-url", "ws://a:1", "--contract", "0x12"), Exit.USAGE, "40 hex digits"),
        (("--swarm", "nowhere.toml", *GIVEN[2:]), Exit.CONFIG, "nowhere.toml"),
    ],
)
def test_init_names_what_is_missing_or_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], args: tuple[str, ...], code: Exit, says: str
) -> None:
    """Without a terminal nothing is asked: one line names the flag; nothing is written."""
    found, line = refused(capsys, "init", "--data-dir", str(tmp_path / "new"), *args)
    assert found == code
    assert says in line
    assert not (tmp_path / "new").exists()


def test_init_asks_on_a_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a terminal swarm, chain, contract and model are asked for; empty answers take the default."""

    class Terminal:
        answers = iter(["", "", CONTRACT, ""])

        def isatty(self) -> bool:
            return True

        def readline(self, size: int = -1) -> str:
            return next(self.answers) + "\n"

    monkeypatch.setattr("sys.stdin", Terminal())
    assert call("init", "--data-dir", str(tmp_path)) == 0
    assert load_config(tmp_path, {}, {}).chain.contract == CONTRACT.lower()
    capsys.readouterr()


def test_status_of_a_node_that_does_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No http.json, or nobody behind it: one line and a code of its own."""
    code, line = refused(capsys, "status", "--data-dir", str(tmp_path))
    assert (code, "swarm run" in line) == (Exit.NOT_RUNNING, True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    (tmp_path / "http.json").write_bytes(msgspec.json.encode({"url": url, "pid": 4711, "since": 0.0}))
    code, line = refused(capsys, "status", "--data-dir", str(tmp_path), "--json")
    assert (code, "4711" in line) == (Exit.NOT_RUNNING, True)


def test_the_text_of_a_status_says_what_matters() -> None:
    """Phase, round, time left, presence, accuracy, votes, note; of many peers the first dozen."""
    text = text_of(STATUS, now=1000.0)
    for part in ("working", "7, 0", "in 30 s", "away", "not known yet", "50.0%", "committed", "the network is away"):
        assert part in text
    assert "slow cunning wallaby" in text
    assert "and 3 more peers" in text
    assert "passed 70 s ago" in text_of(STATUS, now=1100.0)
    assert not {"paused", "delegation"} & {line.split()[0] for line in text.splitlines() if line.strip()}


def test_the_text_of_a_status_tells_of_pauses_and_ends() -> None:
    """When the organiser's pause lapses, and when the owner's delegation ends, in days."""
    text = text_of(replace(STATUS, paused_until=1090.0, delegated_until=1000.0 + 9 * 86_400), now=1000.0)
    assert "paused        ends in 90 s" in text
    assert "delegation    ends in 9 days" in text


def test_run_without_a_contract_or_with_a_typo_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A directory without configuration, an unknown key by --set, a malformed --set: one line each."""
    assert refused(capsys, "run", "--data-dir", str(tmp_path))[0] == Exit.CONFIG
    code, line = refused(capsys, "run", "--data-dir", str(tmp_path), "--set", "http.prot=1")
    assert (code, "http.port" in line) == (Exit.CONFIG, True)
    assert refused(capsys, "run", "--data-dir", str(tmp_path), "--set", "http.port")[0] == Exit.USAGE


def test_an_unknown_command_or_flag_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Usage errors have code 2 and point at the help."""
    assert refused(capsys, "stat")[0] == Exit.USAGE
    code, line = refused(capsys, "status", "--jsn")
    assert (code, "--help" in line) == (Exit.USAGE, True)


def test_the_data_directory_comes_from_the_environment(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """SWARM_DATA_DIR stands in for --data-dir."""
    monkeypatch.setenv("SWARM_DATA_DIR", str(tmp_path / "elsewhere"))
    assert "elsewhere" in refused(capsys, "status")[1]


def test_version_names_what_a_report_needs(capsys: pytest.CaptureFixture[str]) -> None:
    """The node's own version and Python's are there."""
    assert call("version") == 0
    output = capsys.readouterr().out
    assert "swarm-node" in output
    assert "python" in output


def test_every_command_loads_and_has_a_help_text() -> None:
    """Each name in the table is a command with a docstring."""
    with swarm.make_context("swarm", ["version"], resilient_parsing=True) as context:
        for name in set(COMMANDS) - {"demo"}:
            command = swarm.get_command(context, name)
            assert command is not None
            assert command.help


def test_every_flag_is_a_known_key_and_every_code_has_a_meaning() -> None:
    """Flags and exit codes can't drift from their tables."""
    assert {key for _, key, _, _ in FLAGS} <= set(KEYS)
    assert set(MEANING) == set(Exit)


def test_the_manifests_that_come_along_are_valid() -> None:
    """Each example parses and is called as its file is."""
    assert "local" in swarm_manifests()
    for name, path in swarm_manifests().items():
        assert parse_manifest(path.read_bytes()).name == name
