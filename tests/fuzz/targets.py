"""What is fuzzed: every decoder of bytes that others send, with samples to start from and the errors it documents."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import msgspec
from libp2p.utils.varint import encode_varint_prefixed

from node.data.arithmetic import ArithmeticQuestions
from node.frames import FrameReader, FrameTooLargeError, delimited
from node.grading import pool_messages as grading
from node.identity.rsa import bound_peer
from node.network.peers import peer_manager
from node.network.pubsub.router import FRAME_LIMIT
from node.network.reqresp.streams import StreamFault, read_frame
from node.trainer import messages as frames
from node.validation.body_check import check_body
from protocols.assignment import assignment
from protocols.identifiers import body_digest
from protocols.manifest import GameSpec, Manifest
from protocols.session import SessionStatement
from protocols.signed_messages import SignedDelegation, SignedReward, VoteReveal
from protocols.typed_data import Domain
from protocols.wire import (
    PROTOCOL_VERSION,
    Announcement,
    BoundAnnouncement,
    BoundDelegation,
    Completion,
    Envelope,
    Group,
    Malformed,
    Rollouts,
    decode_envelope,
    decode_introduction,
    decode_rollouts,
    encode,
)

LIMIT = 65_536
encoded = msgspec.msgpack.encode
PEER, SEED = f"0x{7:040x}", bytes(range(32))
DOMAIN = Domain(1, PEER, SEED)
STATEMENT = Path(__file__).with_name("statement.bin").read_bytes()
"""Of an RSA key that nobody has any more, for `PEER` at `DOMAIN`."""
_sessions = msgspec.msgpack.Decoder(SessionStatement)


class Target(msgspec.Struct, frozen=True):
    """A decoder. `read` raises one of `refusals` or nothing; `weight` is its share of the inputs."""

    name: str
    samples: tuple[bytes, ...]
    read: Callable[[bytes], object]
    refusals: tuple[type[Exception], ...]
    weight: int


class Bytes:
    """A stream of what is there; nothing more comes."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    async def read(self, n: int) -> bytes:
        """Return at most `n` bytes, few at a time."""
        part, self._data = self._data[: min(n, 7)], self._data[min(n, 7) :]
        return part


def targets() -> tuple[Target, ...]:
    """Return all of them."""
    questions = ArithmeticQuestions()
    manifest = Manifest(name="fuzz", game=GameSpec(num_prompts=4, min_prompts=2, num_generations=2))
    body = encode(_rollouts(questions))
    announced = _announcement(body, body)
    delegation = SignedDelegation(PEER, PEER, 1, 2**40, bytes(200), bytes(65))
    message_pool = (delegation, VoteReveal(2, (PEER,), SEED), SignedReward(3, 0, -(2**40), bytes(65)))
    statement = _sessions.decode(STATEMENT)
    bound = BoundAnnouncement(**msgspec.structs.asdict(announced), session=statement)
    carrying = msgspec.structs.replace(announced, relays=True, attached=message_pool)
    bodies = (body, encode(Rollouts(0, 0, bytes(32), ())), encode(_rollouts(questions, text="é" * 300)))
    envelopes = tuple(
        encode(Envelope(encode(each), bytes(65)))
        for each in (
            announced,
            carrying,
            bound,
            _announcement(body, b""),
            msgspec.structs.replace(announced, version=2**63 - 1),
        )
    )
    introductions = (encode(delegation), encode(BoundDelegation(delegation, statement)))
    refused, garbage = (Malformed,), (ValueError, RecursionError)
    return (
        Target("announcement", envelopes, lambda data: decode_envelope(data, LIMIT), refused, 4),
        Target("introduction", introductions, decode_introduction, refused, 2),
        Target("session", (STATEMENT,), _session, garbage, 2),
        Target("body", bodies, lambda data: decode_rollouts(data, body_digest(data), LIMIT), refused, 4),
        Target("body check", bodies, _checker(manifest, questions), (), 1),
        Target("fetch request", (_frame(body_digest(body)),), lambda data: _now(data, 32), (StreamFault,), 2),
        Target("gossip frame", (encode_varint_prefixed(body),), _first_frame, (FrameTooLargeError,), 1),
        Target("catch-up request", (_frame(bytes(120)),), lambda data: _now(data, 12 * 8192), (StreamFault,), 1),
        Target("frame to the trainer", _to_child(manifest, body), _trainer(frames.to_child), garbage, 2),
        Target("frame of the trainer", _from_child(body), _trainer(frames.from_child), garbage, 2),
        Target("peer addresses", (_addresses(),), peer_manager._decode, (StreamFault,), 2),
        Target(
            "grading task", (encoded(grading.GradingTask(("a", "b"), "c")),), _decoder(grading.GradingTask), garbage, 1
        ),
        Target("grading result", (encoded(grading.Graded((1.0, None))),), _decoder(grading.Graded), garbage, 1),
    )


def _rollouts(questions: ArithmeticQuestions, text: str = "#### 4") -> Rollouts:
    given = assignment(questions.digest, SEED, PEER, 0, 3, len(questions))
    made = Completion(text, struct.pack("<2I", 1, 2), struct.pack("<2f", -0.5, -1.5), True)
    return Rollouts(3, 0, bytes(32), tuple(Group(slot, at, (made, made)) for slot, at in enumerate(given)))


def _announcement(body: bytes, inline: bytes) -> Announcement:
    return Announcement(PROTOCOL_VERSION, bytes(32), 3, 0, SEED, body_digest(body), len(body), inline)


def _checker(manifest: Manifest, questions: ArithmeticQuestions) -> Callable[[bytes], object]:
    return lambda data: check_body(manifest, questions, PEER, _announcement(data, b""), data)


def _session(data: bytes) -> str:
    """Decode and check a statement as every receiver does; an altered one binds nothing: that is read right."""
    statement = _sessions.decode(data)
    try:
        return bound_peer(statement, DOMAIN, PEER)
    except ValueError:
        return ""


def _frame(data: bytes) -> bytes:
    return delimited(data)


def _first_frame(data: bytes) -> object:
    reader = FrameReader(FRAME_LIMIT)
    reader.feed(data)
    return reader.next()


def _now(data: bytes, limit: int) -> bytes:
    """Read a frame from a stream that never waits."""
    reading = read_frame(Bytes(data), limit)
    try:
        reading.send(None)
    except StopIteration as done:
        return bytes(done.value)
    raise AssertionError("the reader waited")


def _to_child(manifest: Manifest, body: bytes) -> tuple[bytes, ...]:
    messages: tuple[frames.ToChild, ...] = (
        frames.SetUp(frames.TrainerSettings(), manifest, PEER, "/x"), frames.Generate(1, 2, 0, SEED, 16),
        frames.Train(2, 2, 0, body, (body, body), 2, 5.0), frames.Evaluate(3, 2), frames.Cancel(3), frames.Bye(),
    )  # fmt: skip
    return tuple(map(frames.frame_bytes, messages))


def _from_child(body: bytes) -> tuple[bytes, ...]:
    messages: tuple[frames.FromChild, ...] = (
        frames.Hello(7), frames.Ready(350_000, "cpu", bytes(32), -1), frames.Heartbeat(),
        frames.Progress(1, 2, 3),
        frames.Generated(1, body, 3, 1.5, 0.2), frames.Trained(2, 1, 2, 3, 0.5, 1.0), frames.Failed(0, "error", "why"),
    )  # fmt: skip
    return tuple(map(frames.frame_bytes, messages))


def _trainer(decoder: msgspec.msgpack.Decoder[frames.ToChild] | msgspec.msgpack.Decoder[frames.FromChild]) -> (
    Callable[[bytes], object]
):  # fmt: skip
    def read(data: bytes) -> object:
        reader = FrameReader(frames.FRAME_LIMIT)
        reader.feed(data)
        body = reader.next()
        return None if body is None else decoder.decode(body)

    return read


def _addresses() -> bytes:
    peer = "16Uiu2HAm1111111111111111111111111111111111111111111x"
    return encoded([f"/ip4/127.0.0.1/tcp/{port}/p2p/{peer}" for port in (1, 38331)])


def _decoder(kind: type[msgspec.Struct]) -> Callable[[bytes], object]:
    return msgspec.msgpack.Decoder(kind).decode
