"""Keys, owners and registration as an operator meets them, against a real chain."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from contracts import Parameters, deploy
from node.cli import main
from node.exits import Exit
from node.identity.key import load, new_key
from node.identity.keystore import encrypt
from node.identity.secret import Secret
from node.localnet.local_chain import LocalChain, developer_keys

pytestmark = pytest.mark.integration

PASSPHRASE = "correct horse battery staple"
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def chain() -> Iterator[LocalChain]:
    with LocalChain(block_seconds=None) as running:
        yield running


@pytest.fixture(scope="module")
def contract(chain: LocalChain) -> str:
    return deploy(chain.url, developer_keys(1)[0], Parameters(stage_seconds=(60,), manifest_digest=bytes(32))).address


@pytest.fixture
def call(chain: LocalChain, contract: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """Run a command in this process; return exit code, output and errors."""
    monkeypatch.setenv("SWARM_CHAIN_URLS", f"ws://127.0.0.1:1,{chain.url}")
    monkeypatch.setenv("SWARM_CHAIN_CONTRACT", contract)

    def run(*args: str | Path) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main([str(arg) for arg in args])
        output = capsys.readouterr()
        return int(ended.value.code or 0), output.out, output.err

    return run


def owner_files(directory: Path) -> tuple[str, Path, Path]:
    """Return a new owner's address, keystore file and passphrase file."""
    owner = new_key()
    keystore, passphrase = directory / f"{owner.address}.json", directory / "passphrase"
    for path, content in (
        (keystore, encrypt(owner, Secret(PASSPHRASE.encode()), 2)),
        (passphrase, PASSPHRASE.encode()),
    ):
        path.write_bytes(content)
        path.chmod(0o600)
    return owner.address, keystore, passphrase


def node(call: Call, home: Path, chain: LocalChain, funded: bool = True) -> str:
    """Make a node; return its address."""
    assert call("keys", "new", "--data-dir", home)[0] == 0
    address = load(home / "swarm.pem").address
    if funded:
        chain.fund(address, 1)
    return address


def test_an_owner_takes_two_nodes_and_lets_one_go(tmp_path: Path, call: Call, chain: LocalChain) -> None:
    """The first three of the four cases in their order: new, registered, a second node; then revoked."""
    owner, keystore, passphrase = owner_files(tmp_path)
    login = ("login", "--keystore", keystore, "--passphrase-file", passphrase, "--data-dir")
    first, second = tmp_path / "first", tmp_path / "second"
    node(call, first, chain)
    code, said, _ = call(*login, first)
    assert (code, "so is its owner" in said, owner in said) == (0, True, True)
    assert call("whoami", "--data-dir", first)[0] == Exit.NEW_NODE
    assert "is registered for its owner" in call("register", "--data-dir", first)[1]
    assert call("whoami", "--data-dir", first)[0] == Exit.OK
    assert "nothing to do" in call("register", "--data-dir", first)[1]

    node(call, second, chain)
    assert "1 other node" in call(*login, second)[1]
    assert call("whoami", "--data-dir", second)[0] == Exit.SECOND_NODE
    assert call("register", "--data-dir", second)[0] == 0

    assert "renewed" in [call(*login, first, "--days", "400"), call("register", "--data-dir", first)][1][1]
    code, said, _ = call("logout", *login[1:], first)
    assert (code, "is revoked: 0x" in said) == (0, True)
    assert "expired on" in call("whoami", "--data-dir", first)[1]
    assert "valid until" in call("whoami", "--data-dir", second)[1]


def test_a_key_keeps_its_owner(tmp_path: Path, call: Call, chain: LocalChain) -> None:
    """Another owner is refused before anything is kept; the line names the registered one and what to do."""
    home = tmp_path / "node"
    node(call, home, chain)
    first, keystore, passphrase = owner_files(tmp_path)
    call("login", "--keystore", keystore, "--passphrase-file", passphrase, "--data-dir", home)
    call("register", "--data-dir", home)
    before = (home / "delegation.json").read_bytes()
    other, keystore, passphrase = owner_files(tmp_path)
    code, _, line = call("login", "--keystore", keystore, "--passphrase-file", passphrase, "--data-dir", home)
    assert code == Exit.OTHER_OWNER
    assert first in line
    assert other in line
    assert "swarm keys new" in line
    assert line.count("\n") == 1
    assert (home / "delegation.json").read_bytes() == before


def test_the_owner_signs_on_another_machine(
    tmp_path: Path, call: Call, chain: LocalChain, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line out, a line back; the owner's key and money never come near the node, which has none of its own."""
    home, elsewhere = tmp_path / "node", tmp_path / "owner"
    elsewhere.mkdir()
    address = node(call, home, chain, funded=False)
    owner = new_key()
    code, request, _ = call("login", "--request", "--data-dir", home)
    assert (code, json.loads(request)["node"]) == (0, address)
    (elsewhere / "request").write_text(request)
    monkeypatch.setenv("SWARM_OWNER_KEY", "0x" + owner.secret.hex())
    code, answer, said = call("login", "--sign", elsewhere / "request")
    assert (code, "it may vote and report for me, nothing else" in said) == (0, True)
    monkeypatch.delenv("SWARM_OWNER_KEY")
    (home / "answer").write_text(answer)
    assert call("login", "--answer", home / "answer", "--data-dir", home)[0] == 0
    assert owner.address in call("whoami", "--data-dir", home)[1]
    code, _, line = call("register", "--data-dir", home)
    assert (code, "relayers" in line) == (Exit.CHAIN, True)

    forged = json.loads(answer) | {"expiry": json.loads(answer)["expiry"] + 1}
    (home / "forged").write_text(json.dumps(forged))
    code, _, line = call("login", "--answer", home / "forged", "--data-dir", home)
    assert (code, "did not sign this" in line) == (Exit.DELEGATION, True)


def test_keys_of_owners_come_from_a_credential_directory(
    tmp_path: Path, call: Call, chain: LocalChain, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As systemd hands them over; a credential that others may read is refused."""
    home = tmp_path / "node"
    node(call, home, chain)
    credential = tmp_path / "owner-key"
    credential.write_text(new_key().secret.hex() + "\n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    credential.chmod(0o644)
    assert call("login", "--data-dir", home)[0] == Exit.SECRET
    credential.chmod(0o400)
    assert call("login", "--data-dir", home)[0] == Exit.OK


def test_an_owners_key_shows_in_no_complaint(tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mistyped keys and passphrases are refused in one line that does not repeat them."""
    home, secret = tmp_path / "node", new_key().secret.hex()
    call("keys", "new", "--data-dir", home)
    _, keystore, passphrase = owner_files(tmp_path)
    passphrase.write_text(wrong := "incorrect horse")
    for variable in (secret + "f", secret[:-1], "0x" + "g" + secret[1:], "0x" + "f" * 64):
        monkeypatch.setenv("SWARM_OWNER_KEY", variable)
        code, said, line = call("login", "--data-dir", home)
        assert (code, line.count("\n")) == (Exit.SECRET, 1)
        assert secret[1:-1] not in said + line
        assert variable not in said + line
    code, said, line = call("login", "--keystore", keystore, "--passphrase-file", passphrase, "--data-dir", home)
    assert (code, wrong in said + line) == (Exit.SECRET, False)


def test_a_revocation_without_money_waits(tmp_path: Path, call: Call, chain: LocalChain) -> None:
    """Where nobody here can pay, the signed revocation is kept for a relayer, and the delegation is gone."""
    home = tmp_path / "node"
    address = node(call, home, chain)
    _, keystore, passphrase = owner_files(tmp_path)
    signing = ("--keystore", keystore, "--passphrase-file", passphrase, "--data-dir", home)
    call("login", *signing)
    call("register", "--data-dir", home)
    chain.call("anvil_setBalance", address, "0x0")
    code, said, _ = call("logout", *signing)
    assert (code, "waits in" in said) == (0, True)
    assert json.loads((home / "revocation.json").read_text())["kind"] == "revocation"
    assert not (home / "delegation.json").exists()


def test_a_node_may_own_itself(tmp_path: Path, call: Call, chain: LocalChain) -> None:
    """Without an owner nothing is registered unless asked for; then the key is its own owner forever."""
    home = tmp_path / "node"
    address = node(call, home, chain)
    assert call("register", "--data-dir", home)[0] == Exit.DELEGATION
    assert call("register", "--own", "--data-dir", home)[0] == 0
    code, said, _ = call("whoami", "--data-dir", home)
    assert (code, f"for {address}" in said, "forever" in said) == (0, True, True)


def test_no_chain_is_told_in_one_line(tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is known here is shown; then one line names the endpoints, without their keys."""
    call("keys", "new", "--data-dir", tmp_path)
    monkeypatch.setenv("SWARM_CHAIN_URLS", "http://127.0.0.1:1/v3/0123456789abcdef0123456789abcdef")
    code, said, line = call("whoami", "--data-dir", tmp_path)
    assert (code, "peer id" in said, line.count("\n")) == (Exit.CHAIN, True, 1)
    assert "0123456789abcdef" not in line


def test_a_backup_opens_with_its_passphrase_only(tmp_path: Path, call: Call) -> None:
    """Written and restored by command; a wrong passphrase has a code of its own; nothing is overwritten."""
    passphrase = tmp_path / "passphrase"
    passphrase.write_text(PASSPHRASE)
    passphrase.chmod(0o600)
    opened = ("--passphrase-file", passphrase, "--data-dir")
    call("keys", "new", "--data-dir", tmp_path / "node")
    assert call("backup", tmp_path / "file", *opened, tmp_path / "node")[0] == 0
    assert call("keys", "backup", tmp_path / "file", *opened, tmp_path / "node")[0] == Exit.EXISTS
    assert call("restore", tmp_path / "file", *opened, tmp_path / "other")[0] == 0
    address = load(tmp_path / "node" / "swarm.pem").address
    assert load(tmp_path / "other" / "swarm.pem").address == address
    assert call("restore", tmp_path / "file", *opened, tmp_path / "other")[0] == Exit.EXISTS
    passphrase.write_text("wrong")
    assert call("restore", tmp_path / "file", *opened, tmp_path / "third")[0] == Exit.SECRET
    assert not (tmp_path / "third" / "swarm.pem").exists()


def test_a_key_moves_as_a_keystore(tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exported encrypted and imported elsewhere it is the same key; the passphrase comes from the environment."""
    monkeypatch.setenv("SWARM_KEY_PASSPHRASE", PASSPHRASE)
    call("keys", "new", "--data-dir", tmp_path / "a")
    assert call("keys", "export", tmp_path / "key.json", "--data-dir", tmp_path / "a")[0] == 0
    assert call("keys", "import", tmp_path / "key.json", "--data-dir", tmp_path / "b")[0] == 0
    assert load(tmp_path / "a" / "swarm.pem").address == load(tmp_path / "b" / "swarm.pem").address
