"""The text of `swarm explain`: a round on one screen, and one peer of it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from textwrap import wrap

from node.explain.regrade import Regraded
from node.explain.round_facts import Delivery, Explanation, Named, PeerFact, StageFact, Tally
from node.machine.peer_score import GRAYLIST_THRESHOLD
from protocols.reasons import meaning_of

PEERS_SHOWN = 16
WEIGHTS_SHOWN = 6
GROUPS_SHOWN = 12
SHORT = 10
"""Characters shown of an address or digest in tables that have other columns to identify the peer."""


def overview(facts: Explanation) -> str:
    """Return the round as text."""
    over = f"{datetime.fromtimestamp(facts.at, UTC):%Y-%m-%d %H:%M:%S} UTC"
    hidden = max(0, len(facts.peers) - PEERS_SHOWN) + facts.silent
    lines = [
        f"Round {facts.round} of the game {facts.game}, ranked {over} by {call(facts.me)}",
        f"under the seed 0x{facts.seed}",
        "",
        *peer_table(facts),
        *([f"{'':>4}  and {hidden} more; use --peer for any of them"] if hidden else []),
        "",
        *rows(_rules(facts)),
        *rows(_vote(facts)),
    ]
    return "\n".join(line.rstrip() for line in lines)


def peer_table(facts: Explanation) -> list[str]:
    """Return the table of peers, best first. With several stages, there is a mean for each."""
    single = len(facts.stages) == 1
    head = ["rank", "peer", "owner", *facts.stages, "groups", "score", ""]
    body = [
        [
            str(peer.rank or "-"),
            peer.node.name or short(peer.node.address),
            short(peer.node.owner),
            *(cell(stage, single) for stage in peer.stages),
            str(peer.groups or "-"),
            f"{peer.score:.3f}" if peer.groups else "-",
            remark(peer),
        ]
        for peer in facts.peers[:PEERS_SHOWN]
    ]
    return aligned([head, *body], right={0, len(head) - 3, len(head) - 2})


def cell(stage: StageFact, single: bool) -> str:
    """Return the outcome of a stage's rollouts in a word or two."""
    match stage.outcome:
        case "accepted":
            found = "accepted" if single else f"{stage.mean:.3f}"
            return f"{found} {stage.reason}".rstrip()
        case "none":
            return "not heard"
        case "fetching":
            return "on its way"
        case "waiting":
            return "waiting"
        case "refused":
            return "none made" if stage.reason == "nothing" else stage.reason or "refused"


def remark(peer: PeerFact) -> str:
    """Return why a peer has no rank, or that it was voted for; "" if its stages show it."""
    if all(stage.outcome == "none" for stage in peer.stages):
        return ""
    return "voted for" if peer.voted_for else "this node" if peer.own else peer.unranked


def _rules(facts: Explanation) -> list[tuple[str, str]]:
    stages = [stage for peer in facts.peers for stage in peer.stages]
    accepted = [stage for stage in stages if stage.outcome == "accepted"]
    announced = sum(stage.outcome != "none" and stage.reason != "nothing" for stage in stages)
    groups = sum(stage.groups for stage in accepted)
    several = "the mean of the stages' means (0 for one not played), each " if len(facts.stages) > 1 else ""
    return [
        ("bodies", f"{announced} announced, {len(accepted)} accepted with {groups} groups"),
        *[("", f"{count} {reason}: {meaning_of(reason)}") for reason, count in sorted(facts.refused.items())],
        ("score", f"{several}the mean of the groups' rewards, recomputed from this node's own data"),
        (
            "rank",
            f"by score among those with {counted(facts.minimum_groups, 'group')} or more and a reward, ties by "
            f"address; the best {'one gets' if facts.winners == 1 else f'{facts.winners} get'} the vote",
        ),
    ]


def _vote(facts: Explanation) -> list[tuple[str, str]]:
    vote = f"none: {facts.no_vote}"
    if facts.vote:
        vote = f"{facts.vote}, for {', '.join(call(node) for node in facts.voted_for)}"
    return [
        ("vote", vote),
        *[(each.what, f"{each.stage}{each.stage and ': '}{delivered(each)}") for each in facts.deliveries],
        ("tally", tallied(facts.tally, facts.vote) if facts.tally else facts.offline),
    ]


def delivered(message: Delivery) -> str:
    """Return the state of a message, with its transaction."""
    if message.state == "not sent":
        return "not sent"
    if message.state == "under way":
        return f"under way {message.transaction}"
    if message.state == "refused":
        return f"refused ({message.error}) {message.transaction}"
    if not message.transaction:
        return "on chain, transaction not known"
    block = f"block {message.block}" if message.block else "block not known"
    return f"{block}, {_by(message)}{message.transaction}"


def _by(message: Delivery) -> str:
    if not message.by:
        return ""
    relayed = message.by == "another node"
    return f"by {call(message.sender) if relayed and message.sender else message.by}: "


def tallied(tally: Tally, phase: str) -> str:
    """Return the published tally in a line; the window is open while this node's vote is pending."""
    yet = "" if phase in ("", "done", "failed") else " so far"
    own = "this node's among them" if tally.own else "this node's not among them"
    shown = [
        f"{call(each.node)} {each.votes:g}{' (leads)' if each.leads else ''}" for each in tally.weights[:WEIGHTS_SHOWN]
    ]
    hidden = len(tally.weights) - WEIGHTS_SHOWN
    shown += [f"{hidden} more"] if hidden > 0 else []
    return f"{counted(tally.votes, 'vote')} on chain{yet}, {own}{': ' if shown else ''}{', '.join(shown)}"


# --- one peer -------------------------------------------------------------------------------------------------------


def peer_text(facts: Explanation, peer: PeerFact, regraded: Sequence[Regraded]) -> str:
    """Return one peer's round as text: each stage's body, and its groups as graded now."""
    place = f"rank {peer.rank}{', voted for' if peer.voted_for else ''}" if peer.rank else f"no rank: {peer.unranked}"
    node = peer.node
    lines = [
        f"{call(node)} in round {facts.round} of the game {facts.game}",
        "",
        *rows(
            [
                ("address", node.address),
                ("peer id", peer.peer_id or "not known: no recent announcement"),
                ("owner", node.owner or "not known"),
                ("counts", f"from round {peer.since} on" if peer.since >= 0 else "not registered"),
                (
                    "peer score",
                    f"{peer.peer_score:g} here (unknown peers: 0; graylisted at {GRAYLIST_THRESHOLD:g})",
                ),
                ("score", f"{peer.score:.3f} over {counted(peer.groups, 'group')}; {place}"),
            ]
        ),
    ]
    for stage, again in zip(peer.stages, regraded, strict=True):
        lines += ["", *rows(_stage(stage)), *_groups(again)]
    return "\n".join(line.rstrip() for line in lines)


def _stage(stage: StageFact) -> list[tuple[str, str]]:
    used = ", trained on" if stage.used else ""
    but = f". {stage.why}" if stage.why else ""
    found = {
        "accepted": f"accepted: {counted(stage.groups, 'group')}, mean {stage.mean:.3f}{used}{but}",
        "none": "no announcement was received",
        "fetching": "announced, but not fetched in time",
        "waiting": f"not checked in time. {stage.why}",
        "refused": f"refused ({stage.reason or 'reason not known'}). {stage.why}",
    }[stage.outcome]
    body = [("body", f"{stage.digest}, {stage.size:,} bytes")] if stage.size else []
    return [(stage.stage, found), *body]


def _groups(again: Regraded) -> list[str]:
    if not again.groups:
        return rows([("now", again.note)]) if again.note else []
    table = [["slot", "question", "mean", "rewards"]]
    for group in again.groups[:GROUPS_SHOWN]:
        rewards = " ".join(f"{reward:.2f}".rstrip("0").rstrip(".") for reward in group.rewards)
        note = "" if group.ranked else "  (common question: not ranked)"
        table.append([str(group.slot), str(group.question), f"{group.mean:.3f}", rewards + note])
    hidden = len(again.groups) - GROUPS_SHOWN
    shown = aligned(table, right={0, 1, 2})
    shown += [f"and {hidden} more (--json has them)"] if hidden > 0 else []
    return [*rows([("now", again.note)]), *(" " * INDENT + line for line in shown)]


# --- small parts ----------------------------------------------------------------------------------------------------

INDENT, WIDTH = 11, 112


def rows(pairs: Iterable[tuple[str, str]]) -> list[str]:
    """Return titled lines; long texts are wrapped and indented."""
    lines: list[str] = []
    for title, text in pairs:
        lines += wrap(
            text,
            WIDTH,
            initial_indent=f"{title:<{INDENT}}",
            subsequent_indent=" " * INDENT,
            break_long_words=False,
            break_on_hyphens=False,
        ) or [title]
    return lines


def aligned(table: Sequence[Sequence[str]], right: set[int]) -> list[str]:
    """Return lines with aligned columns, two spaces apart; the columns in `right` are right-aligned."""
    widths = [max(len(row[place]) for row in table) for place in range(len(table[0]))]
    return [
        "  ".join(
            f"{text:>{width}}" if place in right else f"{text:<{width}}"
            for place, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in table
    ]


def call(node: Named) -> str:
    """Return a node's name, or its address if the name is not known."""
    return node.name or node.address


def short(address: str) -> str:
    """Return a shortened address, "-" for none."""
    return f"{address[:SHORT]}…" if address else "-"


def counted(number: int, what: str) -> str:
    """Return a number with its noun."""
    return f"{number} {what}{'' if number == 1 else 's'}"
