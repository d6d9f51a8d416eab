"""Why a body counts for nothing: every code there is, how severe the fault is, and what it means.

The codes stand in the state, in status, log and metrics, and in docs/reference/reasons.md. How a severity changes a
peer's score is up to each node (`node.machine.peer_score`).
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
    "graylisted": Reason("none", "The peer's score is too low: the body was not asked for."),
    "crowded": Reason(
        "none", "The stage's places, or those for peers without a positive score, are taken: it was not asked for."
    ),
    "quotes-missing": Reason("none", "What it quotes is not here yet; it waits, and is checked when that comes."),
    "check-failed": Reason("none", "The check itself failed: a fault of this node or of a plug-in."),
    "duplicate": Reason(
        "none",
        "It repeats another one, and the order is not clear enough to say who copied: the first received counts.",
    ),
    "unavailable": Reason("high_tolerance", "It could not be had from anybody while it was accepted."),
    "certain": Reason(
        "high_tolerance", "It passed, but every token of it is said to have had a probability of exactly 1."
    ),
    "incredible": Reason(
        "mid_tolerance",
        "This node's model does not believe a quarter or more of its groups: that they were sampled, as claimed.",
    ),
    "size": Reason("low_tolerance", "It has another size than announced, or is larger than the manifest allows."),
    "digest": Reason("low_tolerance", "Its digest is not the announced one."),
    "schema": Reason("low_tolerance", "It does not decode as rollouts."),
    "round": Reason("low_tolerance", "It is of another round or stage than announced."),
    "seed": Reason("low_tolerance", "It carries another seed than the round's."),
    "groups": Reason("low_tolerance", "It has fewer or more groups than the manifest allows."),
    "assignment": Reason(
        "low_tolerance", "It is another's, answers questions that are not this peer's, or leaves some out."
    ),
    "incomplete": Reason("low_tolerance", "A group has another number of completions than the manifest says."),
    "length": Reason(
        "low_tolerance", "A completion has no tokens, too many, more text than they can hold, or odd lengths."
    ),
    "logps": Reason("low_tolerance", "A log-probability is above 0 or not a number."),
    "quotes": Reason("low_tolerance", "It does not quote what has to be quoted, or not in the order of the lots."),
    "dear": Reason("low_tolerance", "Its completions run the grader into its bounds again and again."),
    "poison": Reason(
        "low_tolerance", "Most of its right completions are degenerate: endless repetition, unreadable characters."
    ),
    "reference": Reason("low_tolerance", "Most of its right completions are the reference solution, word for word."),
    "copy": Reason("low_tolerance", "It repeats another peer's body that was announced clearly before."),
    "equivocation": Reason("fatal", "The peer signed two bodies for one stage."),
}
"""Every reason by its code."""

UNKNOWN = Reason("low_tolerance", "A reason that this version does not know.")
OTHER = "other"
"""Under which reasons are counted that are not in the table."""


def severity_of(code: str) -> Severity:
    """Return how severe the sender's fault is."""
    return BODY_REASONS.get(code, UNKNOWN).severity


def meaning_of(code: str) -> str:
    """Return what is wrong, in one sentence."""
    return BODY_REASONS.get(code, UNKNOWN).meaning


def counted_as(code: str) -> str:
    """Return the label under which a reason is counted: there are no more than the table has, and one."""
    return code if code in BODY_REASONS else OTHER
