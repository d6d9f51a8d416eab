"""Secrets from the operator: read from their allowed places, and held so that no log or traceback shows them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from node.exits import Exit, Refusal
from node.files.private import OpenToOthersError, read_private

CREDENTIALS = "CREDENTIALS_DIRECTORY"
"""Set by systemd for units with LoadCredential= (systemd.exec(5)): one file per credential."""
LIMIT = 64 << 10


class Secret:
    """Bytes that are shown only by `reveal`."""

    __slots__ = ("_bytes",)

    def __init__(self, content: bytes) -> None:
        self._bytes = content

    def reveal(self) -> bytes:
        """Return the content."""
        return self._bytes

    def __repr__(self) -> str:
        return "Secret(…)"

    def __reduce__(self) -> str:
        raise TypeError("a secret does not leave the process")


class SecretSource(msgspec.Struct, frozen=True):
    """Where a secret may come from: an environment variable, and a file of that name in the credential directory.

    `what` completes "the ... is missing".
    """

    what: str
    variable: str
    credential: str


OWNER_KEY = SecretSource("owner's key", "SWARM_OWNER_KEY", "owner-key")
OWNER_PASSPHRASE = SecretSource("keystore's passphrase", "SWARM_OWNER_PASSPHRASE", "owner-passphrase")
KEY_PASSPHRASE = SecretSource("key file's passphrase", "SWARM_KEY_PASSPHRASE", "key-passphrase")
BACKUP_PASSPHRASE = SecretSource("backup's passphrase", "SWARM_BACKUP_PASSPHRASE", "backup-passphrase")

SECRET_VARIABLES = tuple(source.variable for source in (OWNER_KEY, OWNER_PASSPHRASE, KEY_PASSPHRASE, BACKUP_PASSPHRASE))
"""What no child process gets of the environment."""

Ask = Callable[[str], str]
"""Asks the operator on a terminal, without echo; the argument names the secret."""


def find(source: SecretSource, file: Path | None, environ: Mapping[str, str], ask: Ask | None) -> Secret:
    """Return a secret from `file` if given, else from environment, credential directory or terminal.

    A trailing newline is stripped. Raises `Refusal` if it is missing, empty, or readable by others.
    """
    secret = known(source, file, environ)
    if secret is None and ask is not None:
        secret = Secret(ask(source.what[:1].upper() + source.what[1:]).encode())
    if secret is None:
        raise Refusal(
            Exit.SECRET,
            f"the {source.what} is missing; give it in a file, in {source.variable}, or as the credential "
            f"{source.credential}",
        )
    if not secret.reveal():
        raise Refusal(Exit.SECRET, f"the {source.what} is empty; give it again")
    return secret


def known(source: SecretSource, file: Path | None, environ: Mapping[str, str]) -> Secret | None:
    """Return a secret like `find`, None if there is none. Raises `Refusal` for a file that can't be used."""
    if file is not None:
        return _from_file(source, file)
    if source.variable in environ:
        return Secret(environ[source.variable].encode())
    credential = Path(environ[CREDENTIALS]) / source.credential if environ.get(CREDENTIALS) else None
    return _from_file(source, credential) if credential is not None and credential.exists() else None


def _from_file(source: SecretSource, path: Path) -> Secret:
    try:
        return Secret(read_private(path, LIMIT).rstrip(b"\r\n"))
    except OpenToOthersError as error:
        raise Refusal(Exit.SECRET, str(error)) from error
    except OSError as error:
        raise Refusal(
            Exit.SECRET, f"cannot read the {source.what} from {path}: {error.strerror}; check path and owner"
        ) from error
