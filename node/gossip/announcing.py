"""Announcements as commands ask for them: built and signed, the same bytes every time."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from node.identity import NodeKey
from node.machine.commands import FetchRollouts, OwnMessage, PublishRollouts
from protocols.carried import MAX_CARRIED, Cargo, Carried
from protocols.identifiers import Digest
from protocols.manifest import Limits
from protocols.wire import ENVELOPE_OVERHEAD, PROTOCOL_VERSION, Announcement, Envelope, encode, signing_hash

Carry: TypeAlias = Callable[[tuple[OwnMessage, ...]], tuple[Carried, ...]]
"""Gives the signed messages of commands; none for a command that may not be signed, or where nobody could bring it."""


def announcement_of(
    command: PublishRollouts | FetchRollouts,
    swarm: Digest,
    inline: bytes = b"",
    relays: bool = False,
    carried: Cargo = (),
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


def signed_announcement(
    key: NodeKey,
    swarm: Digest,
    limits: Limits,
    command: PublishRollouts,
    body: bytes,
    carried: tuple[Carried, ...] = (),
) -> bytes:
    """Return the encoded envelope for a body, which travels inside when it is small. Signing is deterministic.

    What is carried comes before an inline body: that can be fetched. Of what does not fit, the last is left out.
    """
    room = limits.announcement - ENVELOPE_OVERHEAD
    cargo = carried[:MAX_CARRIED]
    while cargo and len(encode(cargo)) > room:
        cargo = cargo[:-1]
    small = len(body) <= min(limits.inline, room - (len(encode(cargo)) if cargo else 0))
    payload = encode(announcement_of(command, swarm, body if small else b"", command.relays, cargo))
    return encode(Envelope(payload, key.sign(signing_hash(payload))))
