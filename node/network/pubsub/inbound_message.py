"""What the validator takes in and gives back."""

from __future__ import annotations

import msgspec

from node.machine.inputs import RolloutsAnnounced
from protocols.admission import REASONS, MessageAcceptance, Reason, Slot
from protocols.identifiers import Address
from protocols.wire import Announcement


class InboundMessage(msgspec.Struct, frozen=True):
    """An announcement as it came in.

    `origin` is the peer that published it, where that is known. `handle` is what the topic needs to forward it later,
    None where it did not come by gossip. `late` says that this node had to ask for it.
    """

    data: bytes
    origin: Address | None
    handle: object = None
    late: bool = False


class Author(msgspec.Struct, frozen=True):
    """Whose an announcement is: as the contract knows the peer, and as the network does."""

    address: Address
    peer_id: str


class AcceptedAnnouncement(msgspec.Struct, frozen=True):
    """An announcement that counts, as whose it counts, and the message that brought it."""

    peer: Address
    announcement: Announcement
    message: InboundMessage


class ValidationResult(msgspec.Struct, frozen=True):
    """What becomes of one announcement. `accepted` is set where it is accepted; `queued` where it waits for its stage;
    `slot` where it is one more body for a slot.

    The first proof of an equivocation is accepted with that reason, once for each slot. Everybody must learn of both
    bodies: a peer that shows one half of the swarm the first and the other half the second would be credited by both.
    """

    reason: Reason
    accepted: AcceptedAnnouncement | None = None
    queued: bool = False
    slot: Slot | None = None

    @property
    def is_useless(self) -> bool:
        """Whether it counts against its forwarder's limit of useless messages."""
        return not (self.accepted or self.queued) and REASONS[self.reason].counts_against == "forwarder"

    @property
    def acceptance(self) -> MessageAcceptance:
        """What GossipSub does with the message."""
        return MessageAcceptance.ACCEPT if self.accepted else REASONS[self.reason].acceptance


def rollouts_announced(accepted: AcceptedAnnouncement) -> RolloutsAnnounced:
    """Return the machine's input for another peer's announcement."""
    announcement = accepted.announcement
    return RolloutsAnnounced(
        accepted.peer,
        announcement.round,
        announcement.stage,
        announcement.body,
        announcement.size,
        bool(announcement.inline),
        announcement.relays,
        announcement.attached,
        accepted.message.late,
    )
