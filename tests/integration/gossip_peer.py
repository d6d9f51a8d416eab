"""One gossip node in a process of its own: commands as JSON lines on stdin, what it reports as JSON lines on stdout."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import structlog
import trio

from node.config import GossipSettings
from node.identity import NodeKey
from node.identity.local_peer import local_peer
from node.identity.rsa import RsaIdentity
from node.machine.commands import CommitVote, FetchRollouts, IntroduceNode, OwnMessage, PublishRollouts
from node.machine.inputs import AnyInput, RolloutsAnnounced
from node.network.bootnode_host import run_bootnode
from node.network.parameters import NetworkCallbacks, SwarmMember
from node.network.service import Libp2pNetwork
from node.ports.bodies import Verdict
from node.ports.network import RoundWindow
from protocols.identifiers import Address, Digest, body_digest
from protocols.manifest import Limits
from protocols.signed_messages import SignedCommitment, SignedDelegation, SignedMessage
from protocols.typed_data import Domain
from protocols.wire import NOTHING, Announcement

SWARM = bytes([7]) * 32
STAGES = 2
DOMAIN = Domain(1, "0x" + "c0" * 20, bytes([7]) * 32)


def peer_key(number: int) -> NodeKey:
    """Return the key of the test's peer `number`, from 1."""
    return NodeKey(bytes([number]) * 32)


def seed(round_number: int) -> bytes:
    """Return the seed of a test's round."""
    return round_number.to_bytes(32, "big")


def window(round_number: int, stage: int, peers: int) -> RoundWindow:
    """Return the window in which peers 1 to `peers` are registered."""
    return RoundWindow(
        swarm=SWARM,
        round=round_number,
        stage=stage,
        stages=STAGES,
        seeds={number: seed(number) for number in (round_number - 1, round_number)},
        peers=frozenset(peer_key(number).address for number in range(1, peers + 1)),
    )


class MemoryBodies(dict[Digest, bytes]):
    """Bodies in memory."""

    def put(self, digest: Digest, body: bytes, round_number: int) -> None:
        """Keep a body."""
        self[digest] = body


def check(peer: Address, announcement: Announcement, body: bytes) -> Verdict:
    """Refuse what begins with "bad"."""
    return Verdict(reason="rubbish" if body.startswith(b"bad") else "", groups=1, reward=1.0)


def attach(commands: tuple[OwnMessage, ...]) -> tuple[SignedMessage, ...]:
    """Return commitments that nobody signed."""
    return tuple(
        SignedCommitment(each.round, each.seed, bytes(65)) for each in commands if isinstance(each, CommitVote)
    )


def delegation(number: int) -> SignedDelegation:
    """Return a delegation of the test's peer that nobody signed."""
    return SignedDelegation(peer_key(9).address, peer_key(number).address, 1, 2, bytes(65), bytes(65))


def emit(**fields: Any) -> None:
    """Write one line for the test."""
    line = json.dumps(fields | {"at": time.time()})
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


class Peer:
    """Runs a node, fetches whatever is announced (unless set otherwise) and reports everything to the test."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings
        self.bodies = MemoryBodies()
        self.running = trio.CancelScope()
        self.round, self.stage = 1, 0
        self._slots: set[tuple[str, int, int]] = set()
        gossip = GossipSettings(
            listen=(settings.get("listen", "/ip4/127.0.0.1/tcp/0"),),
            bootnodes=tuple(settings.get("bootnodes", ())),
            ping_seconds=settings.get("ping", 1.0),
        )
        rsa = RsaIdentity(bytes.fromhex(settings["rsa"])) if "rsa" in settings else None
        self.me = local_peer(peer_key(settings["number"]), rsa, DOMAIN)
        self.node = Libp2pNetwork(
            gossip,
            SwarmMember(self.me, SWARM, Limits(), settings.get("ephemeral_peer_id", False)),
            self.bodies,
            NetworkCallbacks(
                check,
                lambda command, known: command,
                attach_messages=attach,
                introduction=lambda: delegation(settings["number"]),
            ),
            Path(settings["home"]) / f"peers-{settings['number']}.json",
        )
        if "round" in settings:
            self.move(settings["round"], settings["stage"])

    def move(self, round_number: int, stage: int) -> None:
        self.round, self.stage = round_number, stage
        self.node.update_window(window(round_number, stage, self.settings["peers"]))

    async def report(self, happened: AnyInput) -> None:
        name = type(happened).__name__
        emit(event=name, **{field: _plain(getattr(happened, field)) for field in happened.__struct_fields__})
        if isinstance(happened, RolloutsAnnounced) and self._wants(happened):
            where = (happened.peer, happened.round, happened.stage, seed(happened.round))
            await self.node.execute(FetchRollouts(*where, happened.body, happened.size))

    def _wants(self, announced: RolloutsAnnounced) -> bool:
        """Return True for a body to fetch. As in the machine, a second body for a slot is none."""
        slot = (announced.peer, announced.round, announced.stage)
        known, self._slots = slot in self._slots, {*self._slots, slot}
        return bool(announced.size) and not known and bool(self.settings.get("fetch", True))

    async def follow_commands(self) -> None:
        async for line in trio.wrap_file(sys.stdin):
            command = json.loads(line)
            match command["do"]:
                case "publish":
                    body = os.urandom(command["size"]) if "size" in command else command["body"].encode()
                    self.bodies.put(body_digest(body), body, 1)
                    round_number, stage = command.get("round", self.round), command.get("stage", self.stage)
                    emit(event="publishing", body=body_digest(body).hex())
                    await self.node.execute(
                        PublishRollouts(round_number, stage, seed(round_number), body_digest(body), len(body))
                    )
                case "carry":
                    vote = CommitVote(self.round, seed(self.round), (peer_key(9).address,))
                    where = (self.round, self.stage, seed(self.round))
                    await self.node.execute(PublishRollouts(*where, NOTHING, 0, relays=True, attached=(vote,)))
                case "introduce":
                    await self.node.execute(IntroduceNode())
                case "window":
                    self.move(command["round"], command["stage"])
                case "switch":
                    self.node.switch_identity()
                case "counters":
                    emit(event="counters", counters=dict(self.node.counters))
                case "restart":
                    self.running.cancel()
                case "stop":
                    return

    async def emit_addresses(self) -> None:
        while not self.node.addresses:  # noqa: ASYNC110 - the service has no event for it
            await trio.sleep(0.02)
        emit(event="up", addresses=self.node.addresses, peer_id=self.me.peer_id)

    async def run_again(self) -> None:
        while True:
            self.running = trio.CancelScope()
            with self.running:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self.node.run, self.report)
                    nursery.start_soon(self.emit_addresses)

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.run_again)
            await self.follow_commands()
            nursery.cancel_scope.cancel()


async def bootnode(number: int) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(
            lambda: run_bootnode(
                peer_key(number),
                ["/ip4/127.0.0.1/tcp/0"],
                ping_seconds=1.0,
                started=lambda addresses: emit(event="up", addresses=addresses),
            )
        )
        async for _ in trio.wrap_file(sys.stdin):
            break
        nursery.cancel_scope.cancel()


def _plain(value: Any) -> Any:
    return value.hex() if isinstance(value, bytes) else msgspec.to_builtins(value)


def main() -> None:
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    settings = json.loads(sys.argv[1])
    if settings.get("bootnode"):
        trio.run(bootnode, settings["number"])
    else:
        trio.run(Peer(settings).run)


if __name__ == "__main__":
    main()
