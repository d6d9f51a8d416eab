"""Frames between a pool and its workers (`node.frames`): MessagePack."""

from __future__ import annotations

import socket
from typing import TypeVar

import msgspec

from node.frames import FrameReader, delimited

LIMIT = 16 << 20
"""Most bytes of a frame; 64 completions at the pool's limit are far below."""

CHUNK = 1 << 16

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


class PoolConnection:
    """One end of the line between a pool and a worker. Blocks as the socket does."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket, self._reader = connection, FrameReader(LIMIT)

    def set_timeout(self, seconds: float) -> None:
        """Have `send` and `receive` raise TimeoutError when the other side keeps them waiting for so long."""
        self._socket.settimeout(seconds)

    def send(self, frame: msgspec.Struct) -> None:
        """Send a frame. Raises OSError, and ValueError for one above the limit."""
        self._socket.sendall(delimited(msgspec.msgpack.encode(frame), LIMIT))

    def receive(self, kind: type[FrameT]) -> FrameT:
        """Return the next frame.

        Raises EOFError if the other side is gone, TimeoutError, and ValueError or RecursionError for what is no such
        frame.
        """
        while (body := self._reader.next()) is None:
            data = self._socket.recv(CHUNK)
            if not data:
                raise EOFError("the line ended")
            self._reader.feed(data)
        return msgspec.msgpack.decode(body, type=kind)

    def close(self) -> None:
        """Close this end."""
        self._socket.close()
