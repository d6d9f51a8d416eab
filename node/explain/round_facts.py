"""The facts of a round for `swarm explain`: from the round report, the outbox and the chain. Pure.

`--json` prints these structs unchanged, so digests and seeds are hex and addresses come with names.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import msgspec

from node.chain.transactions.tx_queue import QueuedTransaction
from node.identity import name_of
from node.machine.round_report import PeerRoundReport, RoundReport
from node.machine.state import BodyRecord
from node.machine.transaction_keys import BaseKey, MessageKey
from protocols.identifiers import Address
from protocols.reasons import meaning_of
from protocols.signed_messages import MessageKind, MessageTopic
from protocols.tally import ONE_VOTE, Voted, leaders, tally

Outcome = Literal["accepted", "refused", "waiting", "fetching", "none"]
By = Literal["", "this node", "another node"]


class Named(msgspec.Struct, frozen=True, kw_only=True):
    """A node; `name` is empty if its peer id is not known, `owner` if its owner is not known."""

    address: Address
    name: str = ""
    owner: Address = ""


NameOf = Callable[[Address], Named]


class StageFact(msgspec.Struct, frozen=True, kw_only=True):
    """A peer's rollouts of one stage; the outcome is "none" if no announcement was received. `mean` is the mean over
    its accepted groups of their recomputed mean rewards; `digest` is hex, `size` in bytes. `reason` is a code, `why`
    its sentence; `used` is True if this node trained on them."""

    stage: str
    outcome: Outcome
    groups: int = 0
    mean: float = 0.0
    digest: str = ""
    size: int = 0
    reason: str = ""
    why: str = ""
    used: bool = False


class PeerFact(msgspec.Struct, frozen=True, kw_only=True):
    """A peer in the round. `rank` counts from 1; if it is 0, `unranked` says why. `peer_score`: see
    `node.machine.peer_score`."""

    node: Named
    peer_id: str
    since: int
    stages: tuple[StageFact, ...]
    groups: int
    score: float
    rank: int
    unranked: str
    peer_score: float
    voted_for: bool
    own: bool


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """A signed message of this node on its way to the chain: `what` is commit, reveal, vote or reward (of a
    `stage`).

    `block` is 0 and `sender` None if they are not known.
    """

    what: str
    stage: str = ""
    state: Literal["mined", "refused", "under way", "not sent"]
    transaction: str = ""
    block: int = 0
    by: By = ""
    sender: Named | None = None
    error: str = ""


class Weight(msgspec.Struct, frozen=True, kw_only=True):
    """The weight of a round's votes for a node, in votes."""

    node: Named
    votes: float
    leads: bool


class Tally(msgspec.Struct, frozen=True, kw_only=True):
    """The published tally: votes counted on chain, whether this node's is among them, weights under the owner cap."""

    votes: int
    own: bool
    weights: tuple[Weight, ...]


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """A round, explained. `at` is local time in Unix seconds; `offline` says why the chain was not read."""

    round: int
    seed: str
    game: str
    stages: tuple[str, ...]
    at: float
    me: Named
    winners: int
    minimum_groups: int
    peers: tuple[PeerFact, ...]
    silent: int
    refused: dict[str, int]
    vote: str
    voted_for: tuple[Named, ...]
    no_vote: str
    deliveries: tuple[Delivery, ...]
    tally: Tally | None = None
    offline: str = ""


class Trace(msgspec.Struct, frozen=True):
    """Where a message is on chain."""

    transaction: str
    block: int
    sender: Address = ""


class PeerActivity(msgspec.Struct, frozen=True, kw_only=True):
    """The round on chain. `traces`: where this node's messages are, by topic; `votes`: every counted one of the round;
    `owners`: of the nodes that voted or were voted for."""

    traces: Mapping[MessageTopic, Trace] = {}
    votes: tuple[Voted, ...] = ()
    owners: Mapping[Address, Address] = {}


def explanation(
    report: RoundReport,
    stages: Sequence[str],
    records: Mapping[BaseKey, QueuedTransaction],
    seen: PeerActivity | None,
    own_peer_id: str,
    offline: str = "",
) -> Explanation:
    """Return the facts. `records` are the outbox's by key, `stages` the stages' names. Without `seen`, the chain's part
    is missing for the reason in `offline`."""
    ids = {entry.peer: entry.peer_id for entry in report.entries} | {report.me: own_peer_id}
    owners = {entry.peer: entry.owner for entry in report.entries} | dict(seen.owners if seen else {})

    def named(address: Address) -> Named:
        peer_id = ids.get(address, "")
        return Named(address=address, name=name_of(peer_id) if peer_id else "", owner=owners.get(address, ""))

    vote = report.vote
    chosen = vote.winners if vote else ()
    peers = tuple(
        _peer(report, entry, stages, named(entry.peer), ids[entry.peer], entry.peer in chosen)
        for entry in report.entries
    )
    return Explanation(
        round=report.round,
        seed=report.seed.hex(),
        game=report.game,
        stages=tuple(stages),
        at=report.at,
        me=named(report.me),
        winners=report.winners,
        minimum_groups=report.minimum_groups,
        peers=peers,
        silent=report.silent,
        refused=dict(Counter(stage.reason for peer in peers for stage in peer.stages if stage.reason)),
        vote=vote.phase if vote else "",
        voted_for=tuple(named(winner) for winner in chosen),
        no_vote=report.no_vote,
        deliveries=tuple(
            msgspec.structs.replace(
                _delivery(
                    each.what,
                    records.get(each.key),
                    seen.traces.get(each.key.topic) if seen else None,
                    report.me,
                    named,
                ),
                stage=each.stage,
            )
            for each in messages(report, stages)
        ),
        tally=_tally(seen, report.me, named) if seen else None,
        offline=offline,
    )


class OnChainMessage(msgspec.Struct, frozen=True):
    """A message that this node sends to the chain for a round, and its key in the outbox."""

    what: str
    key: MessageKey
    stage: str = ""


def messages(report: RoundReport, stages: Sequence[str]) -> list[OnChainMessage]:
    """Return this node's messages to the chain for a round: its vote, and a reward for each stage played."""
    sealed, number = report.sealed, report.round
    kinds = (MessageKind.COMMIT, MessageKind.REVEAL) if sealed else (MessageKind.VOTE,)
    ballots = kinds if report.vote is not None else ()
    own = next((entry.bodies for entry in report.entries if entry.peer == report.me), ())
    played = [number for number, body in enumerate(own) if body is not None and body.groups]
    return [
        *(OnChainMessage(kind, MessageKey(MessageTopic(kind, number), report.seed)) for kind in ballots),
        *(
            OnChainMessage("reward", MessageKey(MessageTopic(MessageKind.REWARD, number, at)), stages[at])
            for at in played
        ),
    ]


def _peer(
    report: RoundReport, entry: PeerRoundReport, stages: Sequence[str], node: Named, peer_id: str, voted_for: bool
) -> PeerFact:
    return PeerFact(
        node=node,
        peer_id=peer_id,
        since=entry.since,
        stages=tuple(_stage(name, body) for name, body in zip(stages, entry.bodies, strict=True)),
        groups=entry.groups,
        score=entry.score,
        rank=entry.rank,
        peer_score=entry.peer_score,
        unranked="" if entry.rank else _unranked(report, entry),
        voted_for=voted_for,
        own=entry.peer == report.me,
    )


def _stage(name: str, body: BodyRecord | None) -> StageFact:
    if body is None:
        return StageFact(stage=name, outcome="none")
    why = meaning_of(body.reason) if body.reason else ""
    if body.state == "arrived":
        mean = body.reward / body.groups if body.groups else 0.0
        return StageFact(
            stage=name,
            outcome="accepted",
            groups=body.groups,
            mean=mean,
            digest=body.digest.hex(),
            size=body.size,
            reason=body.reason,
            why=why,
            used=body.used,
        )
    return StageFact(
        stage=name, outcome=body.state, digest=body.digest.hex(), size=body.size, reason=body.reason, why=why
    )


def _unranked(report: RoundReport, entry: PeerRoundReport) -> str:
    """Return why a peer can't be voted for."""
    if entry.peer == report.me:
        return "nobody votes for itself"
    if not any(body is not None for body in entry.bodies):
        return "no announcement was received"
    if not entry.groups:
        return "no rollouts were accepted"
    if entry.groups < report.minimum_groups:
        return f"{entry.groups} of at least {report.minimum_groups} groups"
    if not entry.score:
        return "no reward above zero"
    return f"graylisted: its peer score is {entry.peer_score:g}"


def _delivery(what: str, record: QueuedTransaction | None, trace: Trace | None, me: Address, named: NameOf) -> Delivery:
    if trace is not None:
        by: By = "" if not trace.sender else "this node" if trace.sender == me else "another node"
        sender = named(trace.sender) if trace.sender else None
        return Delivery(
            what=what, state="mined", transaction=trace.transaction, block=trace.block, by=by, sender=sender
        )
    if record is None:
        return Delivery(what=what, state="not sent")
    if record.state != "settled":
        return Delivery(what=what, state="under way", transaction=record.hashes[-1] if record.hashes else "")
    state: Literal["mined", "refused"] = "mined" if record.ok else "refused"
    by = "" if not record.transaction else "this node" if record.transaction in record.hashes else "another node"
    return Delivery(
        what=what, state=state, transaction=record.transaction, block=record.block, by=by, error=record.error
    )


def _tally(seen: PeerActivity, me: Address, named: NameOf) -> Tally:
    weights = tally(seen.votes, seen.owners)
    lead = leaders(weights)
    return Tally(
        votes=len({vote.voter for vote in seen.votes}),
        own=any(vote.voter == me for vote in seen.votes),
        weights=tuple(
            Weight(node=named(node), votes=weight / ONE_VOTE, leads=node in lead)
            for node, weight in sorted(weights.items(), key=lambda pair: (-pair[1], pair[0]))
        ),
    )
