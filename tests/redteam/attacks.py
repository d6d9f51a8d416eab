"""What attackers do: small functions over honest rollouts, and over the gossip of a node that has joined.

A body's function gets what the attacker's own fake trainer made, with the skill that the attack names, and returns what
is published instead.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import msgspec
import trio
from libp2p.abc import INetStream
from libp2p.pubsub.pb import rpc_pb2
from msgspec.structs import replace

from node.data.questions import Questions
from node.identity.local_peer import LocalPeer
from node.machine.uncounted_bodies import COPY_MARGIN
from node.network.host import StreamHandler
from node.network.pubsub.topic import Topic
from node.network.reqresp.body_exchange import BODY_PROTOCOL
from node.network.reqresp.streams import read_frame, write_frame
from protocols.admission import Slot
from protocols.identifiers import Address, Digest, body_digest
from protocols.manifest import Manifest
from protocols.wire import Announcement, Completion, Envelope, Group, Rollouts, encode, signing_hash

PAUSE = 0.25
LATE = COPY_MARGIN + 0.5
"""Seconds after which what is copied is clearly the later one."""
BABBLE = "and so on " * 24


class Sight(msgspec.Struct):
    """What an attacker knows when it makes its body; `others` are the bodies of this stage that others have shown."""

    manifest: Manifest
    questions: Questions
    me: Address
    round: int
    others: tuple[Rollouts, ...]


Forge = Callable[[Sight, Rollouts], Rollouts]


class Attacker(Protocol):
    """What an attack needs of the attacker's own network service."""

    @property
    def me(self) -> LocalPeer:
        """The attacker's identity."""

    def serve(self, protocol: str, handler: StreamHandler) -> None:
        """Answer streams of a protocol in place of the honest handler."""

    def body(self, digest: Digest) -> bytes | None:
        """Return one of the attacker's bodies."""

    def announcements(self) -> list[tuple[Slot, bytes]]:
        """Return the accepted announcements, as they were sent."""


Harass = Callable[[Attacker, Topic], Awaitable[None]]


def same(sight: Sight, honest: Rollouts) -> Rollouts:
    """Publish what was made."""
    return honest


async def at_peace(attacker: Attacker, topic: Topic) -> None:
    """Do nothing else."""


class Attack(msgspec.Struct, frozen=True, kw_only=True):
    """One attacker's behaviour: the skill of its rollouts, what becomes of them, what it does on the network.

    `claims` is the mean reward that it reports of itself; `patience` are seconds in which it listens before it answers.
    What honest nodes find: `reasons` why its bodies count for nothing, and what they have `counted` on the network.
    """

    skill: float = 1.0
    forge: Forge = same
    harass: Harass = at_peace
    claims: float | None = None
    patience: float = 0.0
    reasons: tuple[str, ...] = ()
    counted: tuple[str, ...] = ()


# --- bodies -----------------------------------------------------------------------------------------------------------


def each_completion(body: Rollouts, change: Callable[[Group, Completion], Completion]) -> Rollouts:
    """Return a body with every completion changed."""
    return replace(
        body,
        groups=tuple(replace(group, completions=tuple(change(group, one) for one in group.completions))
                     for group in body.groups),
    )  # fmt: skip


def easier_questions(sight: Sight, honest: Rollouts) -> Rollouts:
    """Answer other questions than those assigned: the prompt tamperer."""
    size = len(sight.questions)
    return replace(
        honest, groups=tuple(replace(group, question=(group.question + 1) % size) for group in honest.groups)
    )


def best_ones(sight: Sight, honest: Rollouts) -> Rollouts:
    """Hide what turned out badly: completions in even rounds, whole groups in odd ones."""
    if honest.round % 2:
        return replace(honest, groups=honest.groups[1:])
    return replace(honest, groups=tuple(replace(each, completions=each.completions[:-1]) for each in honest.groups))


def last_round_again(sight: Sight, honest: Rollouts) -> Rollouts:
    """Publish rollouts that say that they belong to the round before."""
    return replace(honest, round=honest.round - 1)


def said_at_length(sight: Sight, text: str) -> Completion:
    """Return a completion of as many tokens as a text of that length may need."""
    count = sight.manifest.game.max_completion
    tokens, logps = struct.pack(f"<{count}I", *range(count)), struct.pack(f"<{count}f", *[-1.0] * count)
    return Completion(text, tokens, logps, finished=True)


def endless(sight: Sight, honest: Rollouts) -> Rollouts:
    """Put the same words over and over before every answer: the poisoner."""
    return each_completion(honest, lambda _, one: said_at_length(sight, BABBLE + one.text))


def reference_solutions(sight: Sight, honest: Rollouts) -> Rollouts:
    """Publish the solutions that stand in the data set: the oracle."""
    return each_completion(honest, lambda group, _: said_at_length(sight, sight.questions[group.question].answer))


def common_ones(sight: Sight, honest: Rollouts) -> Rollouts:
    """Publish another's completions of the questions that all have, and one's own of the others."""
    common = sight.manifest.game.common
    theirs = {group.question: group.completions for body in sight.others[:1] for group in body.groups[:common]}
    return replace(
        honest,
        groups=tuple(replace(group, completions=theirs.get(group.question, group.completions))
                     if group.slot < common else group for group in honest.groups),
    )  # fmt: skip


def somebody_elses(sight: Sight, honest: Rollouts) -> Rollouts:
    """Publish another's rollouts under one's own name."""
    return sight.others[0] if sight.others else honest


# --- gossip -----------------------------------------------------------------------------------------------------------


async def forged(attacker: Attacker, topic: Topic) -> None:
    """Announce in others' names: altered words under their signature, no signature at all, a message "from" them; and
    answer whoever asks for any body with other bytes of the right length."""
    attacker.serve(BODY_PROTOCOL, other_bytes(attacker))
    async for _, envelope in heard(attacker):
        said = msgspec.msgpack.decode(envelope.payload, type=Announcement)
        altered = encode(replace(said, body=os.urandom(32), size=64, inline=b""))
        await topic.publish(encode(Envelope(altered, envelope.signature)))
        await topic.publish(encode(Envelope(altered, bytes(65))))
        await publish_raw(topic, altered, author=os.urandom(38))


async def replayed(attacker: Attacker, topic: Topic) -> None:
    """Say again what others have said: at once, and again in later rounds."""
    said: list[Envelope] = []
    async for _, envelope in heard(attacker):
        said.append(envelope)
        for old in (said[-1], said[0]):
            await topic.publish(encode(old))
        del said[:-40]


async def equivocated(attacker: Attacker, topic: Topic) -> None:
    """Announce a second body for every stage."""
    async for slot, envelope in heard(attacker, own=True):
        if slot.peer == attacker.me.address:
            await trio.sleep(PAUSE)
            said = msgspec.msgpack.decode(envelope.payload, type=Announcement)
            await topic.publish(signed(attacker, replace(said, body=body_digest(b"other"), size=5, inline=b"")))


async def never_served(attacker: Attacker, topic: Topic) -> None:
    """Announce, and keep whoever asks for the body waiting: a frame now and then, of one byte."""

    async def drip(peer: str, stream: INetStream) -> None:
        body = attacker.body(await read_frame(stream, 32)) or b""
        await write_frame(stream, len(body).to_bytes(8, "big"))
        for place in range(len(body)):
            await write_frame(stream, body[place : place + 1])
            await trio.sleep(5.0)

    attacker.serve(BODY_PROTOCOL, drip)


# --- parts ------------------------------------------------------------------------------------------------------------


async def heard(attacker: Attacker, *, own: bool = False) -> Any:
    """Yield each slot that is filled, with its envelope, as it becomes known; own ones where asked."""
    told: set[Slot] = set()
    while True:
        for slot, data in attacker.announcements():
            if slot not in told and (own or slot.peer != attacker.me.address):
                told.add(slot)
                yield slot, msgspec.msgpack.decode(data, type=Envelope)
        await trio.sleep(PAUSE)


def signed(attacker: Attacker, said: Announcement) -> bytes:
    """Return an announcement under the attacker's own signature."""
    payload = encode(said)
    return encode(Envelope(payload, attacker.me.key.sign(signing_hash(payload))))


def other_bytes(attacker: Attacker) -> Callable[[str, INetStream], Awaitable[None]]:
    """Return a server of bodies that answers with noise of the announced length."""

    async def answer(peer: str, stream: INetStream) -> None:
        wanted = await read_frame(stream, 32)
        sizes = dict(announced_sizes(attacker))
        noise = os.urandom(sizes.get(wanted, 64))
        await write_frame(stream, len(noise).to_bytes(8, "big"))
        await write_frame(stream, noise)

    return answer


def announced_sizes(attacker: Attacker) -> list[tuple[bytes, int]]:
    """Return digest and size of every body that is announced."""
    payloads = [msgspec.msgpack.decode(data, type=Envelope).payload for _, data in attacker.announcements()]
    said = [msgspec.msgpack.decode(payload, type=Announcement) for payload in payloads]
    return [(each.body, each.size) for each in said]


async def publish_raw(topic: Topic, data: bytes, author: bytes) -> None:
    """Send a message to every connected subscriber that names another author and is signed by nobody."""
    message = rpc_pb2.Message(from_id=author, data=data, topicIDs=[topic.name], seqno=os.urandom(8))
    message.signature, message.key = os.urandom(64), author
    await send_all(topic, rpc_pb2.RPC(publish=[message]))


async def send_all(topic: Topic, rpc: rpc_pb2.RPC) -> None:
    """Send an RPC past the router, and past its bounds."""
    for stream in list(topic.pubsub.peers.values()):
        with trio.move_on_after(2.0):
            await topic.pubsub.write_msg(stream, rpc)


ATTACKS: dict[str, Attack] = {
    "liar": Attack(skill=0.0, claims=1.0),
    "forger": Attack(skill=0.0, harass=forged, counted=("signature", "unsigned", "stream-digest")),
    "replayer": Attack(
        harass=replayed, forge=last_round_again, reasons=("round",), counted=("duplicate", "round", "body-round")
    ),
    "equivocator": Attack(harass=equivocated, reasons=("equivocation",), counted=("equivocation",)),
    "selective server": Attack(harass=never_served, counted=("body-timeout",)),
    "prompt tamperer": Attack(forge=easier_questions, reasons=("assignment",), counted=("body-assignment",)),
    "cherry-picker": Attack(
        forge=best_ones, reasons=("assignment", "incomplete"), counted=("body-assignment", "body-incomplete")
    ),
    "free rider": Attack(
        skill=0.0, forge=somebody_elses, patience=1.0, reasons=("assignment",), counted=("body-assignment",)
    ),
    "poisoner": Attack(forge=endless, reasons=("poison",), counted=("body-poison",)),
    "oracle": Attack(forge=reference_solutions, reasons=("reference",), counted=("body-reference",)),
    "copier": Attack(skill=0.0, forge=common_ones, patience=LATE, reasons=("copy",)),
}
"""Every attacker that plays with a key of its own; the load attacks and the ring are in files of their own."""
