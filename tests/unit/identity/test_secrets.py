"""Secrets: where they are found, and where they never show."""

import io
import pickle
import traceback
from pathlib import Path

import pytest
import structlog

from node.config import LogSettings
from node.exits import Exit, Refusal
from node.identity.backup import BackedUpIdentity
from node.identity.key import NodeKey, pem_of
from node.identity.keystore import decrypt, encrypt
from node.identity.secret import BACKUP_PASSPHRASE, OWNER_KEY, Secret, find, known
from node.logs import configure

SECRET = bytes(range(1, 33))
PASSPHRASE = "swordfish-and-chips"


def shown(text: str) -> bool:
    """Return True if a text holds the secret or the passphrase in one of the forms they are written in."""
    return any(
        form in text for form in (SECRET.hex(), repr(SECRET)[2:-1], PASSPHRASE, str(int.from_bytes(SECRET, "big")))
    )


def private_file(path: Path, content: str) -> Path:
    path.write_text(content)
    path.chmod(0o600)
    return path


def test_a_secret_is_found_where_it_stands(tmp_path: Path) -> None:
    """File before environment before credential directory before terminal; the line's end is not part of it."""
    file = private_file(tmp_path / "file", "from the file\r\n")
    private_file(tmp_path / OWNER_KEY.credential, "from the credential\n")
    both = {OWNER_KEY.variable: "from the environment", "CREDENTIALS_DIRECTORY": str(tmp_path)}
    assert find(OWNER_KEY, file, both, None).reveal() == b"from the file"
    assert find(OWNER_KEY, None, both, None).reveal() == b"from the environment"
    del both[OWNER_KEY.variable]
    assert find(OWNER_KEY, None, both, None).reveal() == b"from the credential"
    assert find(OWNER_KEY, None, {}, lambda what: f"asked for the {what}").reveal() == b"asked for the Owner's key"
    assert known(OWNER_KEY, None, {"CREDENTIALS_DIRECTORY": str(tmp_path / "gone")}) is None


def test_a_secret_that_is_missing_or_open_is_refused(tmp_path: Path) -> None:
    """One line says where it may be given, or how to close the file."""
    with pytest.raises(Refusal, match=BACKUP_PASSPHRASE.variable) as refused:
        find(BACKUP_PASSPHRASE, None, {}, None)
    assert refused.value.code is Exit.SECRET
    file = private_file(tmp_path / "file", "")
    with pytest.raises(Refusal, match="empty"):
        find(BACKUP_PASSPHRASE, file, {}, None)
    file.chmod(0o604)
    with pytest.raises(Refusal, match="chmod 600"):
        find(BACKUP_PASSPHRASE, file, {}, None)


def test_no_variable_of_a_trace_shows_a_secret() -> None:
    """A wrong passphrase ends in our own error: no variable of our frames, printed as debuggers do, gives any away."""
    key = NodeKey(SECRET)
    content = encrypt(key, Secret(b"right"), 2)
    with pytest.raises(ValueError, match="wrong passphrase") as caught:
        decrypt(content, Secret(PASSPHRASE.encode()))
    frames = [frame for frame, _ in traceback.walk_tb(caught.tb) if "/node/" in frame.f_code.co_filename]
    assert frames
    assert not any(shown(repr(frame.f_locals)) for frame in frames)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_nothing_that_holds_a_secret_shows_it() -> None:
    """repr and str of keys, passphrases and identities, and a log line with them, hold nothing of it."""
    key, passphrase = NodeKey(SECRET), Secret(PASSPHRASE.encode())
    identity = BackedUpIdentity(key.address, 0.0, pem_of(key))
    assert not shown(f"{key!r} {key} {passphrase!r} {passphrase} {identity!r} {identity}")
    stream = io.StringIO()
    configure(LogSettings(format="json", level="debug"), stream)
    log = structlog.get_logger()
    try:
        pickle.dumps({"failed with": (key, passphrase)})
    except TypeError:
        log.exception("failed", key=key, owner_passphrase=PASSPHRASE, secret=SECRET, held=(passphrase, identity))
    assert "does not leave" in stream.getvalue()
    assert not shown(stream.getvalue())


@pytest.mark.parametrize("held", [NodeKey(SECRET), Secret(SECRET)])
def test_a_secret_does_not_leave_the_process(held: object) -> None:
    """It can't be pickled into a queue, a cache or another process."""
    with pytest.raises(TypeError):
        pickle.dumps(held)
