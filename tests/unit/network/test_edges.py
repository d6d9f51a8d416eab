"""The edges of node.network: frames, the library's log, seen messages, announcements as commands ask for them."""

import logging

import pytest
import structlog
import trio
from hypothesis import given
from hypothesis import strategies as st

from node.identity import NodeKey
from node.identity.local_peer import local_peer
from node.machine.commands import PublishRollouts
from node.network.libp2p_patches.log_throttle import LogThrottle
from node.network.libp2p_patches.tasks import isolated
from node.network.pubsub.announcer import sign_announcement
from node.network.pubsub.seen_messages import SeenMessages
from node.network.reqresp.streams import StreamFault, read_frame
from protocols.identifiers import body_digest
from protocols.manifest import Limits
from protocols.signed_messages import SignedCommitment, SignedDelegation, SignedMessage
from protocols.typed_data import Domain
from protocols.wire import ENVELOPE_OVERHEAD, NOTHING, decode_envelope, encode

KEY = NodeKey(bytes([1]) * 32)
DOMAIN = Domain(1, "0x" + "c0" * 20, b"s" * 32)
ME = local_peer(KEY, None, DOMAIN)
PEER = KEY.peer_id


class Bytes:
    """A stream that gives what it has, a few bytes at a time, and then (maybe) nothing for ever."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    async def read(self, n: int) -> bytes:
        part, self.data = self.data[: min(n, 3)], self.data[min(n, 3) :]
        return part


async def test_frames_are_read_whole() -> None:
    """A frame that comes in pieces is put together, the next one stays in the stream."""
    stream = Bytes(b"\x05hello\0rest")
    assert [await read_frame(stream, 10), await read_frame(stream, 10)] == [b"hello", b""]
    assert stream.data == b"rest"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\x0b", "stream-size"),
        (b"\xff\xff\xff\xff", "stream-size"),
        (b"\x05he", "stream-eof"),
        (b"", "stream-eof"),
    ],
)
async def test_bad_frames_have_a_code(data: bytes, code: str) -> None:
    """A frame above the limit is refused before it is read, a cut one when the stream ends."""
    with pytest.raises(StreamFault, match=code):
        await read_frame(Bytes(data), 10)


async def test_a_silent_stream_is_given_up(autojump_clock: object) -> None:
    """A peer that sends half a frame and then nothing costs ten seconds, not for ever."""

    class Silent:
        async def read(self, n: int) -> bytes:
            await trio.sleep(3600.0)
            return b""

    with pytest.raises(StreamFault, match="stream-timeout"):
        await read_frame(Silent(), 10)


async def test_a_task_of_the_library_fails_alone() -> None:
    """An exception in an isolated task is logged, not raised."""

    async def fails(number: int) -> None:
        raise RuntimeError(str(number))

    assert not await isolated(fails)(5)


def test_the_library_log_has_one_line_per_peer() -> None:
    """Of many warnings about one peer one event is logged; another peer's is not lost; debug is never shown."""
    quiet = LogThrottle()
    logger = logging.Logger("libp2p.pubsub.test")
    logger.addHandler(quiet)
    with structlog.testing.capture_logs() as lines:
        for _ in range(50):
            logger.warning("GRAFT flood detected from peer %s", PEER)
        logger.warning("GRAFT flood detected from peer %s", NodeKey(bytes([2]) * 32).peer_id)
        logger.debug("chatter about %s", NodeKey(bytes([3]) * 32).peer_id)
    assert [line["event"] for line in lines] == ["libp2p.warning"] * 2


@given(st.lists(st.binary(min_size=1, max_size=2), max_size=60))
def test_seen_messages_are_bounded(ids: list[bytes]) -> None:
    """The newest ids are remembered, never more than the limit."""
    seen = SeenMessages(8)
    for each in ids:
        known = seen.has(each)
        assert seen.add(each) != known
    assert sum(seen.has(each) for each in set(ids)) <= 8
    assert not ids or seen.has(ids[-1])


@pytest.mark.parametrize("size", [1, 8_192, 8_193, 65_400, 65_536])
@pytest.mark.parametrize("inline", [8_192, 65_535])
def test_an_announcement_always_fits(size: int, inline: int) -> None:
    """Whatever the body's size, the envelope stays inside the limit, and it is the same bytes every time."""
    limits = Limits(inline=inline)
    body = bytes(size)
    command = PublishRollouts(2**60, 2**20, bytes(32), body_digest(body), size)
    data = sign_announcement(ME, bytes(32), limits, command, body)
    _, said = decode_envelope(data, limits.announcement)
    assert data == sign_announcement(ME, bytes(32), limits, command, body)
    assert said.inline in (b"", body)
    assert (said.inline == body) == (size <= min(inline, limits.announcement - 256))


@pytest.mark.parametrize("limit", [1_000, 4_000, 12_000, 65_536])
@pytest.mark.parametrize("size", [1, 8_000])
def test_attached_messages_come_before_an_inline_body(limit: int, size: int) -> None:
    """As many messages as fit travel, the first ones first; then the body, if there is room; all within the limit."""
    large = SignedDelegation("0x" + "a" * 40, "0x" + "b" * 40, 2**60, 2**60, bytes(1024), bytes(65))
    vote = SignedCommitment(2**60, bytes(32), bytes(65))
    cargo: tuple[SignedMessage, ...] = (vote, *[large] * 9)
    body = bytes(size)
    command = PublishRollouts(2**60, 2**20, bytes(32), body_digest(body), size, relays=True)
    data = sign_announcement(ME, bytes(32), Limits(announcement=limit), command, body, cargo)
    _, said = decode_envelope(data, limit)

    assert said.relays
    assert said.attached == cargo[: len(said.attached)]
    assert len(said.attached) == min(8, 1 + max(0, (limit - ENVELOPE_OVERHEAD - 120) // 1_220))
    assert said.inline == (body if size <= limit - ENVELOPE_OVERHEAD - len(encode(said.attached)) else b"")


def test_an_announcement_without_rollouts_has_messages_attached() -> None:
    """A node that made nothing says so, and what it carries is there."""
    vote = SignedCommitment(2, bytes(32), bytes(65))
    command = PublishRollouts(3, 0, bytes(32), NOTHING, 0)
    _, said = decode_envelope(sign_announcement(ME, bytes(32), Limits(), command, b"", (vote,)), 65_536)
    assert (said.size, said.body, said.inline, said.attached) == (0, NOTHING, b"", (vote,))
