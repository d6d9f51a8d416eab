"""Announcements that gossip did not bring: a peer is told which slots are known and answers with the others."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Collection, Iterator
from functools import partial
from itertools import islice

import msgspec
import structlog
import trio
from libp2p.abc import INetStream

from node.network.host import Host
from node.network.pubsub.validator import AnnouncementValidator
from node.network.reqresp.answer_limit import AnswerLimiter
from node.network.reqresp.streams import StreamFault, StreamLostError, read_frame, write_frame
from node.network.reqresp.upload_quota import UploadQuota
from protocols.admission import Slot

log = structlog.get_logger()

CATCHUP_PROTOCOL = "/swarm/announcements/1"
CATCHUP_SECONDS = 15.0
TAG_BYTES = 12
MAX_TAGS = 8192
"""Slots that a request names at most, and announcements that an answer holds."""
ANSWER_LIMIT = 4 << 20
MAX_ANSWERS = 16
"""Answers written at a time, one for each peer: an answer may have 4 MiB, and costs a hash for each slot."""
ANSWER_SECONDS = 20.0
"""After that the next peer is asked; what has come is kept. A slow one would otherwise be the only one asked."""


def slot_tag(slot: Slot) -> bytes:
    """Return the short name of a slot in requests: 12 bytes of BLAKE2b."""
    return hashlib.blake2b(msgspec.msgpack.encode(slot), digest_size=TAG_BYTES).digest()


class CatchUp:
    """Serves this node's accepted announcements and asks peers for what is missing here."""

    def __init__(self, host: Host, validator: AnnouncementValidator, envelope_limit: int, quota: UploadQuota) -> None:
        self._host, self._validator, self._limit, self._quota = host, validator, envelope_limit, quota
        self._answers = AnswerLimiter(MAX_ANSWERS, 1)
        host.serve(CATCHUP_PROTOCOL, self._answer)

    async def run(self, subscribers: Callable[[], set[str]], take: Callable[[str, bytes], None]) -> None:
        """Ask each new subscriber once, then a random one now and then, until cancelled.

        `take` is called with the peer and each announcement as it comes in. Nothing is asked before the first window.
        """
        asked: set[str] = set()
        last = trio.current_time()
        while True:
            await trio.sleep(0.5)
            present = subscribers()
            asked &= present
            fresh = present - asked
            due = bool(fresh) or trio.current_time() - last >= CATCHUP_SECONDS
            if self._validator.window is None or not present or not due:
                continue
            peer = random.choice(sorted(fresh or present))
            asked.add(peer)
            last = trio.current_time()
            await self.ask(peer, partial(take, peer))

    async def _answer(self, peer: str, stream: INetStream) -> None:
        tags = await read_frame(stream, TAG_BYTES * MAX_TAGS)
        with self._answers.acquire(peer) as acquired:
            if acquired:
                await self._send(peer, stream, tags)
                return
        await write_frame(stream, b"")

    async def _send(self, peer: str, stream: INetStream, tags: bytes) -> None:
        known = {tags[start : start + TAG_BYTES] for start in range(0, len(tags), TAG_BYTES)}
        budget = ANSWER_LIMIT
        for envelope in islice(self._missing(known), MAX_TAGS):
            budget -= len(envelope)
            if budget < 0 or not self._quota.allows(peer, len(envelope), trio.current_time()):
                break
            await write_frame(stream, envelope)
        await write_frame(stream, b"")

    def _missing(self, known: Collection[bytes]) -> Iterator[bytes]:
        """Yield the announcements of slots whose tags are not among the known ones."""
        for slot in self._validator.slots():
            envelope = self._validator.envelope(slot)
            if envelope is not None and slot_tag(slot) not in known:
                yield envelope

    async def ask(self, peer: str, take: Callable[[bytes], None]) -> None:
        """Ask a connected peer; `take` is called with each announcement as it comes in."""
        tags = b"".join(slot_tag(slot) for slot in self._validator.slots()[:MAX_TAGS])
        try:
            with trio.move_on_after(ANSWER_SECONDS):
                async with self._host.request(peer, CATCHUP_PROTOCOL) as stream:
                    await write_frame(stream, tags)
                    await self._receive(stream, take)
        except StreamFault as fault:
            self._host.report_fault(peer, fault.code)
        except StreamLostError as error:
            log.debug("gossip.catchup_failed", peer=peer, reason=str(error))

    async def _receive(self, stream: INetStream, take: Callable[[bytes], None]) -> None:
        budget = ANSWER_LIMIT
        for _ in range(MAX_TAGS):
            envelope = await read_frame(stream, self._limit)
            budget -= len(envelope)
            if budget < 0:
                raise StreamFault("stream-size")
            if not envelope:
                return
            take(envelope)
