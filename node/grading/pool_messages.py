"""Frames between a pool and its workers: 4-byte little-endian length, then MessagePack."""

from __future__ import annotations

import socket
import struct
from typing import TypeVar

import msgspec

LIMIT = 16 << 20
"""Most bytes of a frame; 64 completions at the pool's limit are far below."""

_length = struct.Struct("<I")
FrameT = TypeVar("FrameT", bound=msgspec.Struct)


class GraderReady(msgspec.Struct, frozen=True):
    """Worker to pool: the grader is loaded, or `reason` says why it can't be."""

    reason: str = ""


class GradingTask(msgspec.Struct, frozen=True):
    """Pool to worker: grade these completions."""

    completions: tuple[str, ...]
    answer: str


class Graded(msgspec.Struct, frozen=True):
    """Worker to pool: the reward of each completion, None if the grader was stopped at a limit."""

    rewards: tuple[float | None, ...]


def send(connection: socket.socket, frame: msgspec.Struct) -> None:
    """Send a frame; blocks like the socket."""
    body = msgspec.msgpack.encode(frame)
    connection.sendall(_length.pack(len(body)) + body)


def receive(connection: socket.socket, kind: type[FrameT]) -> FrameT:
    """Return the next frame. Raises EOFError if the other side is gone, TimeoutError by the socket's time-out,
    ValueError or RecursionError if it does not decode."""
    (length,) = _length.unpack(_exactly(connection, _length.size))
    if length > LIMIT:
        raise ValueError(f"a frame of {length} bytes, limit {LIMIT}")
    return msgspec.msgpack.decode(_exactly(connection, length), type=kind)


def _exactly(connection: socket.socket, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        part = connection.recv(count - len(data))
        if not part:
            raise EOFError("the connection was closed")
        data += part
    return bytes(data)
