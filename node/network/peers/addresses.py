"""Multiaddrs as text: which may be dialled, which peer they name, which stand for "every interface"."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TypeAlias

from multiaddr import Multiaddr
from multiaddr.exceptions import Error as MultiaddrError

from node.exits import Exit, Refusal

ADDRESS_LIMIT = 256
"""Characters of an address that another peer or the operator gives."""

Networks: TypeAlias = tuple[IPv4Network | IPv6Network, ...]


class BadAddress(ValueError):  # noqa: N818 - names what it is
    """Text that is no dialable TCP address with a peer id."""


def split_address(text: str) -> tuple[str, str]:
    """Return transport address and peer id of "/ip4/.../tcp/.../p2p/ID". Raises `BadAddress`."""
    if len(text) > ADDRESS_LIMIT:
        raise BadAddress(f"an address has at most {ADDRESS_LIMIT} characters")
    try:
        parsed = Multiaddr(text)
        names = [protocol.name for protocol in parsed.protocols()]
    except (MultiaddrError, ValueError, LookupError) as error:
        raise BadAddress(f"{text!r} is no multiaddr") from error
    if len(names) != 3 or names[0] not in ("ip4", "ip6", "dns", "dns4", "dns6") or names[1:] != ["tcp", "p2p"]:
        raise BadAddress(f"{text!r} is not of the form /ip4/HOST/tcp/PORT/p2p/ID")
    transport, _, peer = str(parsed).rpartition("/p2p/")
    if transport.endswith("/tcp/0"):
        raise BadAddress(f"{text!r} names no port")
    found = ip_of(host_of(transport))
    if found is not None and (found.is_multicast or found.is_reserved):
        raise BadAddress(f"{text!r} is nobody's address")
    return transport, peer


def is_unspecified(transport: str) -> bool:
    """Return True if an address means every interface of its host, so that only the other side sees a real one."""
    return transport.startswith(("/ip4/0.0.0.0/", "/ip6/::/"))


def seen_from(transport: str, remote_ip: str) -> str:
    """Return an unspecified address with the IP address under which its peer was seen, any other one unchanged."""
    if not is_unspecified(transport):
        return transport
    family = "ip6" if ":" in remote_ip else "ip4"
    return f"/{family}/{remote_ip}/tcp/{transport.rsplit('/tcp/', 1)[1]}"


def networks(texts: Iterable[str]) -> Networks:
    """Parse networks such as "10.0.0.0/8". Raises `Refusal` naming one that is malformed."""
    found = []
    for text in texts:
        try:
            found.append(ip_network(text))
        except ValueError as error:
            raise Refusal(Exit.CONFIG, f"gossip.trusted_networks: {error}; write it as 192.168.0.0/16") from error
    return tuple(found)


def network_key(ip: str | None, trusted: Networks) -> str:
    """Return the /24 (IPv6: /64) that an address belongs to: who has one address there easily gets more.

    Empty for a name, for None, and inside a trusted network: those are not counted.
    """
    found = ip_of(ip or "")
    if found is None or any(found.version == network.version and found in network for network in trusted):
        return ""
    return network_of(found, 24)


def ip_of(text: str) -> IPv4Address | IPv6Address | None:
    """Parse an IP address, an IPv4-mapped one as IPv4; None where the text is no address."""
    try:
        found = ip_address(text)
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found


def is_global(ip: IPv4Address | IPv6Address) -> bool:
    """Return True for an address that means the same host everywhere."""
    return ip.is_global and not ip.is_multicast


def network_of(ip: IPv4Address | IPv6Address, bits: int) -> str:
    """Return the network of an address: of so many bits in IPv4, the /64 in IPv6, all of which anybody has."""
    return str(ip_network((ip, bits if ip.version == 4 else 64), strict=False))


def host_of(transport: str) -> str:
    """Return the host of a transport address, as "203.0.113.5" of "/ip4/203.0.113.5/tcp/38331"."""
    return transport.split("/")[2] if transport.count("/") > 2 else ""
