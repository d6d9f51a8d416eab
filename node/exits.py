"""Exit codes, and the one-line error that an operator reads."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """Exit codes of every `swarm` command; `MEANING` explains them."""

    OK = 0
    FAULT = 1
    USAGE = 2
    CONFIG = 3
    MANIFEST = 4
    IDENTITY = 5
    LOCKED = 6
    STORE = 7
    NOT_RUNNING = 8
    NETWORK = 9
    EXISTS = 10
    OTHER_OWNER = 11
    NEW_NODE = 12
    SECOND_NODE = 13
    DELEGATION = 14
    SECRET = 15
    CHAIN = 16
    DOPPELGANGER = 17
    BACKUP = 18
    UNKNOWN = 19
    MODEL = 20
    DISK_FULL = 21
    INTERRUPTED = 130


MEANING: dict[Exit, str] = {
    Exit.OK: "Done, or stopped as asked.",
    Exit.FAULT: "An unexpected error; the log has its traceback. Restarting is safe.",
    Exit.USAGE: "The command line is not valid.",
    Exit.CONFIG: "The configuration or manifest file is missing or not valid; the line names file and key.",
    Exit.MANIFEST: "Manifest and coordinator contract disagree; get the swarm's current manifest.",
    Exit.IDENTITY: "The node key can't be used: unreadable, of another kind, readable by others, another account's.",
    Exit.LOCKED: "Another process uses this data directory or its vote protection; the line names it.",
    Exit.STORE: "A file in the data directory is missing, damaged, from a newer version, or not accessible.",
    Exit.NOT_RUNNING: "`swarm status`: no node runs on this data directory, or it does not answer.",
    Exit.NETWORK: "Listening on an address failed: it is in use or not this machine's.",
    Exit.EXISTS: "A file to be written already exists (configuration, key, backup); nothing was changed.",
    Exit.OTHER_OWNER: "The contract has this node key under another owner, named in the line; the node does not run.",
    Exit.NEW_NODE: "`swarm whoami`: the contract knows neither this node nor another node of its owner.",
    Exit.SECOND_NODE: "`swarm whoami`: the contract does not know this node, but knows others of its owner.",
    Exit.DELEGATION: "The owner's delegation is missing, expired, for another node or contract, or wrongly signed.",
    Exit.SECRET: "A passphrase or an owner's key is missing or wrong, or others can read the file that holds it.",
    Exit.CHAIN: "The command needs the chain, but no endpoint answers or the contract refuses; the line says which.",
    Exit.DOPPELGANGER: "Doppelganger protection: another node runs with this key. Stop one of them, then start again.",
    Exit.BACKUP: "The backup can't be used: damaged, of a newer version, or of another node.",
    Exit.UNKNOWN: "The round is not kept here, or the peer is not known; the line says which ones are.",
    Exit.MODEL: "There is no such model or checkpoint, or it does not load; the line names it.",
    Exit.DISK_FULL: "The disk of the data directory is full. Restarting is safe, and works once there is space.",
    Exit.INTERRUPTED: "Ended by Ctrl-C before the node ran.",
}
"""What each code means."""

WORTH_A_RESTART = frozenset({Exit.FAULT, Exit.NETWORK, Exit.CHAIN, Exit.DISK_FULL})
"""Codes that another start may mend without the operator. `configs/systemd` and `swarm run --gpus` go by them."""


class Refusal(Exception):  # noqa: N818 - nothing failed: the node declines, and says what the operator can do
    """The command exits with `code`. The text is one line: what happened, why, what to do."""

    def __init__(self, code: Exit, text: str) -> None:
        super().__init__(" ".join(text.split()))
        self.code = code
