"""The validator of announcements: the memory around the pure rules of `protocols.admission`. No network here."""

from __future__ import annotations

from collections import Counter, deque
from typing import cast

import structlog

from node.identity import peer_id_of_public_key, recover
from node.identity.local_peer import address_at
from node.identity.rsa import bound_peer
from node.network.pubsub.early_queue import EarlyMessageQueue
from node.network.pubsub.inbound_message import AcceptedAnnouncement, Author, InboundMessage, ValidationResult
from node.ports.network import RoundWindow
from protocols.admission import Equivocation, Reason, Slot, check_announcement, slot_of
from protocols.identifiers import Address, Digest
from protocols.manifest import Limits
from protocols.typed_data import Domain
from protocols.wire import (
    PROTOCOL_VERSION,
    Announcement,
    BoundAnnouncement,
    Malformed,
    NewerVersion,
    decode_envelope,
    signing_hash,
)

log = structlog.get_logger()

MAX_EVIDENCE = 256


def author_of(announcement: Announcement, signer: Address, public: bytes, domain: Domain | None) -> Author:
    """Return whose an announcement is, by the key that signed it (64 bytes) and what binds that to an RSA identity.

    Raises ValueError where the key is not bound to the identity that the announcement names, or where no deployment
    is known for which it could be.
    """
    if not isinstance(announcement, BoundAnnouncement):
        return Author(signer, peer_id_of_public_key(public))
    if domain is None:
        raise ValueError("a session is bound at a deployment only")
    peer_id = bound_peer(announcement.session, domain, signer)
    return Author(address_at(domain, peer_id, signer), peer_id)


class AnnouncementValidator:
    """Validates the announcements of one swarm and remembers the accepted ones by slot.

    `domain` is the deployment for which sessions of RSA identities are bound. `counters` counts results by reason.
    """

    def __init__(self, swarm: Digest, limits: Limits, domain: Domain | None = None) -> None:
        self.counters: Counter[str] = Counter()
        self.evidence: deque[Equivocation] = deque(maxlen=MAX_EVIDENCE)
        self.window: RoundWindow | None = None
        self._swarm, self._limits, self._domain = swarm, limits, domain
        self._envelopes: dict[Slot, tuple[Digest, bytes]] = {}
        self._convicted: set[Slot] = set()
        self._peer_ids: dict[Address, str] = {}
        self._early = EarlyMessageQueue()
        self._newest_version = PROTOCOL_VERSION

    # --- validation ---------------------------------------------------------------------------------------------

    def validate(self, message: InboundMessage) -> ValidationResult:
        """Decide on one announcement, and remember it where it is accepted or queued. Every result is counted."""
        result = self._validate(message)
        self.counters[result.reason or "accepted"] += 1
        return result

    def _validate(self, message: InboundMessage) -> ValidationResult:
        try:
            envelope, announcement = decode_envelope(message.data, self._limits.announcement)
            signer, public = recover(signing_hash(envelope.payload), envelope.signature)
        except NewerVersion as newer:
            self._note_newer(newer)
            return ValidationResult("version")
        except Malformed as problem:
            return ValidationResult(cast(Reason, problem.code))
        except ValueError:
            return ValidationResult("signature")
        if self.window is None:
            return ValidationResult("swarm" if announcement.swarm != self._swarm else "no-window")
        try:
            author = author_of(announcement, signer, public, self._domain)
        except ValueError:
            return ValidationResult("session")
        return self._place(announcement, author, message, self.window)

    def _place(
        self, announcement: Announcement, author: Author, message: InboundMessage, window: RoundWindow
    ) -> ValidationResult:
        """Decide on an announcement whose author is known."""
        slot = slot_of(announcement, author.address)
        known = self.announced(slot)
        reason = check_announcement(announcement, author.address, message.origin, window, self._limits, known)
        accepted = AcceptedAnnouncement(author.address, announcement, message)
        if reason == "":
            self._envelopes[slot] = (announcement.body, message.data)
            self._peer_ids[author.address] = author.peer_id
            return ValidationResult("", accepted)
        if reason == "early":
            registered = slot.peer in window.peers
            return ValidationResult("early", queued=self._early.add(slot, message, registered=registered))
        if reason == "equivocation" and known is not None and slot not in self._convicted:
            self._convict(Equivocation(slot, known, announcement.body))
            return ValidationResult("equivocation", accepted)
        return ValidationResult(reason, slot=slot if reason == "equivocation" else None)

    def _note_newer(self, newer: NewerVersion) -> None:
        """Tell the operator once that a registered peer speaks a later version: this node has to be upgraded."""
        try:
            signer, _ = recover(signing_hash(newer.envelope.payload), newer.envelope.signature)
        except ValueError:
            return
        if self.window is not None and signer in self.window.peers and newer.version > self._newest_version:
            self._newest_version = newer.version
            log.warning("gossip.newer_version", peer=signer, version=newer.version, own=PROTOCOL_VERSION)

    def _convict(self, found: Equivocation) -> None:
        self._convicted.add(found.slot)
        self.evidence.append(found)
        log.warning(
            "gossip.equivocation",
            peer=found.slot.peer,
            round=found.slot.round,
            stage=found.slot.stage,
            first=found.first.hex(),
            second=found.second.hex(),
        )

    # --- the window ---------------------------------------------------------------------------------------------

    def move(self, window: RoundWindow) -> list[AcceptedAnnouncement]:
        """Take a new window: forget what lies behind it, validate early messages again, return what is accepted now."""
        self.window = window
        self._envelopes = {slot: kept for slot, kept in self._envelopes.items() if self.is_current(slot)}
        self._convicted = {slot for slot in self._convicted if slot in self._envelopes}
        self._peer_ids = {peer: peer_id for peer, peer_id in self._peer_ids.items() if peer in window.peers}
        results = [self.validate(message) for message in self._early.drain()]
        return [each.accepted for each in results if each.accepted]

    def is_current(self, slot: Slot) -> bool:
        """Return True if a slot's round is still accepted under its seed; every slot is before the first window."""
        window = self.window
        if window is None:
            return True
        return window.seeds.get(slot.round) == slot.seed and slot.round >= window.round - self._limits.rounds_kept

    # --- what is known ------------------------------------------------------------------------------------------

    def withdraw(self, accepted: AcceptedAnnouncement) -> None:
        """Forget an accepted announcement that the node had no room for, so that it may be learnt again."""
        slot = slot_of(accepted.announcement, accepted.peer)
        if self.announced(slot) == accepted.announcement.body:
            self._envelopes.pop(slot, None)
        self._convicted.discard(slot)
        self.counters["queue-full"] += 1

    def announced(self, slot: Slot) -> Digest | None:
        """Return the digest accepted for a slot."""
        known = self._envelopes.get(slot)
        return known[0] if known else None

    def inline(self, slot: Slot, body: Digest) -> bytes | None:
        """Return the body that came inside the announcement, if it did."""
        known = self._envelopes.get(slot)
        if known is None or known[0] != body:
            return None
        return decode_envelope(known[1], self._limits.announcement)[1].inline or None

    def peer_id(self, address: Address) -> str | None:
        """Return the peer id of a registered node that has announced something."""
        return self._peer_ids.get(address)

    def slots(self) -> list[Slot]:
        """Return the slots that are filled."""
        return list(self._envelopes)

    def envelope(self, slot: Slot) -> bytes | None:
        """Return the accepted announcement of a slot as it was sent."""
        known = self._envelopes.get(slot)
        return known[1] if known else None
