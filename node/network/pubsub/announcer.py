"""Builds and signs the announcements that commands ask for: the same bytes every time."""

from __future__ import annotations

from msgspec.structs import asdict

from node.identity.local_peer import LocalPeer
from node.machine.commands import FetchRollouts, PublishRollouts
from protocols.identifiers import Digest
from protocols.manifest import Limits
from protocols.session import SessionStatement
from protocols.signed_messages import MAX_ATTACHED, AttachedMessages, SignedMessage
from protocols.wire import (
    ENVELOPE_OVERHEAD,
    PROTOCOL_VERSION,
    Announcement,
    BoundAnnouncement,
    Envelope,
    encode,
    signing_hash,
)


def announcement_of(
    command: PublishRollouts | FetchRollouts,
    swarm: Digest,
    inline: bytes = b"",
    relays: bool = False,
    attached: AttachedMessages = (),
) -> Announcement:
    """Return the announcement that a command is about."""
    return Announcement(
        version=PROTOCOL_VERSION,
        swarm=swarm,
        round=command.round,
        stage=command.stage,
        seed=command.seed,
        body=command.body,
        size=command.size,
        inline=inline,
        relays=relays,
        attached=attached,
    )


def bound(announcement: Announcement, session: SessionStatement) -> BoundAnnouncement:
    """Return an announcement with what binds its key to an RSA identity."""
    return BoundAnnouncement(**asdict(announcement), session=session)


def sign_announcement(
    me: LocalPeer,
    swarm: Digest,
    limits: Limits,
    command: PublishRollouts,
    body: bytes,
    attached: tuple[SignedMessage, ...] = (),
) -> bytes:
    """Return the encoded envelope for a body, which travels inside where it is small. Signing is deterministic.

    Attached messages take precedence over an inline body, which can be fetched. Where they do not all fit, the last
    ones are left out.
    """
    room = limits.announcement - ENVELOPE_OVERHEAD - (len(encode(me.statement)) if me.statement else 0)
    attached = attached[:MAX_ATTACHED]
    while attached and len(encode(attached)) > room:
        attached = attached[:-1]
    inline = len(body) <= min(limits.inline, room - (len(encode(attached)) if attached else 0))
    announcement = announcement_of(command, swarm, body if inline else b"", command.relays, attached)
    payload = encode(bound(announcement, me.statement) if me.statement else announcement)
    return encode(Envelope(payload, me.key.sign(signing_hash(payload))))
