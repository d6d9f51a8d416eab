"""Machine steps per second, over the journal of a demo node where `SWARM_JOURNAL` names one, else over one made here.

`SWARM_JOURNAL` is the file `journal.sqlite` in a node's data directory; manifest and key are read beside it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from node.identity import load_or_create
from node.machine import inputs as i
from node.machine.state import State, initial
from node.machine.step import step
from node.machine.transaction_keys import MessageKey
from node.store.journal import Journal
from protocols.identifiers import body_digest
from protocols.manifest import Manifest, StageSpec
from protocols.manifest_rules import parse_manifest
from protocols.signed_messages import MessageKind, MessageTopic

GOAL = 50_000
SECONDS = 2.0
PEERS = tuple(f"0x{number:040x}" for number in range(1, 5))
ROUNDS = 200


def run() -> list[dict[str, Any]]:
    """Return the rows: steps per second on one core, and the size of the state's snapshot after the journal."""
    path = os.environ.get("SWARM_JOURNAL", "")
    state, journal = recorded(Path(path)) if path else generated(ROUNDS)
    name = f"machine steps on {'a recorded' if path else 'a generated'} journal of {len(journal)} inputs"
    speed = steps_per_second(state, journal, SECONDS)
    for stamped in journal:
        state, _ = step(state, stamped)
    size = len(msgspec.msgpack.encode(state))
    return [
        {"name": name, "value": speed, "unit": "1/s", "goal": GOAL, "met": speed >= GOAL},
        {"name": "machine snapshot", "value": size, "unit": "bytes", "goal": None, "met": None},
    ]


def steps_per_second(state: State, journal: list[i.Stamped], seconds: float) -> float:
    """Return the mean speed over whole passes through the journal, at least one and at least `seconds` long."""
    steps, begun = 0, time.perf_counter()
    while (spent := time.perf_counter() - begun) < seconds or not steps:
        at = state
        for stamped in journal:
            at, _ = step(at, stamped)
        steps += len(journal)
    return steps / spent


def recorded(path: Path) -> tuple[State, list[i.Stamped]]:
    """Return a node's journal and the state before its first input: the oldest snapshot's where inputs were pruned."""
    fresh = initial(
        load_or_create(path.parent / "swarm.pem").address, parse_manifest((path.parent / "manifest.toml").read_bytes())
    )
    with Journal(path) as journal:
        entries = journal.since(0)
        snapshots = journal.snapshots()
    if entries and entries[0][0] > 1 and snapshots:
        sequence, snapshot = min(snapshots)
        fresh = msgspec.msgpack.decode(snapshot, type=State)
        entries = [entry for entry in entries if entry[0] > sequence]
    return fresh, [stamped for _, stamped in entries]


def generated(rounds: int) -> tuple[State, list[i.Stamped]]:
    """Return a fresh state and the journal of an ordinary node among four, over as many rounds of a minute."""
    manifest = Manifest(name="bench", stages=(StageSpec(name="play", seconds=60),))
    stamped = [i.Stamped(0.0, happened) for happened in beginning()]
    for number in range(rounds):
        stamped += [i.Stamped(60.0 * number + at, happened) for at, happened in ordinary_round(number)]
    return initial(PEERS[0], manifest), stamped


def beginning() -> Iterator[i.AnyInput]:
    """Yield what a node hears when it starts."""
    yield i.NodeStarted()
    yield i.ChainRestored(0.0)
    yield from (i.PeerRegistered(peer, 0) for peer in PEERS)
    yield i.NetworkChanged(3)
    yield i.TrainerReady(350_000, "cpu", -1)


def ordinary_round(number: int) -> Iterator[tuple[float, i.AnyInput]]:
    """Yield what a node hears in a round, with seconds since the round opened."""
    seed = body_digest(f"seed {number}".encode())
    yield 0.1, i.StageOpened(number, 0, seed, 60 * number + 60, 60 * number, 30 * number)
    yield 2.0, i.TransactionSettled(vote_key(MessageKind.COMMIT, number - 1, previous(number)), True, "0xaa")
    yield 2.1, i.TransactionSettled(vote_key(MessageKind.REVEAL, number - 2, previous(number - 1)), True, "0xab")
    for place, peer in enumerate(PEERS[1:]):
        body = body_digest(f"{peer} {number}".encode())
        yield 8.0 + place, i.RolloutsAnnounced(peer, number, 0, body, 30_000, False)
        yield 8.4 + place, i.RolloutsArrived(peer, number, 0, body, 16, 5.0)
    yield 12.0, i.RolloutsGenerated(number, 0, body_digest(f"me {number}".encode()), 30_000, 16, 5.0, 11.0)
    yield 13.0, i.TransactionSettled(MessageKey(MessageTopic(MessageKind.REWARD, number, 0)), True, "0xac")
    if number == 0:
        yield 14.0, i.EvaluationFinished(0, 0.25, 400, 2.0)
    yield 18.0, i.TrainingFinished(number, 0, 1, 12, 14, 0.1, 5.0)
    yield 18.2, i.CheckpointSaved(number)
    if (number + 1) % 5 == 0:
        yield 20.0, i.EvaluationFinished(number + 1, 0.5, 400, 2.0)
    if number % 10 == 0:
        yield 21.0, i.NetworkChanged(2)
        yield 22.0, i.NetworkChanged(3)
    yield 31.0, i.TimerFired("train")
    yield 60.05, i.TimerFired("advance")


def vote_key(kind: MessageKind, number: int, seed: bytes) -> MessageKey:
    return MessageKey(MessageTopic(kind, number), seed)


def previous(number: int) -> bytes:
    """Return the seed of the round before."""
    return body_digest(f"seed {number - 1}".encode())
