"""Length-delimited frames."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from libp2p.utils.varint import encode_varint_prefixed

from node.frames import FrameReader, FrameTooLargeError, delimited, frame_length

LIMIT = 300


@given(bodies=st.lists(st.binary(max_size=LIMIT), max_size=6), cuts=st.lists(st.integers(1, 200)))
def test_frames_come_out_as_they_went_in(bodies: list[bytes], cuts: list[int]) -> None:
    """However the stream is cut into parts; nothing is held when all are out."""
    stream, reader, found = b"".join(delimited(body, LIMIT) for body in bodies), FrameReader(LIMIT), list[bytes]()
    for cut in cuts:
        reader.feed(stream[:cut])
        stream = stream[cut:]
        found += reader
    reader.feed(stream)
    found += reader
    assert found == bodies
    assert reader.next() is None


@given(body=st.binary(max_size=LIMIT))
def test_the_length_is_written_as_libp2p_does(body: bytes) -> None:
    """An unsigned varint; 128 is the first of two bytes."""
    assert delimited(body, LIMIT) == encode_varint_prefixed(body)


def test_a_frame_above_the_limit_is_refused_before_it_is_there() -> None:
    """Neither written nor waited for."""
    with pytest.raises(FrameTooLargeError, match="301 bytes"):
        delimited(bytes(LIMIT + 1), LIMIT)
    reader = FrameReader(LIMIT)
    reader.feed(b"\xff\xff\x7f")
    with pytest.raises(FrameTooLargeError, match="exceeds the limit of 300"):
        reader.next()


def test_a_length_that_does_not_end_is_refused() -> None:
    """Ten bytes hold every length of 64 bits; zeros with the mark of continuation add nothing to it."""
    assert frame_length(b"\x80" * 9, LIMIT) is None
    with pytest.raises(FrameTooLargeError, match="more than 10 bytes"):
        frame_length(b"\x80" * 10, LIMIT)


def test_a_length_takes_as_many_bytes_as_it_needs() -> None:
    """An empty frame is one zero byte."""
    assert frame_length(b"\x00rest", LIMIT) == (0, 1)
    assert frame_length(b"\xac\x02rest", LIMIT) == (300, 2)
    assert frame_length(b"\xac", LIMIT) is None
