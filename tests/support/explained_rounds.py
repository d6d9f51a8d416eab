"""A round of four peers, as the node kept it, and what outbox and chain have of it."""

from __future__ import annotations

from node.chain.transactions.tx_queue import QueuedTransaction
from node.explain.round_facts import Explanation, PeerActivity, Trace, explanation
from node.identity import NodeKey
from node.machine.commands import CommitVote, ReportReward, RevealVote
from node.machine.round_report import PeerRoundReport, RoundReport
from node.machine.state import BodyRecord, VoteRecord
from node.machine.transaction_keys import BaseKey
from protocols.identifiers import Address, body_digest
from protocols.signed_messages import MessageKind, MessageTopic
from protocols.tally import Voted

KEYS = [NodeKey(bytes([number]) * 32) for number in range(1, 5)]
ME, ADA, BOB, CYD = (key.address for key in KEYS)
PEER_IDS = {key.address: key.peer_id for key in KEYS}
OWNERS = {key.address: f"0x{number:02x}" + "aa" * 19 for number, key in enumerate(KEYS, 1)}
SEED = body_digest(b"seed")
NUMBER = 7
STAGES = ("answer", "critique", "resolve")


def arrived(groups: int, mean: float) -> BodyRecord:
    return BodyRecord(body_digest(bytes([groups])), 1234, "arrived", groups, groups * mean)


def refused(reason: str) -> BodyRecord:
    return BodyRecord(body_digest(reason.encode()), 99, "refused", reason=reason)


def entry(peer: Address, rank: int, score: float, *bodies: BodyRecord | None) -> PeerRoundReport:
    groups = sum(body.groups for body in bodies if body)
    return PeerRoundReport(
        peer, OWNERS[peer], 1, bodies, groups, score, rank, 3.5, PEER_IDS[peer] if peer != CYD else ""
    )


VOTE = VoteRecord(NUMBER, SEED, (ADA,), "done", ("0x" + "c0" * 32,))


def account(vote: VoteRecord | None = VOTE, no_vote: str = "") -> RoundReport:
    """Return round 7 of a debate: ada wins, bob was refused twice, of cyd nothing was heard."""
    return RoundReport(
        round=NUMBER, seed=SEED, me=ME, at=1_790_000_000.0, opened=1_789_999_980, game="debate", sealed=True, winners=1,
        minimum_groups=2, vote=vote, no_vote=no_vote,
        entries=(
            entry(ADA, 1, 0.55, arrived(4, 0.5), arrived(4, 0.65), arrived(4, 0.5)),
            entry(BOB, 2, 0.1, arrived(4, 0.3), refused("assignment"), refused("unavailable")),
            entry(ME, 0, 0.4, arrived(4, 0.5), arrived(4, 0.7), BodyRecord(bytes(32), 0, "refused", reason="nothing")),
            entry(CYD, 0, 0.0, None, None, None),
        ),
    )  # fmt: skip


def records() -> dict[BaseKey, QueuedTransaction]:
    """Return the outbox: the commitment was sent, the reveal brought by another node, one reward refused."""
    reward = ReportReward(NUMBER, 0, SEED, 0.5)
    commit, reveal = CommitVote(NUMBER, SEED, (ADA,)), RevealVote(NUMBER, SEED, (ADA,))
    sent, brought = "0x" + "c0" * 32, "0x" + "5e" * 32
    found = (
        QueuedTransaction(key=commit.key, command=commit, state="settled", ok=True, hashes=(sent,),
               transaction=sent, block=120),
        QueuedTransaction(key=reveal.key, command=reveal, state="settled", ok=True,
                          transaction=brought),
        QueuedTransaction(key=reward.key, command=reward,
                          state="settled", ok=False,
               error="WrongRound"),
    )  # fmt: skip
    return {record.key: record for record in found}


def seen() -> PeerActivity:
    """Return the chain: ada, who brought this node's reveal, and bob voted too; cyd is no voter."""
    return PeerActivity(
        traces={
            MessageTopic(MessageKind.COMMIT, NUMBER): Trace("0x" + "c0" * 32, 120, ME),
            MessageTopic(MessageKind.REVEAL, NUMBER): Trace("0x" + "5e" * 32, 131, ADA),
        },
        votes=(Voted(NUMBER, ME, (ADA,)), Voted(NUMBER, ADA, (ME,)), Voted(NUMBER, BOB, (ADA,))),
        owners=OWNERS,
    )


def explained(*, online: bool = True) -> Explanation:
    if online:
        return explanation(account(), STAGES, records(), seen(), PEER_IDS[ME])
    return explanation(account(), STAGES, records(), None, PEER_IDS[ME], "not known: no coordinator answers")
