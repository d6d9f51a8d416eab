"""Bodies by digest over streams: from the announcer, or from anyone who has it."""

from __future__ import annotations

from collections.abc import Callable

import structlog
import trio
from libp2p.abc import INetStream

from node.network.host import Host
from node.network.peers.request_backoff import RequestBackoff
from node.network.reqresp.answer_limit import AnswerLimiter
from node.network.reqresp.streams import (
    BODY_TIMEOUT,
    CHUNK,
    EOF,
    FRAME_SECONDS,
    TIMEOUT,
    StreamFault,
    StreamLostError,
    read_frame,
    write_frame,
)
from node.network.reqresp.upload_quota import UploadQuota
from node.ports.bodies import Bodies
from protocols.identifiers import Digest, body_digest

log = structlog.get_logger()

BODY_PROTOCOL = "/swarm/body/1"
MAX_ANSWERS, MAX_ANSWERS_PER_PEER = 16, 2
MIN_BYTES_PER_SECOND = 64 << 10
"""Speed at which a body must come, beyond `FRAME_SECONDS`: else a peer could send one byte a frame for ever."""
_ABSENT, _BUSY, _SIZE_BYTES = b"", b"busy", 8


class BodyExchange:
    """Serves this node's bodies and asks peers for theirs.

    A request is one frame with the digest. The answer is a frame with the size (8 bytes, big-endian), nothing or
    "busy", then the body in frames of at most 64 KiB. Who has drawn too much is answered "busy" as well.
    """

    def __init__(self, host: Host, bodies: Bodies, count: Callable[[str], None], quota: UploadQuota) -> None:
        self._host, self._bodies, self._count, self._quota = host, bodies, count, quota
        self._answers = AnswerLimiter(MAX_ANSWERS, MAX_ANSWERS_PER_PEER)
        self._backoff = RequestBackoff()
        host.serve(BODY_PROTOCOL, self._answer)

    async def _answer(self, peer: str, stream: INetStream) -> None:
        digest = await read_frame(stream, 32)
        with self._answers.acquire(peer) as acquired:
            body = self._bodies.get(digest) if acquired else None
            if acquired and self._quota.allows(peer, len(body or b""), trio.current_time()):
                await self._send(stream, body)
                return
        self._count("body-busy")
        await write_frame(stream, _BUSY)

    async def _send(self, stream: INetStream, body: bytes | None) -> None:
        if not body:
            await write_frame(stream, _ABSENT)
            return
        await write_frame(stream, len(body).to_bytes(_SIZE_BYTES, "big"))
        for start in range(0, len(body), CHUNK):
            await write_frame(stream, body[start : start + CHUNK])
        self._count("body-served")

    async def ask(self, peer: str, digest: Digest, size: int) -> bytes | None:
        """Return the body of exactly `size` bytes from a connected peer, or None where it has none (or no time).

        A peer that sends something else is penalised, but not one whose body has another size: then the announcement
        lied. A peer that timed out again and again is not asked while it is backing off.
        """
        if self._backoff.is_backing_off(peer, trio.current_time()):
            self._count("body-backoff")
            return None
        try:
            body = await self._request(peer, digest, size)
        except StreamFault as fault:
            self._host.report_fault(peer, fault.code)
            if fault.code in (TIMEOUT, BODY_TIMEOUT):
                self._backoff.record_timeout(peer, trio.current_time())
            return None
        except StreamLostError as error:
            log.debug("gossip.body_failed", peer=peer, reason=str(error))
            self._count("body-failed")
            return None
        self._backoff.record_answer(peer)
        if body is not None and body_digest(body) != digest:
            self._host.report_fault(peer, "stream-digest")
            return None
        return body

    async def _request(self, peer: str, digest: Digest, size: int) -> bytes | None:
        begun, fault = False, StreamFault(TIMEOUT)
        try:
            with trio.move_on_after(FRAME_SECONDS + size / MIN_BYTES_PER_SECOND):
                async with self._host.request(peer, BODY_PROTOCOL) as stream:
                    await write_frame(stream, digest)
                    head = await read_frame(stream, _SIZE_BYTES)
                    if head in (_ABSENT, _BUSY):
                        return None
                    begun = True
                    return await self._receive(stream, int.from_bytes(head, "big"), size)
        except StreamFault as found:
            fault = found
        raise StreamFault(BODY_TIMEOUT) if begun and fault.code == TIMEOUT else fault

    async def _receive(self, stream: INetStream, promised: int, size: int) -> bytes:
        if promised != size:
            raise StreamLostError("a body of another size is not the one that was announced")
        body = bytearray()
        while len(body) < size:
            part = await read_frame(stream, CHUNK)
            if not part:
                raise StreamFault(EOF)
            body += part
            if len(body) > size:
                raise StreamFault("stream-size")
        return bytes(body)
