"""Why a body does not count: every reason code, the severity of the fault, and its meaning.

The codes appear in state, status, log and metrics, and in docs/reference/reasons.md. How a severity changes a peer's
score is up to each node (`node.machine.peer_score`).
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

Severity: TypeAlias = Literal["none", "high_tolerance", "mid_tolerance", "low_tolerance", "fatal"]
"""`none`: nobody's fault, or this node's own; `high_tolerance`: may happen to an honest peer; `mid_tolerance`: happens
to honest peers, but not again and again; `low_tolerance`: honest software never does it; `fatal`: proven by signatures.

The names are those of the Ethereum consensus clients: how often a fault is tolerated."""


class Reason(msgspec.Struct, frozen=True):
    """How severe the sender's fault is, and what is wrong, in one sentence."""

    severity: Severity
    meaning: str


BODY_REASONS: dict[str, Reason] = {
    "nothing": Reason("none", "The peer announced that it made no rollouts."),
    "graylisted": Reason("none", "The peer's score is too low: the body was not fetched."),
    "crowded": Reason(
        "none", "The stage has no room for more bodies, or for more from peers without a positive score: not fetched."
    ),
    "quotes-missing": Reason("none", "A body that it quotes is missing; it waits, and is checked when that arrives."),
    "check-failed": Reason("none", "The check itself failed: a fault of this node or of a plug-in."),
    "duplicate": Reason(
        "none",
        "It repeats another body, and the order is not clear enough to say who copied: the first received counts.",
    ),
    "unavailable": Reason("high_tolerance", "No peer could deliver it in time."),
    "certain": Reason("high_tolerance", "It passed, but claims a probability of exactly 1 for every token."),
    "off-policy": Reason(
        "mid_tolerance",
        "The off-policy filter rejected a quarter or more of its groups: they were hardly sampled as claimed.",
    ),
    "size": Reason("low_tolerance", "Its size is not the announced one, or is larger than the manifest allows."),
    "digest": Reason("low_tolerance", "Its digest is not the announced one."),
    "schema": Reason("low_tolerance", "It does not decode as rollouts."),
    "round": Reason("low_tolerance", "Its round or stage is not the announced one."),
    "seed": Reason("low_tolerance", "Its seed is not the round's."),
    "groups": Reason("low_tolerance", "It has fewer or more groups than the manifest allows."),
    "assignment": Reason(
        "low_tolerance", "It is another peer's, answers questions not assigned to this peer, or leaves some out."
    ),
    "incomplete": Reason("low_tolerance", "The number of completions in a group is not the manifest's."),
    "length": Reason(
        "low_tolerance", "A completion has no tokens, too many, more text than they can hold, or mismatched lengths."
    ),
    "logps": Reason("low_tolerance", "A log-probability is above 0 or not a number."),
    "quotes": Reason("low_tolerance", "It does not quote the bodies it has to, or not in the order of the draw."),
    "grader-limit": Reason("low_tolerance", "Too many of its completions exceed a limit of the grader."),
    "poison": Reason(
        "low_tolerance", "Most of its right completions are degenerate: endless repetition, unreadable characters."
    ),
    "reference": Reason("low_tolerance", "Most of its right completions are the reference solution, word for word."),
    "copy": Reason("low_tolerance", "It repeats a body of another peer that was announced clearly earlier."),
    "equivocation": Reason("fatal", "The peer signed two bodies for one stage."),
}
"""Every reason by its code."""

UNKNOWN = Reason("low_tolerance", "A reason that this version does not know.")
OTHER = "other"
"""The label of reasons that are not in the table."""


def severity_of(code: str) -> Severity:
    """Return how severe the sender's fault is."""
    return BODY_REASONS.get(code, UNKNOWN).severity


def meaning_of(code: str) -> str:
    """Return what is wrong, in one sentence."""
    return BODY_REASONS.get(code, UNKNOWN).meaning


def counted_as(code: str) -> str:
    """Return the label under which a reason is counted: there are no more than the table has, and one."""
    return code if code in BODY_REASONS else OTHER
