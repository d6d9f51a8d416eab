"""RPCs off a stream that cuts them where it likes."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from libp2p.network.stream.exceptions import StreamEOF
from libp2p.utils.varint import encode_varint_prefixed

from node.frames import FrameTooLargeError
from node.network.pubsub.rpc_frames import RpcFrames

LIMIT = 300


class Parts:
    """A stream that gives its parts one by one, then ends."""

    def __init__(self, parts: list[bytes]) -> None:
        self.parts = parts

    async def read(self, n: int) -> bytes:
        return self.parts.pop(0) if self.parts else b""


@given(st.lists(st.binary(max_size=LIMIT), max_size=8), st.lists(st.integers(0, 2000), max_size=12))
async def test_frames_come_out_as_they_went_in(sent: list[bytes], cuts: list[int]) -> None:
    """However the stream cuts them, every frame is read whole and in order, then comes the stream's end."""
    data = b"".join(map(encode_varint_prefixed, sent))
    places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    frames = RpcFrames(Parts([data[a:b] for a, b in pairwise(places)]), LIMIT)
    assert [await frames.next() for _ in sent] == sent
    with pytest.raises(StreamEOF):
        await frames.next()


@pytest.mark.parametrize("data", [b"\xad\x02", b"\xff\xff\xff\xff\x7f", b"\x80" * 10, b"\x80" * 9 + b"\x01"])
async def test_a_length_above_the_limit_is_refused_before_its_bytes(data: bytes) -> None:
    """Nothing is taken for a frame that promises more than the limit, or whose length has no end."""
    with pytest.raises(FrameTooLargeError):
        await RpcFrames(Parts([data]), LIMIT).next()


async def test_the_largest_frame_is_taken() -> None:
    """The limit itself is allowed, and a frame that is not all there is waited for."""
    whole = encode_varint_prefixed(bytes(LIMIT))
    assert await RpcFrames(Parts([whole]), LIMIT).next() == bytes(LIMIT)
    with pytest.raises(StreamEOF):
        await RpcFrames(Parts([whole[:-1]]), LIMIT).next()
