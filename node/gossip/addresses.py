"""Multiaddrs as text: what may be dialled, whom it names, and what stands for "every interface"."""

from __future__ import annotations

from multiaddr import Multiaddr

ADDRESS_LIMIT = 256
"""Characters of an address that is taken from elsewhere."""


class BadAddress(ValueError):  # noqa: N818 - names what it is
    """Text that is no dialable TCP address with a peer id."""


def split_address(text: str) -> tuple[str, str]:
    """Return transport address and peer id of "/ip4/.../tcp/.../p2p/ID". Raises `BadAddress`."""
    if len(text) > ADDRESS_LIMIT:
        raise BadAddress(f"an address has at most {ADDRESS_LIMIT} characters")
    try:
        parsed = Multiaddr(text)
        names = [protocol.name for protocol in parsed.protocols()]
    except Exception as error:
        raise BadAddress(f"{text!r} is no multiaddr") from error
    if len(names) != 3 or names[0] not in ("ip4", "ip6", "dns", "dns4", "dns6") or names[1:] != ["tcp", "p2p"]:
        raise BadAddress(f"{text!r} is not of the form /ip4/HOST/tcp/PORT/p2p/ID")
    transport, _, peer = str(parsed).rpartition("/p2p/")
    if transport.endswith("/tcp/0"):
        raise BadAddress(f"{text!r} names no port")
    return transport, peer


def is_unspecified(transport: str) -> bool:
    """Tell whether an address means every interface of its host, so that only the other side knows a real one."""
    return transport.startswith(("/ip4/0.0.0.0/", "/ip6/::/"))


def seen_from(transport: str, remote_ip: str) -> str:
    """Return an unspecified address with the IP under which its owner was seen; any other one as it is."""
    if not is_unspecified(transport):
        return transport
    family = "ip6" if ":" in remote_ip else "ip4"
    return f"/{family}/{remote_ip}/tcp/{transport.rsplit('/tcp/', 1)[1]}"
