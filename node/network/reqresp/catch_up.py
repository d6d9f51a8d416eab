"""Announcements that gossip did not bring: a peer is told which slots are known and answers with the others."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator
from itertools import islice

import msgspec
import structlog
import trio
from libp2p.abc import INetStream

from node.network.host import Host
from node.network.pubsub.validator import AnnouncementValidator
from node.network.reqresp.answer_limit import AnswerLimiter
from node.network.reqresp.streams import StreamFault, read_frame, write_frame
from protocols.admission import Slot

log = structlog.get_logger()

CATCHUP_PROTOCOL = "/swarm/announcements/1"
TAG_BYTES = 12
MOST_TAGS = 8192
"""Slots that a request names at most, and announcements that an answer holds."""
ANSWER_LIMIT = 4 << 20
SERVED_AT_ONCE = 16
"""Answers under way at a time, one for each peer: an answer may have 4 MiB, and costs a hash for each slot."""
ANSWER_SECONDS = 20.0
"""After that the next peer is asked; what has come is kept. One that drips would otherwise be the only one asked."""


def slot_tag(slot: Slot) -> bytes:
    """Return the short name of a slot in requests: 12 bytes of BLAKE2b."""
    return hashlib.blake2b(msgspec.msgpack.encode(slot), digest_size=TAG_BYTES).digest()


class CatchUp:
    """Serves this node's accepted announcements and asks peers for what is missing here."""

    def __init__(self, host: Host, intake: AnnouncementValidator, envelope_limit: int) -> None:
        self._host, self._intake, self._limit = host, intake, envelope_limit
        self._servings = AnswerLimiter(SERVED_AT_ONCE, 1)
        host.serve(CATCHUP_PROTOCOL, self._answer)

    async def _answer(self, peer: str, stream: INetStream) -> None:
        tags = await read_frame(stream, TAG_BYTES * MOST_TAGS)
        with self._servings.begin(peer) as begun:
            if begun:
                await self._send(stream, tags)
                return
        await write_frame(stream, b"")

    async def _send(self, stream: INetStream, tags: bytes) -> None:
        known = {tags[start : start + TAG_BYTES] for start in range(0, len(tags), TAG_BYTES)}
        budget = ANSWER_LIMIT
        for envelope in islice(self._lacking(known), MOST_TAGS):
            budget -= len(envelope)
            if budget < 0:
                break
            await write_frame(stream, envelope)
        await write_frame(stream, b"")

    def _lacking(self, known: Collection[bytes]) -> Iterator[bytes]:
        """Yield the announcements of slots that are not known by their tags."""
        for slot in self._intake.slots():
            envelope = self._intake.envelope(slot)
            if envelope is not None and slot_tag(slot) not in known:
                yield envelope

    async def ask(self, peer: str, take: Callable[[bytes], None]) -> None:
        """Ask a connected peer; `take` is called with each announcement as it comes in."""
        tags = b"".join(slot_tag(slot) for slot in self._intake.slots()[:MOST_TAGS])
        try:
            with trio.move_on_after(ANSWER_SECONDS):
                async with self._host.request(peer, CATCHUP_PROTOCOL) as stream:
                    await write_frame(stream, tags)
                    await self._receive(stream, take)
        except StreamFault as fault:
            self._host.blame(peer, fault.code)
        except Exception as error:  # noqa: BLE001 - the stream fails with anything from reset to crypto errors
            log.debug("gossip.catchup_failed", peer=peer, error=type(error).__name__)

    async def _receive(self, stream: INetStream, take: Callable[[bytes], None]) -> None:
        budget = ANSWER_LIMIT
        for _ in range(MOST_TAGS):
            envelope = await read_frame(stream, self._limit)
            budget -= len(envelope)
            if budget < 0:
                raise StreamFault("stream-size")
            if not envelope:
                return
            take(envelope)
