"""Introductions: a node without funds sends its owner's delegation to its peers, so that a funded one may submit it.

One frame on a stream, no answer. A node can introduce only itself: the connection proves who it is.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable

import structlog
import trio
from libp2p.abc import INetStream

from node.identity.local_peer import LocalPeer, address_of_peer
from node.identity.rsa import bound_peer
from node.machine.inputs import NodeIntroduced
from node.network.host import Host
from node.network.parameters import Introduction
from node.network.reqresp.streams import StreamFault, StreamLostError, read_frame, write_frame
from protocols.typed_data import Domain
from protocols.wire import INTRODUCTION_LIMIT, BoundDelegation, Malformed, decode_introduction, encode

log = structlog.get_logger()

INTRODUCE_PROTOCOL = "/swarm/introduce/1"
ACCEPTED_EVERY, SENT_EVERY = 60.0, 65.0
"""Seconds between two introductions of one peer to another: as a receiver takes them, and as a sender makes them."""
MAX_INTRODUCTIONS = 64
"""Introductions taken in `ACCEPTED_EVERY` seconds, of all peers together."""


class IntroductionRate:
    """Once in `seconds` for each peer, `most` times in `seconds` for all."""

    def __init__(self, seconds: float, most: int) -> None:
        self._seconds, self._most = seconds, most
        self._last: OrderedDict[str, float] = OrderedDict()

    def allows(self, peer: str, now: float) -> bool:
        """Return True if it is time again; it counts as done now."""
        while self._last and now - next(iter(self._last.values())) >= self._seconds:
            self._last.popitem(last=False)
        if peer in self._last or len(self._last) >= self._most:
            return False
        self._last[peer] = now
        return True


def introduced_by(peer: str, data: bytes, domain: Domain) -> NodeIntroduced:
    """Return what a peer says of itself.

    Raises `Malformed` with codes size, schema, session (no such RSA identity has bound it here) or node (the delegation
    is another node's).
    """
    message = decode_introduction(data)
    if isinstance(message, BoundDelegation):
        delegation = message.delegation
        own = _bound(message, domain) == peer
    else:
        delegation = message
        own = delegation.node == address_of_peer(peer)
    if not own:
        raise Malformed("node", f"{delegation.node} is not who sent it")
    return NodeIntroduced(delegation.node, delegation)


def _bound(message: BoundDelegation, domain: Domain) -> str:
    try:
        return bound_peer(message.session, domain, message.delegation.node)
    except ValueError as error:
        raise Malformed("session", str(error)) from error


class Introductions:
    """Receives introductions and sends this node's own. `count` gets a reason for each one received."""

    def __init__(
        self,
        host: Host,
        me: LocalPeer,
        introduction: Introduction,
        count: Callable[[str], None],
        report: Callable[[NodeIntroduced], Awaitable[None]],
    ) -> None:
        self._host, self._me, self._introduction = host, me, introduction
        self._count, self._report = count, report
        self._received = IntroductionRate(ACCEPTED_EVERY, MAX_INTRODUCTIONS)
        self._sent = IntroductionRate(SENT_EVERY, MAX_INTRODUCTIONS)
        host.serve(INTRODUCE_PROTOCOL, self._answer)

    async def _answer(self, peer: str, stream: INetStream) -> None:
        if not self._received.allows(peer, trio.current_time()):
            self._count("introduction-rate")
            return
        try:
            introduced = introduced_by(peer, await read_frame(stream, INTRODUCTION_LIMIT), self._me.domain)
        except Malformed as problem:
            self._count(f"introduction-{problem.code}")
            return
        self._count("introduction")
        await self._report(introduced)

    async def send(self, peers: set[str]) -> None:
        """Introduce this node to those of the peers to which it is time again."""
        message = self._introduction()
        if message is None:
            return
        session = self._me.statement
        data = encode(BoundDelegation(message, session) if session else message)
        for peer in sorted(peers):
            if self._sent.allows(peer, trio.current_time()):
                await self._send(peer, data)

    async def _send(self, peer: str, data: bytes) -> None:
        try:
            async with self._host.request(peer, INTRODUCE_PROTOCOL) as stream:
                await write_frame(stream, data)
        except StreamFault as fault:
            self._host.report_fault(peer, fault.code)
        except StreamLostError as error:
            log.debug("gossip.introduction_failed", peer=peer, reason=str(error))
