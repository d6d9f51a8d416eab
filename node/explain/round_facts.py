"""The facts of a round as `swarm explain` tells them: from the kept account, the outbox and the chain. Pure.

Digests and seeds are hex here, addresses have their names beside them: `--json` prints these structs as they are.
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
from node.machine.transaction_keys import Key, MessageKey
from protocols.identifiers import Address
from protocols.reasons import meaning_of
from protocols.signed_messages import MessageKind, MessageTopic
from protocols.tally import ONE_VOTE, Voted, leaders, tally

Outcome = Literal["accepted", "refused", "waiting", "fetching", "none"]
By = Literal["", "this node", "another node"]


class Named(msgspec.Struct, frozen=True, kw_only=True):
    """A node; `name` is empty where its peer id is not known, `owner` where its owner is not."""

    address: Address
    name: str = ""
    owner: Address = ""


NameOf = Callable[[Address], Named]


class StageFact(msgspec.Struct, frozen=True, kw_only=True):
    """A peer's rollouts of one stage: "none" where no announcement was heard. `mean` is that of its accepted groups'
    recomputed mean rewards; `digest` is hex, `size` in bytes. `reason` is a code, `why` its sentence;
    `used` tells that this node trained on them."""

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
    """A peer in the round. `rank` counts from 1; where it is 0, `unranked` says why. `standing`: see
    `node.machine.peer_score`."""

    node: Named
    peer_id: str
    since: int
    stages: tuple[StageFact, ...]
    groups: int
    score: float
    rank: int
    unranked: str
    standing: float
    voted_for: bool
    own: bool


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """A signed message of this node on its way to the chain: `what` is commit, reveal, vote or reward (of a
    `stage`).

    `block` is 0 and `sender` None where they are not known.
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
    """What the counted votes of a round weigh for a node, in votes."""

    node: Named
    votes: float
    leads: bool


class Tally(msgspec.Struct, frozen=True, kw_only=True):
    """The published tally: votes counted on chain, whether this node's is among them, weights under the owner cap."""

    votes: int
    own: bool
    weights: tuple[Weight, ...]


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """A round, explained. `at` is local time in Unix seconds; `offline` says why the chain was not asked."""

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
    """Where a message stands on the chain."""

    transaction: str
    block: int
    sender: Address = ""


class PeerActivity(msgspec.Struct, frozen=True, kw_only=True):
    """What the chain says. `traces`: where this node's messages stand, by what they are about; `votes`: every counted
    one of the round; `owners`: of those who voted or were voted for."""

    traces: Mapping[MessageTopic, Trace] = {}
    votes: tuple[Voted, ...] = ()
    owners: Mapping[Address, Address] = {}


def explanation(
    account: RoundReport,
    stages: Sequence[str],
    records: Mapping[Key, QueuedTransaction],
    seen: PeerActivity | None,
    own_peer_id: str,
    offline: str = "",
) -> Explanation:
    """Return the facts. `records` are the outbox's by key, `stages` the stages' names; without `seen` the chain's part
    is missing for the reason `offline`."""
    ids = {entry.peer: entry.peer_id for entry in account.entries} | {account.me: own_peer_id}
    owners = {entry.peer: entry.owner for entry in account.entries} | dict(seen.owners if seen else {})

    def named(address: Address) -> Named:
        peer_id = ids.get(address, "")
        return Named(address=address, name=name_of(peer_id) if peer_id else "", owner=owners.get(address, ""))

    vote = account.vote
    chosen = vote.winners if vote else ()
    peers = tuple(
        _peer(account, entry, stages, named(entry.peer), ids[entry.peer], entry.peer in chosen)
        for entry in account.entries
    )
    return Explanation(
        round=account.round,
        seed=account.seed.hex(),
        game=account.game,
        stages=tuple(stages),
        at=account.at,
        me=named(account.me),
        winners=account.winners,
        minimum_groups=account.minimum_groups,
        peers=peers,
        silent=account.silent,
        refused=dict(Counter(stage.reason for peer in peers for stage in peer.stages if stage.reason)),
        vote=vote.phase if vote else "",
        voted_for=tuple(named(winner) for winner in chosen),
        no_vote=account.no_vote,
        deliveries=tuple(
            msgspec.structs.replace(
                _delivery(
                    each.what,
                    records.get(each.key),
                    seen.traces.get(each.key.topic) if seen else None,
                    account.me,
                    named,
                ),
                stage=each.stage,
            )
            for each in messages(account, stages)
        ),
        tally=_tally(seen, account.me, named) if seen else None,
        offline=offline,
    )


class OnChainMessage(msgspec.Struct, frozen=True):
    """What of this node goes on chain for a round, and its key in the outbox."""

    what: str
    key: MessageKey
    stage: str = ""


def messages(account: RoundReport, stages: Sequence[str]) -> list[OnChainMessage]:
    """Return what of this node goes on chain for a round: its vote, a reward for each stage played."""
    sealed, number = account.sealed, account.round
    kinds = (MessageKind.COMMIT, MessageKind.REVEAL) if sealed else (MessageKind.VOTE,)
    ballots = kinds if account.vote is not None else ()
    own = next((entry.bodies for entry in account.entries if entry.peer == account.me), ())
    played = [number for number, body in enumerate(own) if body is not None and body.groups]
    return [
        *(OnChainMessage(kind, MessageKey(MessageTopic(kind, number), account.seed)) for kind in ballots),
        *(
            OnChainMessage("reward", MessageKey(MessageTopic(MessageKind.REWARD, number, at)), stages[at])
            for at in played
        ),
    ]


def _peer(
    account: RoundReport, entry: PeerRoundReport, stages: Sequence[str], node: Named, peer_id: str, voted_for: bool
) -> PeerFact:
    return PeerFact(
        node=node,
        peer_id=peer_id,
        since=entry.since,
        stages=tuple(_stage(name, body) for name, body in zip(stages, entry.bodies, strict=True)),
        groups=entry.groups,
        score=entry.score,
        rank=entry.rank,
        standing=entry.standing,
        unranked="" if entry.rank else _unranked(account, entry),
        voted_for=voted_for,
        own=entry.peer == account.me,
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


def _unranked(account: RoundReport, entry: PeerRoundReport) -> str:
    """Return why a peer can't be voted for."""
    if entry.peer == account.me:
        return "nobody votes for itself"
    if not any(body is not None for body in entry.bodies):
        return "nothing was heard of it"
    if not entry.groups:
        return "no rollouts were accepted"
    if entry.groups < account.minimum_groups:
        return f"{entry.groups} of at least {account.minimum_groups} groups"
    if not entry.score:
        return "no reward above zero"
    return f"shunned: its standing is {entry.standing:g}"


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
