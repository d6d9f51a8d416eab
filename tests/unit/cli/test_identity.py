"""Keys, backups and vote histories on the command line, called in this process; none of it needs a chain."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest

from node.cli import COMMANDS, main, swarm
from node.cli.backup import collect
from node.cli.restore import put
from node.exits import Exit, Refusal
from node.identity.key import load
from node.identity.rsa import RsaIdentity
from node.store.directory import DataDirectory
from node.store.restore_mark import is_marked
from node.vote_protection import VoteProtection
from tests.support.rsa_keys import stored

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """Run a command in this process; return exit code, output and errors."""
    for variable in [name for name in os.environ if name.startswith("SWARM_") or name == "IDENTITY_PATH"]:
        monkeypatch.delenv(variable)

    def run(*args: str | Path) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main([str(arg) for arg in args])
        output = capsys.readouterr()
        assert output.err.count("\n") <= 1
        return int(ended.value.code or 0), output.out, output.err

    return run


def options(command: click.Command) -> Iterator[click.Parameter]:
    """Yield the parameters of a command and of all below it."""
    yield from command.params
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from options(below)


def test_no_argument_takes_a_secret() -> None:
    """Arguments stand in the list of processes: a key or passphrase can be named by its file only."""
    telling = ("key", "secret", "pass", "mnemonic", "token")
    found = [each for each in options(swarm) if any(word in (each.name or "") for word in telling)]
    assert {each.name for each in found} == {"keystore", "passphrase_file"}
    assert all(isinstance(each.type, click.Path) for each in found)
    assert {"login", "logout", "register", "whoami", "keys", "backup", "restore"} <= set(COMMANDS)


def test_a_key_is_made_once_and_shown(tmp_path: Path, call: Call) -> None:
    """`new` never replaces a key; `show` gives what may be known and nothing of the secret."""
    code, said, _ = call("keys", "new", "--data-dir", tmp_path)
    key = load(tmp_path / "swarm.pem")
    assert (code, key.peer_id in said, key.address in said) == (0, True, True)
    assert call("keys", "show", "--data-dir", tmp_path)[1] == said
    assert key.secret.hex() not in said
    code, _, line = call("keys", "new", "--data-dir", tmp_path)
    assert (code, "was not changed" in line) == (Exit.EXISTS, True)
    assert load(tmp_path / "swarm.pem").address == key.address
    (tmp_path / "swarm.pem").chmod(0o644)
    code, _, line = call("keys", "show", "--data-dir", tmp_path)
    assert (code, "chmod 600" in line) == (Exit.IDENTITY, True)


def test_a_key_moves_as_pem(tmp_path: Path, call: Call) -> None:
    """Exported and imported it is the same one; neither overwrites a file."""
    call("keys", "new", "--data-dir", tmp_path / "a")
    assert call("keys", "export", tmp_path / "key.pem", "--pem", "--data-dir", tmp_path / "a")[0] == 0
    assert (tmp_path / "key.pem").stat().st_mode & 0o777 == 0o600
    assert call("keys", "export", tmp_path / "key.pem", "--pem", "--data-dir", tmp_path / "a")[0] == Exit.EXISTS
    assert call("keys", "import", tmp_path / "key.pem", "--data-dir", tmp_path / "b")[0] == 0
    assert load(tmp_path / "a" / "swarm.pem").address == load(tmp_path / "b" / "swarm.pem").address
    assert call("keys", "import", tmp_path / "key.pem", "--data-dir", tmp_path / "b")[0] == Exit.EXISTS


def test_a_key_of_rl_swarm_keeps_its_peer_id(tmp_path: Path, call: Call) -> None:
    """Its name and peer id stay, the node key beside it is a new one; where the file is open or damaged: refused."""
    file = tmp_path / "rl-swarm.pem"
    file.write_bytes(stored())
    file.chmod(0o400)
    identity = RsaIdentity(file.read_bytes())
    code, said, _ = call("keys", "import", file, "--data-dir", tmp_path / "node")
    assert (code, identity.peer_id in said) == (0, True)
    assert load(tmp_path / "node" / "swarm.pem").address in said
    assert (tmp_path / "node" / "peer.rsa").read_bytes() == identity.stored
    file.chmod(0o644)
    assert call("keys", "import", file, "--data-dir", tmp_path / "other")[0] == Exit.IDENTITY
    file.write_bytes(identity.stored[:-1])
    file.chmod(0o600)
    code, _, line = call("keys", "import", file, "--data-dir", tmp_path / "other")
    assert (code, "RL Swarm" in line) == (Exit.IDENTITY, True)


def test_a_restored_identity_is_whole_and_marked(tmp_path: Path, call: Call) -> None:
    """Key, RSA identity and votes are there again, in a directory that listens first; nothing is replaced."""
    home, other = tmp_path / "node", tmp_path / "other"
    (tmp_path / "rsa").write_bytes(stored())
    (tmp_path / "rsa").chmod(0o600)
    call("keys", "import", tmp_path / "rsa", "--data-dir", home)
    with VoteProtection(home / "votes.sqlite", b"d" * 32) as guard:
        guard.admit("vote", 7, bytes(32), b"x")
    identity = collect(home, load(home / "swarm.pem"))
    with DataDirectory(other):
        said = put(other, other / "swarm.pem", identity, merge_votes=False)
    assert "1 of 1 records" in said
    for name in ("swarm.pem", "peer.rsa"):
        assert (other / name).read_bytes() == (home / name).read_bytes()
        assert (other / name).stat().st_mode & 0o777 == 0o600
    assert is_marked(other)
    with VoteProtection(other / "votes.sqlite", b"d" * 32) as guard:
        assert not guard.admit("vote", 7, bytes(32), b"y")
    with pytest.raises(Refusal, match="was not changed"):
        put(other, other / "swarm.pem", identity, merge_votes=True)


def test_votes_that_are_here_are_merged_only_when_asked(tmp_path: Path, call: Call) -> None:
    """A directory without its key but with its newer votes: refused as it is, whole with the flag."""
    home = tmp_path / "node"
    call("keys", "new", "--data-dir", home)
    identity = collect(home, load(home / "swarm.pem"))
    with VoteProtection(home / "votes.sqlite") as guard:
        guard.admit("vote", 8, bytes(32), b"x")
    (home / "swarm.pem").unlink()
    with pytest.raises(Refusal, match="--merge-votes") as refused:
        put(home, home / "swarm.pem", identity, merge_votes=False)
    assert (refused.value.code, (home / "swarm.pem").exists(), is_marked(home)) == (Exit.EXISTS, False, False)
    put(home, home / "swarm.pem", identity, merge_votes=True)
    with VoteProtection(home / "votes.sqlite") as guard:
        assert not guard.admit("vote", 8, bytes(32), b"y")


def test_votes_go_from_one_machine_to_another(tmp_path: Path, call: Call) -> None:
    """Exported and imported they count there too; another key's, and what contradicts, is told."""
    a, b, file = tmp_path / "a", tmp_path / "b", tmp_path / "votes.json"
    call("keys", "new", "--data-dir", a)
    call("keys", "export", tmp_path / "key", "--pem", "--data-dir", a)
    call("keys", "import", tmp_path / "key", "--data-dir", b)
    for home, payload in ((a, b"x"), (b, b"y")):
        with VoteProtection(home / "votes.sqlite") as guard:
            guard.admit("vote", 7, bytes(32), payload)
    with VoteProtection(a / "votes.sqlite") as guard:
        guard.admit("vote", 8, bytes(32), b"x")
    assert "2 records" in call("keys", "export-votes", file, "--data-dir", a)[1]
    code, said, _ = call("keys", "import-votes", file, "--data-dir", b)
    assert (code, said) == (
        0, "1 of 2 records were new here; 1 contradict what this machine signed (round 7): two nodes had this key\n"
    )  # fmt: skip
    call("keys", "new", "--data-dir", tmp_path / "c")
    assert call("keys", "import-votes", file, "--data-dir", tmp_path / "c")[0] == Exit.BACKUP
    assert call("keys", "import-votes", a / "swarm.pem", "--data-dir", b)[0] == Exit.BACKUP


def test_without_a_key_each_command_says_how_to_get_one(tmp_path: Path, call: Call) -> None:
    """One line names the file that is not there and the commands that make it."""
    for command in (("keys", "show"), ("backup", tmp_path / "b"), ("whoami",), ("login",)):
        code, _, line = call(*command, "--data-dir", tmp_path / "nothing")
        assert (code, "swarm keys new" in line) == (Exit.IDENTITY, True)
    assert call("login", "--request", "--browser", "--data-dir", tmp_path)[0] == Exit.USAGE
    assert call("login", "--owner", "0x12", "--data-dir", tmp_path)[0] == Exit.USAGE


def test_votes_that_were_lost_are_imported_into_a_marked_directory(tmp_path: Path, call: Call) -> None:
    """The history may lack the latest votes, so the node listens first; nothing else makes up for the lost file."""
    home, file = tmp_path / "node", tmp_path / "votes.json"
    call("keys", "new", "--data-dir", home)
    with VoteProtection(home / "votes.sqlite") as guard:
        guard.admit("vote", 7, bytes(32), b"x")
    call("keys", "export-votes", file, "--data-dir", home)
    (home / "journal.sqlite").touch()
    (home / "votes.sqlite").write_bytes(b"")
    code, _, line = call("keys", "export-votes", tmp_path / "again.json", "--data-dir", home)
    assert (code, "votes.sqlite is empty" in line) == (Exit.STORE, True)
    assert call("backup", tmp_path / "backup", "--data-dir", home)[0] == Exit.STORE
    assert call("keys", "import-votes", file, "--data-dir", home)[:2] == (0, "1 of 1 records were new here\n")
    assert is_marked(home)
    assert not (home / "journal.sqlite").exists()
    with VoteProtection(home / "votes.sqlite") as guard:
        assert not guard.admit("vote", 7, bytes(32), b"y")
