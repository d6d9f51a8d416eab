"""Announcements as commands ask for them: built and signed, the same bytes every time."""

from __future__ import annotations

from node.identity import NodeKey
from node.machine.commands import FetchRollouts, PublishRollouts
from protocols.identifiers import Digest
from protocols.manifest import Limits
from protocols.wire import ENVELOPE_OVERHEAD, PROTOCOL_VERSION, Announcement, Envelope, encode, signing_hash


def announcement_of(command: PublishRollouts | FetchRollouts, swarm: Digest, inline: bytes = b"") -> Announcement:
    """Return the announcement that a command speaks of."""
    return Announcement(
        version=PROTOCOL_VERSION,
        swarm=swarm,
        round=command.round,
        stage=command.stage,
        seed=command.seed,
        body=command.body,
        size=command.size,
        inline=inline,
    )


def signed_announcement(key: NodeKey, swarm: Digest, limits: Limits, command: PublishRollouts, body: bytes) -> bytes:
    """Return the encoded envelope for a body, which travels inside when it is small. Signing is deterministic."""
    small = len(body) <= min(limits.inline, limits.announcement - ENVELOPE_OVERHEAD)
    payload = encode(announcement_of(command, swarm, body if small else b""))
    return encode(Envelope(payload, key.sign(signing_hash(payload))))
