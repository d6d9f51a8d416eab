"""Announcements as commands ask for them: built and signed, the same bytes every time."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from msgspec.structs import asdict

from node.identity.local_peer import LocalPeer
from node.machine.commands import FetchRollouts, OwnMessage, PublishRollouts
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

Carry: TypeAlias = Callable[[tuple[OwnMessage, ...]], tuple[SignedMessage, ...]]
"""Gives the signed messages of commands; none for a command that may not be signed, or where nobody could bring it."""


def announcement_of(
    command: PublishRollouts | FetchRollouts,
    swarm: Digest,
    inline: bytes = b"",
    relays: bool = False,
    carried: AttachedMessages = (),
) -> Announcement:
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
        relays=relays,
        carried=carried,
    )


def bound(said: Announcement, session: SessionStatement) -> BoundAnnouncement:
    """Return an announcement with what binds its key to an RSA identity."""
    return BoundAnnouncement(**asdict(said), session=session)


def signed_announcement(
    me: LocalPeer,
    swarm: Digest,
    limits: Limits,
    command: PublishRollouts,
    body: bytes,
    carried: tuple[SignedMessage, ...] = (),
) -> bytes:
    """Return the encoded envelope for a body, which travels inside when it is small. Signing is deterministic.

    What is carried comes before an inline body: that can be fetched. Of what does not fit, the last is left out.
    """
    room = limits.announcement - ENVELOPE_OVERHEAD - (len(encode(me.statement)) if me.statement else 0)
    cargo = carried[:MAX_ATTACHED]
    while cargo and len(encode(cargo)) > room:
        cargo = cargo[:-1]
    small = len(body) <= min(limits.inline, room - (len(encode(cargo)) if cargo else 0))
    said = announcement_of(command, swarm, body if small else b"", command.relays, cargo)
    payload = encode(bound(said, me.statement) if me.statement else said)
    return encode(Envelope(payload, me.key.sign(signing_hash(payload))))
