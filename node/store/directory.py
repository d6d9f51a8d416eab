"""The data directory: its files, and exclusive use by one node at a time."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import structlog

from node.exits import Refusal
from node.files.private import DIRECTORY_MODE, make_private
from node.store.disk_space import exit_code_of
from node.store.lock import FileLock
from node.store.restore_mark import STALE, mark

log = structlog.get_logger()

CONFIG = "swarm.toml"
HTTP = "http.json"
BOOTNODE = "bootnode.json"
KEY = "swarm.pem"
VOTES = "votes.sqlite"

LAYOUT: dict[str, str] = {
    CONFIG: "the configuration",
    "manifest.toml": "the swarm's manifest",
    KEY: "the node key; back it up",
    "peer.rsa": "an RSA identity imported from RL Swarm, if there is one",
    "session.json": "the statement by which the RSA identity binds the node key",
    "delegation.json": "the owner's statement that the node is theirs",
    "revocation.json": "the owner's statement that it is no longer theirs, until it is on chain",
    VOTES: "everything this key signed; back it up with the key",
    "votes.sqlite.lock": "names the process that uses it",
    "restored.json": "marks a restored or copied identity that has not listened yet",
    "journal.sqlite": "inputs and snapshots",
    "outbox.sqlite": "the transaction queue",
    "rounds.sqlite": "reports of the last rounds, for `swarm explain`",
    "bodies/": "rollouts, own and fetched",
    "trainer/": "checkpoints",
    "peers.json": "addresses of peers",
    "coordinator.json": "what the contract fixed at deployment",
    BOOTNODE: "the addresses of a running bootnode",
    HTTP: "where the running node serves its status",
    "node.lock": "names the process that uses the directory",
}
"""Every file of the data directory, relative to it, and what it holds."""


def is_used(home: Path) -> bool:
    """Return True if the directory belongs to a node that has a key already: it has run, or has been prepared."""
    return any((home / name).exists() for name in (KEY, VOTES, *STALE))


class DataDirectory:
    """Exclusive use of a data directory. Creates it, makes it private (mode 0700), and marks one that was copied."""

    def __init__(self, path: Path) -> None:
        """Lock the directory. Raises `Refusal` if another node uses it, or it can't be created."""
        self.path = path.expanduser().absolute()
        try:
            self.path.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
            if make_private(self.path):
                log.info("directory.made_private", path=str(self.path))
        except OSError as error:
            raise Refusal(
                exit_code_of(error),
                f"cannot use the data directory {self.path}: {error.strerror}; choose another with --data-dir",
            ) from error
        self._lock = FileLock(
            self.path / "node.lock",
            f"the data directory {self.path}",
            "stop that one, or give this node its own directory with --data-dir",
        )
        with ExitStack() as locked:  # a directory that can't be marked must not stay locked
            locked.callback(self._lock.release)
            if self._lock.copied:
                mark(self.path, "the directory is a copy of another")
            self._lock.sign()
            locked.pop_all()

    def close(self) -> None:
        """Release the lock."""
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
