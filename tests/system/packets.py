"""IPv4 packets between namespaces: addresses, and network address translation with its checksums. Pure."""

from __future__ import annotations

import struct
from typing import NamedTuple

TCP, UDP = 6, 17
_CHECKSUM_AT = {TCP: 16, UDP: 6}


class Socket(NamedTuple):
    """One end of a flow: an address of four bytes, and a port."""

    ip: bytes
    port: int


class Flow(NamedTuple):
    """What a packet belongs to."""

    protocol: int
    source: Socket
    destination: Socket


def flow_of(packet: bytes) -> Flow | None:
    """Return the flow of a TCP or UDP packet; None for any other, and for what is not IPv4."""
    if len(packet) < 20 or packet[0] >> 4 != 4 or packet[9] not in _CHECKSUM_AT:
        return None
    at = _header_bytes(packet)
    if len(packet) < at + 8:
        return None
    source, destination = struct.unpack_from("!HH", packet, at)
    return Flow(packet[9], Socket(packet[12:16], source), Socket(packet[16:20], destination))


def with_source(packet: bytes, source: Socket) -> bytes:
    """Return a TCP or UDP packet with another source."""
    return _readdressed(packet, source, 12, 0)


def with_destination(packet: bytes, destination: Socket) -> bytes:
    """Return a TCP or UDP packet with another destination."""
    return _readdressed(packet, destination, 16, 2)


def _readdressed(packet: bytes, end: Socket, ip_at: int, port_at: int) -> bytes:
    at = _header_bytes(packet)
    made = bytearray(packet)
    made[ip_at : ip_at + 4] = end.ip
    made[at + port_at : at + port_at + 2] = end.port.to_bytes(2, "big")
    old_ip, old_port = packet[ip_at : ip_at + 4], packet[at + port_at : at + port_at + 2]
    _update(made, 10, old_ip, end.ip)
    checksum = at + _CHECKSUM_AT[packet[9]]
    if packet[9] == TCP or packet[checksum : checksum + 2] != b"\0\0":  # UDP may go without one
        _update(made, checksum, old_ip + old_port, end.ip + end.port.to_bytes(2, "big"))
    return bytes(made)


def _update(packet: bytearray, at: int, old: bytes, new: bytes) -> None:
    """Correct a checksum for bytes that have changed (RFC 1624, equation 3)."""
    total = ~int.from_bytes(packet[at : at + 2], "big") & 0xFFFF
    for before, after in zip(_words(old), _words(new), strict=True):
        total += (~before & 0xFFFF) + after
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    packet[at : at + 2] = (~total & 0xFFFF).to_bytes(2, "big")


def _words(data: bytes) -> tuple[int, ...]:
    return struct.unpack(f"!{len(data) // 2}H", data)


def _header_bytes(packet: bytes) -> int:
    return (packet[0] & 15) * 4


class Nat:
    """A port-restricted cone NAT (RFC 4787: endpoint-independent mapping, address- and port-dependent filtering).

    One inner address appears as one outer address. Packets come in only on flows that have gone out.
    """

    def __init__(self, inner: bytes, outer: bytes) -> None:
        self.inner, self.outer = inner, outer
        self._ports: dict[tuple[int, int], int] = {}
        self._origins: dict[tuple[int, int], int] = {}
        self._contacted: set[Flow] = set()

    def outward(self, packet: bytes) -> bytes | None:
        """Return a packet of the inner host as others see it; None where it is neither TCP nor UDP."""
        flow = flow_of(packet)
        if flow is None:
            return None
        inside = (flow.protocol, flow.source.port)
        port = self._ports.setdefault(inside, 40_000 + len(self._ports))
        self._origins[flow.protocol, port] = flow.source.port
        source = Socket(self.outer, port)
        self._contacted.add(Flow(flow.protocol, source, flow.destination))
        return with_source(packet, source)

    def inward(self, packet: bytes) -> bytes | None:
        """Return a packet to the outer address as the inner host gets it; None where it is filtered."""
        flow = flow_of(packet)
        if flow is None or Flow(flow.protocol, flow.destination, flow.source) not in self._contacted:
            return None
        return with_destination(packet, Socket(self.inner, self._origins[flow.protocol, flow.destination.port]))
