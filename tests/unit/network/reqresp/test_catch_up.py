"""What catching up costs who is asked."""

from types import SimpleNamespace
from typing import Any

import trio

from node.network.reqresp.catch_up import MAX_ANSWERS, CatchUp
from node.network.reqresp.upload_quota import UploadQuota
from protocols.admission import Slot

SLOTS = [Slot(peer="0xa", round=1, stage=stage, seed=bytes(32)) for stage in range(3)]


class Asking:
    """A stream that asks for everything, and counts the bytes that come."""

    def __init__(self) -> None:
        self.request, self.received = bytearray(4), 0

    async def read(self, n: int) -> bytes:
        await trio.lowlevel.checkpoint()
        part, self.request = bytes(self.request[:n]), self.request[n:]
        return part

    async def write(self, data: bytes) -> None:
        await trio.sleep(1.0)
        self.received += len(data)


async def test_one_answer_a_peer_and_so_many_at_once(autojump_clock: object) -> None:
    """Who asks again before it has its answer gets nothing more; nor do too many peers together."""
    served: dict[str, Any] = {}
    host: Any = SimpleNamespace(serve=served.__setitem__)
    validator: Any = SimpleNamespace(slots=lambda: SLOTS, envelope=lambda slot: bytes(100))
    CatchUp(host, validator, 1000, UploadQuota(1e9))
    (answer,) = served.values()
    names = ["greedy"] * 20 + [f"peer {number}" for number in range(MAX_ANSWERS + 4)]
    streams = [Asking() for _ in names]
    async with trio.open_nursery() as nursery:
        for name, stream in zip(names, streams, strict=True):
            nursery.start_soon(answer, name, stream)
    full = [name for name, stream in zip(names, streams, strict=True) if stream.received > 300]
    assert full.count("greedy") <= 1
    assert len(full) == MAX_ANSWERS
    again = Asking()
    await answer("greedy", again)
    assert again.received > 300
