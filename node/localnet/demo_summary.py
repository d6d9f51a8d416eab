"""The results of a demo: from the last snapshot to numbers, a table and JSON. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from node.localnet.demo_plan import FIRST_ROUND, DemoPlan
from node.localnet.demo_watch import SeenVote, Sighting, Snapshot
from node.machine.status import CurvePoint, RewardPoint, Status
from node.trainer.evaluation import Evaluation

COMPARED_SHARE = 4
"""The first and last quarter of the rounds are compared: one round has few questions, and some are harder."""


class PeerSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One node. Accuracies are shares of right samples in [0, 1]; groups are those that were trained on."""

    number: int
    name: str
    address: str
    before: float
    after: float
    reward: float
    rounds: int
    updates: int
    own: int
    external: int
    votes: int
    skipped: int
    skips: tuple[str, ...]
    curve: tuple[CurvePoint, ...]
    rewards: tuple[RewardPoint, ...]

    @property
    def gain(self) -> float:
        """Gain in accuracy, in points."""
        return 100 * (self.after - self.before)


class StageSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One stage of the game over all peers: mean reward, and share of completions that end in the right answer, in the
    first and in the last rounds. `answers` is True if the stage asks for an answer.

    `held_out` is the share of right answers to the held-out questions, if the game was played on them at the end.
    """

    name: str
    answers: bool
    before: float
    after: float
    right_before: float
    right_after: float
    held_out: float | None = None


class DemoSummary(msgspec.Struct, frozen=True, kw_only=True):
    """All results of a demo, as written to JSON. Seconds are wall-clock time, memory is the peak in bytes."""

    seed: int
    model: str
    data: str
    held_out: int
    last_round: int
    before: float
    after: float
    gain: float
    own: int
    external: int
    external_share: float
    seconds: float
    memory_peak: int
    contract: str
    game: str
    stages: tuple[StageSummary, ...]
    peers: tuple[PeerSummary, ...]
    votes: tuple[SeenVote, ...]


def summed_up(
    plan: DemoPlan, snapshot: Snapshot, *, seconds: float, contract: str, self_played: Sequence[Evaluation] = ()
) -> DemoSummary:
    """Return the summary of a finished demo; `self_played` has each peer's results of self-play over all stages."""
    peers = tuple(_peer(seen, snapshot) for seen in snapshot.sightings)
    own, external = sum(peer.own for peer in peers), sum(peer.external for peer in peers)
    before, after = _mean([peer.before for peer in peers]), _mean([peer.after for peer in peers])
    return DemoSummary(
        seed=plan.seed,
        model=plan.model or "builtin",
        data=plan.manifest.data.source,
        held_out=plan.manifest.data.held_out,
        last_round=plan.last_round,
        before=before,
        after=after,
        gain=100 * (after - before),
        own=own,
        external=external,
        external_share=external / (own + external) if own + external else 0.0,
        seconds=seconds,
        memory_peak=snapshot.memory_peak,
        contract=contract,
        game=plan.manifest.game.name,
        stages=tuple(_stage(plan, number, peers, self_played) for number in range(len(plan.manifest.stages))),
        peers=peers,
        votes=snapshot.votes,
    )


def measured(status: Status | None, last_round: int) -> bool:
    """Return True if a node has measured its accuracy after the last round."""
    return status is not None and bool(status.curve) and status.curve[-1].round > last_round


def finished(plan: DemoPlan, snapshot: Snapshot) -> bool:
    """Return True if the demo is over: every node is measured, or the time to wait for the rest has passed."""
    if snapshot.round <= plan.last_round:
        return False
    everybody = all(measured(seen.status, plan.last_round) for seen in snapshot.sightings)
    return everybody or snapshot.round > plan.last_round + 2


def table(summary: DemoSummary) -> list[list[str]]:
    """Return the final table: a header, a row per peer, and the mean."""
    head = ["peer", "name", "before", "after", "gain", "own", "external", "updates", "votes", "skipped"]
    lines = [
        [
            str(peer.number), peer.name, percent(peer.before), percent(peer.after), f"{peer.gain:+.1f}",
            str(peer.own), str(peer.external), str(peer.updates), str(peer.votes), str(peer.skipped),
        ]
        for peer in summary.peers
    ]  # fmt: skip
    mean = ["", "mean", percent(summary.before), percent(summary.after), f"{summary.gain:+.1f}"]
    return [head, *lines, [*mean, str(summary.own), str(summary.external), "", str(len(summary.votes)), ""]]


def remarks(summary: DemoSummary) -> list[str]:
    """Return the lines of text below the table."""
    first, last = summary.before, summary.after
    return [
        f"Held-out accuracy, sampled at temperature 1 ({summary.held_out} questions a peer): "
        f"{percent(first)} before, {percent(last)} after, {summary.gain:+.1f} points.",
        f"Trained on {summary.own} own groups and {summary.external} of other peers: "
        f"{percent(summary.external_share)} were external.",
        f"{len(summary.votes)} votes on contract {summary.contract}. "
        f"{summary.seconds:.0f} s, at most {summary.memory_peak / 2**20:.0f} MiB of memory for all processes.",
    ]


def stage_table(summary: DemoSummary) -> list[list[str]]:
    """Return a header and a row per stage of the game."""
    head = ["stage", "reward before", "after", "right before", "after"]
    lines = [
        [
            stage.name, f"{stage.before:.3f}", f"{stage.after:.3f}",
            percent(stage.right_before) if stage.answers else "", percent(stage.right_after) if stage.answers else "",
        ]
        for stage in summary.stages
    ]  # fmt: skip
    return [head, *lines]


def answer_remark(summary: DemoSummary) -> str:
    """Return a sentence that compares final answers with first ones, "" if that was not measured."""
    asked = [(stage.name, stage.held_out) for stage in summary.stages if stage.held_out is not None]
    if len(asked) < 2:
        return ""
    (first, before), (last, after) = asked[0], asked[-1]
    return (
        f"Self-play on the held-out questions: {percent(before)} of first answers "
        f"({first}) are right and {percent(after)} of final ones ({last}), {100 * (after - before):+.1f} points."
    )


def vote_lines(summary: DemoSummary, most: int) -> list[str]:
    """Return the last `most` votes with their transactions, one per line, with names instead of addresses."""
    names = {peer.address: peer.name for peer in summary.peers}
    shown = summary.votes[-most:] if most else ()
    return [
        f"round {vote.round}: {names.get(vote.voter, vote.voter)} for "
        f"{', '.join(names.get(winner, winner) for winner in vote.winners)}  {vote.transaction}"
        for vote in shown
    ]


def skip_lines(summary: DemoSummary) -> list[str]:
    """Return why work was skipped, one line per peer and reason."""
    return [f"{peer.name}: {reason}" for peer in summary.peers for reason in peer.skips]


def percent(share: float) -> str:
    """Return a share as text, with one decimal."""
    return f"{100 * share:.1f} %"


def _peer(seen: Sighting, snapshot: Snapshot) -> PeerSummary:
    status = seen.status
    assert status is not None, "a summary needs nodes that answered"
    totals = status.totals
    points = [point.accuracy for point in status.curve] or [0.0]
    return PeerSummary(
        number=seen.peer.number,
        name=seen.peer.name,
        address=seen.peer.address,
        before=points[0],
        after=points[-1],
        reward=status.reward,
        rounds=totals.rounds_worked,
        updates=totals.updates,
        own=totals.own_groups,
        external=totals.external_groups,
        votes=snapshot.votes_of(seen.peer.address),
        skipped=totals.stages_skipped,
        skips=seen.skips,
        curve=status.curve,
        rewards=status.rewards,
    )


def _stage(
    plan: DemoPlan, number: int, peers: tuple[PeerSummary, ...], self_played: Sequence[Evaluation]
) -> StageSummary:
    points = [point for peer in peers for point in peer.rewards if point.stage == number]
    rounds = sorted({point.round for point in points})
    span = max(1, len(rounds) // COMPARED_SHARE)
    early = [point for point in points if point.round in rounds[:span]]
    late = [point for point in points if point.round in rounds[-span:]]
    held_out = [right for found in self_played if (right := found.stages[number].right) is not None]
    return StageSummary(
        name=plan.manifest.stages[number].name,
        answers=number in plan.answering,
        before=_mean([point.reward for point in early]),
        after=_mean([point.reward for point in late]),
        right_before=_mean([point.right for point in early]),
        right_after=_mean([point.right for point in late]),
        held_out=_mean(held_out) if held_out else None,
    )


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def rounds_done(plan: DemoPlan, snapshot: Snapshot) -> int:
    """Return the number of the demo's rounds that are over."""
    return max(0, min(plan.rounds, snapshot.round - FIRST_ROUND))
