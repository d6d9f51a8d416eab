"""What becomes of announcements: judged against the window, remembered by slot, held until their time comes.

No network here. `AnnouncementValidator` is the memory around the pure rules of `protocols.admission`.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from typing import Any

import msgspec
import structlog

from node.identity import peer_id_of_public_key, recover
from node.identity.local_peer import address_at
from node.identity.rsa import bound_peer
from node.machine.inputs import RolloutsAnnounced
from node.ports import RoundWindow
from protocols.admission import Equivocation, Reason, Slot, admit, slot_of
from protocols.identifiers import Address, Digest
from protocols.manifest import Limits
from protocols.typed_data import Domain
from protocols.wire import Announcement, BoundAnnouncement, Malformed, decode_envelope, signing_hash

log = structlog.get_logger()

HELD_KNOWN, HELD_STRANGERS, HELD_PER_SLOT = 512, 64, 2
EVIDENCE_KEPT = 256
CULPABLE = frozenset({"size", "schema", "digest", "swarm", "session"})
"""Reasons for which the forwarder is to blame: an honest node, wherever its window stands, never sends these on."""
LAGGING = frozenset({"window", "early", "seed"})
"""Reasons that a node which lags, or follows another fork, gives itself: its neighbours send on what is right."""
ASKED = LAGGING | {"round", "unregistered", "next", "duplicate", "equivocation"}
"""Reasons for which an honest answer to this node's question comes to nothing: it lags, or has heard it since."""


class InboundMessage(msgspec.Struct, frozen=True):
    """An announcement as it came in. `carrier` is what the network needs to send it on, None where it can't; `late`
    says that this node had to ask for it."""

    data: bytes
    origin: Address | None
    carrier: Any = None
    late: bool = False


class Author(msgspec.Struct, frozen=True):
    """Whose an announcement is: as the contract knows the peer, and as the network does."""

    address: Address
    peer_id: str


class AcceptedAnnouncement(msgspec.Struct, frozen=True):
    """An announcement that counts, and as whose."""

    peer: Address
    said: Announcement
    heard: InboundMessage


class ValidationResult(msgspec.Struct, frozen=True):
    """The outcome for one announcement; `accepted` only where it is "accept".

    One that convicts its signer of an equivocation is accepted, once for each slot, with that reason: everybody must
    learn of both bodies, or a peer that shows one half of the swarm the first and the other half the second would be
    credited by both.
    """

    outcome: str
    reason: str
    accepted: AcceptedAnnouncement | None = None


def is_unwanted(judged: ValidationResult, heard: InboundMessage) -> bool:
    """Tell whether who brought an announcement is to be held to account for its number, if not for itself."""
    return judged.outcome == "drop" and judged.reason not in (ASKED if heard.late else LAGGING)


def speaker_of(said: Announcement, signer: Address, public: bytes, domain: Domain | None) -> Author:
    """Return whose an announcement is, by the key that signed it (64 bytes) and what binds that to an RSA identity.

    Raises ValueError where it is not bound to the one it names, or no deployment is known for which it could be.
    """
    if not isinstance(said, BoundAnnouncement):
        return Author(signer, peer_id_of_public_key(public))
    if domain is None:
        raise ValueError("a session is bound at a deployment only")
    peer_id = bound_peer(said.session, domain, signer)
    return Author(address_at(domain, peer_id, signer), peer_id)


class AnnouncementValidator:
    """Announcements of one swarm. `domain` is the deployment for which sessions of RSA identities are bound."""

    def __init__(self, swarm: Digest, limits: Limits, domain: Domain | None = None) -> None:
        self.counters: Counter[str] = Counter()
        self.evidence: deque[Equivocation] = deque(maxlen=EVIDENCE_KEPT)
        self.window: RoundWindow | None = None
        self._swarm, self._limits, self._domain = swarm, limits, domain
        self._envelopes: dict[Slot, tuple[Digest, bytes]] = {}
        self._convicted: set[Slot] = set()
        self._peer_ids: dict[Address, str] = {}
        self._held: OrderedDict[Slot, list[InboundMessage]] = OrderedDict()
        self._held_strangers: OrderedDict[Slot, list[InboundMessage]] = OrderedDict()

    # --- judging ------------------------------------------------------------------------------------------------

    def judge(self, heard: InboundMessage) -> ValidationResult:
        """Decide on one announcement and remember it where it is accepted or held. Every outcome is counted."""
        judged = self._judge(heard)
        self.counters[judged.reason or "accepted"] += 1
        return judged

    def _judge(self, heard: InboundMessage) -> ValidationResult:
        try:
            envelope, said = decode_envelope(heard.data, self._limits.announcement)
            signer, public = recover(signing_hash(envelope.payload), envelope.signature)
        except Malformed as problem:
            return ValidationResult("drop", problem.code)
        except ValueError:
            return ValidationResult("drop", "signature")
        if self.window is None:
            return ValidationResult("drop", "swarm" if said.swarm != self._swarm else "window")
        try:
            speaker = speaker_of(said, signer, public, self._domain)
        except ValueError:
            return ValidationResult("drop", "session")
        return self._place(said, speaker, heard, self.window)

    def _place(
        self, said: Announcement, speaker: Author, heard: InboundMessage, window: RoundWindow
    ) -> ValidationResult:
        """Decide on an announcement whose speaker is known."""
        slot = slot_of(said, speaker.address)
        known = self._envelopes.get(slot)
        admission = admit(said, speaker.address, heard.origin, window, self._limits, known[0] if known else None)
        if admission.outcome == "accept":
            return ValidationResult(
                "accept", "", self._remember(slot, speaker, AcceptedAnnouncement(speaker.address, said, heard))
            )
        if admission.outcome == "hold":
            return ValidationResult("hold" if self._hold(slot, heard) else "drop", admission.reason)
        if admission.reason == "equivocation" and known and slot not in self._convicted:
            self._convict(Equivocation(slot, known[0], said.body))
            return ValidationResult("accept", "equivocation", AcceptedAnnouncement(speaker.address, said, heard))
        return ValidationResult("drop", admission.reason)

    def _remember(self, slot: Slot, speaker: Author, accepted: AcceptedAnnouncement) -> AcceptedAnnouncement:
        self._envelopes[slot] = (accepted.said.body, accepted.heard.data)
        self._peer_ids[speaker.address] = speaker.peer_id
        return accepted

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

    def _hold(self, slot: Slot, heard: InboundMessage) -> bool:
        """Keep an announcement of the next stage. Strangers have a small place of their own: names cost nothing. So do
        seeds, which nobody can check before the round has begun: a peer has one place, whatever it says of them."""
        assert self.window is not None
        known = slot.peer in self.window.peers
        place, most = (self._held, HELD_KNOWN) if known else (self._held_strangers, HELD_STRANGERS)
        waiting = place.setdefault(msgspec.structs.replace(slot, seed=b""), [])
        if len(waiting) >= HELD_PER_SLOT or any(other.data == heard.data for other in waiting):
            return False
        waiting.append(heard)
        if len(place) > most:
            place.popitem(last=False)
        return True

    # --- the window ---------------------------------------------------------------------------------------------

    def move(self, window: RoundWindow) -> list[AcceptedAnnouncement]:
        """Take a new window: forget what lies behind it, judge again what was held, return what is accepted now."""
        self.window = window
        self._envelopes = {slot: kept for slot, kept in self._envelopes.items() if self.is_current(slot)}
        self._convicted = {slot for slot in self._convicted if slot in self._envelopes}
        self._peer_ids = {peer: name for peer, name in self._peer_ids.items() if peer in window.peers}
        held = [*self._held.values(), *self._held_strangers.values()]
        self._held.clear()
        self._held_strangers.clear()
        judged = [self.judge(heard) for waiting in held for heard in waiting]
        return [each.accepted for each in judged if each.accepted]

    def is_current(self, slot: Slot) -> bool:
        """Tell whether a slot's round is still accepted under its seed; anything is before the first window."""
        window = self.window
        if window is None:
            return True
        return window.seeds.get(slot.round) == slot.seed and slot.round >= window.round - self._limits.rounds_kept

    # --- what is known ------------------------------------------------------------------------------------------

    def forget(self, accepted: AcceptedAnnouncement) -> None:
        """Take an acceptance back, where the node could not take it in: it may be learnt again."""
        slot = slot_of(accepted.said, accepted.peer)
        if self.announced(slot) == accepted.said.body:
            self._envelopes.pop(slot, None)
        self._convicted.discard(slot)
        self.counters["queue"] += 1

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


def announced(accepted: AcceptedAnnouncement) -> RolloutsAnnounced:
    """Return what the machine is told of another peer's announcement."""
    said = accepted.said
    where = (accepted.peer, said.round, said.stage, said.body, said.size)
    return RolloutsAnnounced(*where, bool(said.inline), said.relays, said.carried, accepted.heard.late)


__all__ = [
    "CULPABLE",
    "AcceptedAnnouncement",
    "AnnouncementValidator",
    "InboundMessage",
    "Reason",
    "ValidationResult",
    "announced",
    "is_unwanted",
]
