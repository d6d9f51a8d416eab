"""Packets and the NAT between namespaces: checksums hold, and only answers come in."""

from __future__ import annotations

import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.system.packets import TCP, UDP, Nat, Socket, flow_of, with_destination, with_source
from tests.system.wires import Rules

INNER, OUTER, OTHER, THIRD = (socket.inet_aton(text) for text in ("192.168.4.2", "45.81.0.1", "45.78.0.1", "45.79.0.1"))
ENDS = st.builds(Socket, st.binary(min_size=4, max_size=4), st.integers(1, 65535))


def checksum(data: bytes) -> int:
    """Return the Internet checksum (RFC 1071)."""
    total: int = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + b"\0" * (len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def packet(protocol: int, source: Socket, destination: Socket, data: bytes) -> bytes:
    """Return an IPv4 packet with correct checksums."""
    ports = struct.pack("!HH", source.port, destination.port)
    if protocol == TCP:
        head, at = ports + struct.pack("!IIBBHHH", 1, 2, 5 << 4, 16, 1000, 0, 0), 16
    else:
        head, at = ports + struct.pack("!HH", 8 + len(data), 0), 6
    pseudo = source.ip + destination.ip + struct.pack("!BBH", 0, protocol, len(head) + len(data))
    found = checksum(pseudo + head + data) or 0xFFFF
    body = head[:at] + struct.pack("!H", found) + head[at + 2 :] + data
    fields = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 7, 0, 64, protocol, 0)
    ip = fields + source.ip + destination.ip
    return ip[:10] + struct.pack("!H", checksum(ip)) + ip[12:] + body


def is_correct(data: bytes) -> bool:
    """Return True if both checksums of a packet hold."""
    pseudo = data[12:20] + struct.pack("!BBH", 0, data[9], len(data) - 20)
    return checksum(data[:20]) == 0 and checksum(pseudo + data[20:]) == 0


@given(st.sampled_from([TCP, UDP]), ENDS, ENDS, ENDS, st.binary(max_size=60))
def test_another_address_keeps_the_checksums_right(
    protocol: int, source: Socket, destination: Socket, other: Socket, data: bytes
) -> None:
    """Whatever the packet, with another source or destination a receiver takes it."""
    sent = packet(protocol, source, destination, data)
    assert is_correct(sent)
    for changed in (with_source(sent, other), with_destination(sent, other)):
        assert is_correct(changed)
        assert len(changed) == len(sent)
    assert flow_of(with_source(sent, other)) == (protocol, other, destination)
    assert flow_of(with_destination(sent, other)) == (protocol, source, other)


def test_answers_come_in_and_nothing_else() -> None:
    """Who was sent something may answer on that port; another address, or another port of it, may not."""
    nat, inside, server = Nat(INNER, OUTER), Socket(INNER, 5000), Socket(OTHER, 80)
    out = nat.outward(packet(TCP, inside, server, b"hello"))
    assert out is not None
    seen = flow_of(out)
    assert seen is not None
    assert (seen.source.ip, seen.destination) == (OUTER, server)
    back = nat.inward(packet(TCP, server, seen.source, b"welcome"))
    assert back is not None
    assert is_correct(back)
    assert flow_of(back) == (TCP, server, inside)
    for stranger in (Socket(THIRD, 80), Socket(OTHER, 81)):
        assert nat.inward(packet(TCP, stranger, seen.source, b"knock")) is None
    assert nat.inward(packet(UDP, server, seen.source, b"other protocol")) is None


def test_a_port_keeps_its_mapping() -> None:
    """Endpoint-independent mapping: the same inner port is the same outer one for every destination."""
    nat, inside = Nat(INNER, OUTER), Socket(INNER, 5000)
    outer = {flow_of(nat.outward(packet(UDP, inside, Socket(ip, 9), b"")) or b"").source for ip in (OTHER, THIRD)}  # type: ignore[union-attr]
    assert len(outer) == 1


@pytest.mark.parametrize("data", [b"", b"\x60" + bytes(39), b"\x45" + bytes(8) + b"\x01" + bytes(30), b"\x45"])
def test_what_is_no_flow_is_none(data: bytes) -> None:
    """IPv6, ICMP and stumps are not translated."""
    assert flow_of(data) is None
    assert Nat(INNER, OUTER).outward(data) is None


def test_only_different_parts_are_parted() -> None:
    """Those of one part hear each other, and those of none hear everybody."""
    rules = Rules(parts=((1, 2), (3, 4)))
    assert rules.parted(1, 3)
    assert not rules.parted(1, 2)
    assert not any(rules.parted(0, each) or rules.parted(each, 0) for each in (1, 2, 3, 4))
