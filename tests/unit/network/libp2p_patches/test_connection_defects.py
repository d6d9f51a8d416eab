"""The defects of the library's connections, each without its repair: places, windows, negotiation."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from importlib.metadata import version
from typing import Any

import pytest
import trio
from libp2p import new_host
from libp2p.crypto.secp256k1 import create_new_key_pair
from libp2p.exceptions import ParseError
from libp2p.identity.identify import identify
from libp2p.io.exceptions import IncompleteReadError
from libp2p.network.config import ConnectionConfig
from libp2p.peer.id import ID
from libp2p.stream_muxer.yamux import yamux
from multiaddr import Multiaddr

from node.identity import new_key
from node.network.host import open_host
from node.network.libp2p_patches.replacements import MAX_PROTOCOL_LENGTH, read_bounded_delim
from node.network.libp2p_patches.yamux import MAX_UNREAD, MAX_WINDOW, read_bounded_body
from tests.support.libp2p_defects import shows
from tests.unit.network.libp2p_patches.pristine import pristine

YAMUX = "libp2p.stream_muxer.yamux.yamux"
MIB = 1 << 20
PLACES = 3


@asynccontextmanager
async def library_host() -> AsyncIterator[Any]:
    """A host of the library with three places for inbound connections, without any repair on the object."""
    config = ConnectionConfig(min_connections=0, low_watermark=0, high_watermark=PLACES, max_connections=PLACES)
    host = new_host(key_pair=create_new_key_pair(), connection_config=config)
    async with host.run([Multiaddr("/ip4/127.0.0.1/tcp/0")]):
        yield host


async def joins(host: Any) -> bool:
    """Connect a new host to one, and leave again; return whether it got in."""
    async with open_host(new_key(), (), 8) as dialer:
        return await dialer.connect(str(host.get_addrs()[0]).rpartition("/p2p/")[0], str(host.get_id()))


@shows("libp2p.network.swarm:Swarm", "_handle_inbound_connection")
async def test_a_connection_that_is_over_keeps_its_place() -> None:
    """Three strangers come and go one after another: for the fourth there is no place, though nobody is connected."""
    async with library_host() as host:
        got_in = []
        for _ in range(PLACES + 1):
            got_in.append(await joins(host))
            with trio.fail_after(5):
                while host.get_network().get_connections():  # noqa: ASYNC110 - the library has no event for it
                    await trio.sleep(0.01)
        assert got_in == [True] * PLACES + [False]
        assert host.get_network()._inbound_limiter.borrowed_tokens == PLACES


@shows("libp2p.identity.identify.identify", "AGENT_VERSION")
async def test_identify_names_the_library() -> None:
    """The library's agent is itself; repaired, peers learn which software they talk to, and its version."""
    assert pristine("libp2p.identity.identify.identify").AGENT_VERSION.startswith("py-libp2p/")
    async with open_host(new_key(), (), 8) as host:
        assert identify._mk_identify_protobuf(host.inner, None).agent_version == f"swarm-node/{version('swarm-node')}"


class Pouring:
    """A secured connection that has as many bytes as anybody asks for, and counts those it gave."""

    is_initiator = True

    def __init__(self) -> None:
        self.given, self.closed = 0, False

    async def read(self, n: int) -> bytes:
        """Return `n` bytes."""
        await trio.lowlevel.checkpoint()
        self.given += n
        return bytes(n)

    async def close(self) -> None:
        """Note that the connection is closed."""
        self.closed = True


async def kept_of(read_body: Any, frames: int) -> tuple[int, bool]:
    """Have a connection take 1 MiB frames for a stream that nobody reads; return the bytes kept, and if it closed."""
    secured: Any = Pouring()
    connection = yamux.Yamux(secured, ID(b"\x00" * 34))
    connection.streams[1], connection.stream_buffers[1] = yamux.YamuxStream(1, connection, False), bytearray()
    kept = 0
    for _ in range(frames):
        data = await read_body(connection, MIB)
        if 1 not in connection.stream_buffers:
            break
        connection.stream_buffers[1].extend(data)
        kept = len(connection.stream_buffers[1])
    return kept, secured.closed


@shows(f"{YAMUX}:Yamux", "_read_data_body")
async def test_bytes_beyond_every_window_are_kept() -> None:
    """Sixty-four megabytes on one stream are kept; repaired, the connection ends at six, before they are read."""
    assert await kept_of(pristine(YAMUX).Yamux._read_data_body, 64) == (64 * MIB, False)
    assert await kept_of(read_bounded_body, 64) == (MAX_UNREAD, True)


async def test_unread_bytes_at_the_limit_are_kept() -> None:
    """As many bytes as may lie unread do, and once they are read there is room for as many again."""
    assert await kept_of(read_bounded_body, MAX_UNREAD // MIB) == (MAX_UNREAD, False)
    secured: Any = Pouring()
    connection = yamux.Yamux(secured, ID(b"\x00" * 34))
    connection.stream_buffers[1] = bytearray(MAX_UNREAD)
    connection.stream_buffers[1].clear()
    assert len(await read_bounded_body(connection, MIB)) == MIB
    assert not secured.closed


@shows(YAMUX, "MAX_WINDOW_SIZE")
def test_a_window_grows_to_sixteen_megabytes() -> None:
    """The library's limit of a window, and so of a frame, is more than a whole connection may have unread here."""
    assert pristine(YAMUX).MAX_WINDOW_SIZE == 16 * MIB
    assert MAX_WINDOW <= MAX_UNREAD < 16 * MIB


class Claims:
    """A peer that claims a length and then sends as much as anybody reads."""

    def __init__(self, length: int, text: bytes = b"") -> None:
        self._head = encoded(length)
        self._text = text
        self.given = 0

    async def read(self, n: int) -> bytes:
        """Return the claimed length byte by byte, then up to `n` bytes."""
        await trio.lowlevel.checkpoint()
        if self._head:
            first, self._head = self._head[:1], self._head[1:]
            return first
        part = self._text[:n] if self._text else bytes(min(n, 64 << 10))
        self._text = self._text[n:]
        self.given += len(part)
        return part


def encoded(length: int) -> bytes:
    """Return a length as an unsigned varint."""
    out = b""
    while length >= 0x80:
        out += struct.pack("B", length & 0x7F | 0x80)
        length >>= 7
    return out + struct.pack("B", length)


@shows("libp2p.protocol_muxer.multiselect_communicator", "read_delim")
async def test_negotiation_reads_a_message_of_any_length() -> None:
    """A message that claims a terabyte is read until memory or time end; repaired, none of its bytes is."""
    theirs: Any = Claims(1 << 40)
    with trio.move_on_after(0.2), suppress(IncompleteReadError):
        await pristine("libp2p.utils.varint").read_delim(theirs)
    assert theirs.given > MIB
    ours: Any = Claims(1 << 40)
    with pytest.raises(ParseError):
        await read_bounded_delim(ours)
    assert ours.given == 0


async def test_negotiation_reads_messages_up_to_its_limit() -> None:
    """The longest message is read, one byte more is refused, and so is one without its newline or cut short."""
    longest = b"/" + b"x" * (MAX_PROTOCOL_LENGTH - 2) + b"\n"
    assert await read_bounded_delim(_reader(len(longest), longest)) == longest[:-1]
    with pytest.raises(ParseError):
        await read_bounded_delim(_reader(len(longest) + 1, longest + b"\n"))
    with pytest.raises(ParseError):
        await read_bounded_delim(_reader(5, b"/abcd"))
    with pytest.raises(IncompleteReadError):
        await read_bounded_delim(_ended(9, b"/ab\n"))


def _reader(length: int, text: bytes) -> Any:
    return Claims(length, text)


def _ended(length: int, text: bytes) -> Any:
    return _Ended(length, text)


class _Ended(Claims):
    async def read(self, n: int) -> bytes:
        """Return what is left, empty at the end."""
        await trio.lowlevel.checkpoint()
        if self._head:
            first, self._head = self._head[:1], self._head[1:]
            return first
        part, self._text = self._text[:n], self._text[n:]
        return part
