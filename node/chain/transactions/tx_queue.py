"""The queue of transactions: what is kept of each command, and what that asks of the disk."""

from __future__ import annotations

from typing import Literal, Protocol, TypeAlias

import msgspec
from eth_account.types import TransactionDictType
from eth_typing import HexStr
from eth_utils.address import to_checksum_address

from node.machine.commands import CastVote, ChainCommand, CommitVote, ReportReward, RevealVote
from node.machine.inputs import TransactionSettled
from node.machine.transaction_keys import BaseKey, TransactionKey, encode_key
from protocols.identifiers import Address


class OutboxStore(Protocol):
    """A durable map of records by key; each write is on disk when it returns."""

    def put(self, key: str, record: bytes, *, unsettled: bool) -> None:
        """Keep a record, replacing the one under its key."""

    def get(self, key: str) -> bytes | None:
        """Return a record, None where there is none (or it was settled long ago)."""

    def unsettled(self) -> list[bytes]:
        """Return the records put as unsettled, in the order in which their keys came first."""

    def recent(self, count: int) -> list[bytes]:
        """Return the `count` records settled last."""


class FillerKey(BaseKey, frozen=True, tag="filler"):
    """An empty transfer that takes a nonce; `at` (nanoseconds) distinguishes it from an earlier one."""

    nonce: int
    at: int

    def __str__(self) -> str:
        return f"filler:{self.nonce}"


class DeploymentKey(BaseKey, frozen=True, tag="deployment"):
    """No transaction: `transaction` of its record is the hash of the block of the deployment that the file is for."""


class RelayGasKey(BaseKey, frozen=True, tag="relay-gas"):
    """No transaction: `gas` of its record was spent on others on the day `nonce` (Unix time / 86,400)."""


OutboxKey: TypeAlias = TransactionKey | FillerKey | DeploymentKey | RelayGasKey


class QueuedTransaction(msgspec.Struct, frozen=True, kw_only=True):
    """One command and its transaction. Without a command it fills a nonce that must not stay a gap.

    queued: not signed yet. sent: signed, and on disk before it was sent; `raw` is the newest of its signed forms,
    `hashes` are those of all. settled: over; `transaction` is the hash that was mined in `block` (0 where that is not
    known), and none of `hashes` where somebody else submitted the message. Fees in wei per gas.
    """

    key: OutboxKey
    command: ChainCommand | None
    state: Literal["queued", "sent", "settled"] = "queued"
    nonce: int = -1
    raw: str = ""
    hashes: tuple[str, ...] = ()
    data: str = "0x"
    gas: int = 0
    tip: int = 0
    max_fee: int = 0
    ok: bool = False
    transaction: str = ""
    error: str = ""
    block: int = 0

    @property
    def send_after(self) -> float:
        """Local time before which the command is left to relayers; 0.0 where it is sent at once."""
        command = self.command
        return command.after if isinstance(command, CommitVote | RevealVote | CastVote | ReportReward) else 0.0

    @property
    def report(self) -> TransactionSettled:
        """The input that tells the machine how its command ended. Raises ValueError where there is no command."""
        if self.command is None:
            raise ValueError(f"{self.key} is no command's")
        return TransactionSettled(self.command.key, self.ok, self.transaction, self.error)


def transaction_of(record: QueuedTransaction, to: Address, chain_id: int) -> TransactionDictType:
    """Return a record's transaction (EIP-1559), to be signed."""
    return {
        "type": 2,
        "chainId": chain_id,
        "nonce": record.nonce,
        "to": to_checksum_address(to),
        "value": 0,
        "data": HexStr(record.data),
        "gas": record.gas,
        "maxPriorityFeePerGas": record.tip,
        "maxFeePerGas": record.max_fee,
    }


_decoder = msgspec.msgpack.Decoder(QueuedTransaction)


def decode_record(raw: bytes) -> QueuedTransaction:
    """Return a record as the store has it."""
    return _decoder.decode(raw)


class TransactionQueue:
    """Typed records over the store, with the unsettled ones in memory."""

    def __init__(self, store: OutboxStore) -> None:
        self._store = store
        self.open: dict[BaseKey, QueuedTransaction] = {}
        for raw in store.unsettled():
            record = _decoder.decode(raw)
            self.open[record.key] = record

    def get(self, key: OutboxKey) -> QueuedTransaction | None:
        """Return a record, settled or not."""
        if key in self.open:
            return self.open[key]
        raw = self._store.get(encode_key(key))
        return _decoder.decode(raw) if raw is not None else None

    def put(self, record: QueuedTransaction) -> QueuedTransaction:
        """Keep a record durably and return it."""
        unsettled = record.state != "settled"
        self._store.put(encode_key(record.key), msgspec.msgpack.encode(record), unsettled=unsettled)
        if unsettled:
            self.open[record.key] = record
        else:
            self.open.pop(record.key, None)
        return record

    def queued(self) -> list[QueuedTransaction]:
        """Return what is to be signed, the oldest first."""
        return [record for record in self.open.values() if record.state == "queued"]

    def sent(self) -> list[QueuedTransaction]:
        """Return what is pending, by nonce."""
        return sorted((r for r in self.open.values() if r.state == "sent"), key=lambda record: record.nonce)

    def settled(self, count: int) -> dict[int, QueuedTransaction]:
        """Return the last `count` transactions that were settled, by nonce."""
        records = [_decoder.decode(raw) for raw in reversed(self._store.recent(count))]
        return {record.nonce: record for record in records if record.raw}
