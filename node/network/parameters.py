"""What a network service is made of, besides its settings: shared by the real one and the tests' fake."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, TypeAlias

from node.identity.local_peer import LocalPeer
from node.machine.commands import OwnMessage, PublishRollouts
from node.ports.bodies import CheckBody
from protocols.identifiers import Address, Digest
from protocols.manifest import Limits
from protocols.signed_messages import SignedDelegation, SignedMessage

AttachMessages: TypeAlias = Callable[[tuple[OwnMessage, ...]], tuple[SignedMessage, ...]]
"""Returns the signed messages of commands, to be attached to an announcement. A command that may not be signed, or
whose message nobody could submit, has none."""

AdmitAnnouncement: TypeAlias = Callable[[PublishRollouts, Digest | None], PublishRollouts | None]
"""Returns what may be signed for a stage, once that is on disk: the command, or the body announced before; None where
nothing may. The second argument is the body that peers have under this node's signature, if they have told of one."""

Introduction: TypeAlias = Callable[[], SignedDelegation | None]
"""Returns this node's delegation; None where it has none."""


class SwarmMember(NamedTuple):
    """Who takes part in which swarm. `ephemeral_peer_id`: under a made-up peer id until `switch_identity`.

    `manifest_digest` names the swarm's rules: peers with others are on another topic.
    """

    me: LocalPeer
    swarm: Digest
    limits: Limits
    ephemeral_peer_id: bool = False
    manifest_digest: bytes = b""


async def _no_bootnodes() -> Sequence[str]:
    return ()


class NetworkCallbacks(NamedTuple):
    """What a network service asks of the rest of the node.

    `check_body` runs in a thread. `bootnodes` may raise whatever the chain behind it does. Peers with a positive score
    may send more, and their bodies are fetched first.
    """

    check_body: CheckBody
    admit_announcement: AdmitAnnouncement
    bootnodes: Callable[[], Awaitable[Sequence[str]]] = _no_bootnodes
    attach_messages: AttachMessages = lambda commands: ()
    introduction: Introduction = lambda: None
    has_positive_score: Callable[[Address], bool] = lambda address: False
