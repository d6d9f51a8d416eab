"""Why a body counts for nothing: every code there is, how much its sender is to blame for it, and what it means.

The codes stand in the state, in status, log and metrics, and in docs/reference/reasons.md. How blame changes what a
node thinks of a peer is its own affair (`node.machine.peer_score`).
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

Blame: TypeAlias = Literal["none", "mild", "rare", "plain", "grave"]
"""`none`: nobody's fault, or this node's; `mild`: may happen to the honest; `rare`: happens to them, but not again and
again; `plain`: honest software never does it; `grave`: proven by signatures."""


class Reason(msgspec.Struct, frozen=True):
    """How much the sender is to blame, and what is wrong, in one sentence."""

    blame: Blame
    meaning: str


BODY_REASONS: dict[str, Reason] = {
    "nothing": Reason("none", "The peer announced that it made no rollouts."),
    "shunned": Reason("none", "The peer's standing is too low: the body was not asked for."),
    "crowded": Reason(
        "none", "The stage's places, or those for peers without credit, are taken: it was not asked for."
    ),
    "quotes-missing": Reason("none", "What it quotes is not here yet; it waits, and is checked when that comes."),
    "check-failed": Reason("none", "The check itself failed: a fault of this node or of a plug-in."),
    "twin": Reason(
        "none", "It repeats another one, and the order is not clear enough to say who copied: the first heard counts."
    ),
    "unavailable": Reason("mild", "It could not be had from anybody while it was accepted."),
    "certain": Reason("mild", "It passed, but every token of it is said to have had a probability of exactly 1."),
    "incredible": Reason(
        "rare",
        "This node's model does not believe a quarter or more of its groups: that they were sampled, as claimed.",
    ),
    "size": Reason("plain", "It has another size than announced, or is larger than the manifest allows."),
    "digest": Reason("plain", "Its digest is not the announced one."),
    "schema": Reason("plain", "It does not decode as rollouts."),
    "round": Reason("plain", "It is of another round or stage than announced."),
    "seed": Reason("plain", "It carries another seed than the round's."),
    "groups": Reason("plain", "It has fewer or more groups than the manifest allows."),
    "assignment": Reason("plain", "It is another's, answers questions that are not this peer's, or leaves some out."),
    "incomplete": Reason("plain", "A group has another number of completions than the manifest says."),
    "length": Reason("plain", "A completion has no tokens, too many, more text than they can hold, or odd lengths."),
    "logps": Reason("plain", "A log-probability is above 0 or not a number."),
    "quotes": Reason("plain", "It does not quote what has to be quoted, or not in the order of the lots."),
    "dear": Reason("plain", "Its completions run the grader into its bounds again and again."),
    "poison": Reason(
        "plain", "Most of its right completions are degenerate: endless repetition, unreadable characters."
    ),
    "reference": Reason("plain", "Most of its right completions are the reference solution, word for word."),
    "copy": Reason("plain", "It repeats another peer's body that was announced clearly before."),
    "equivocation": Reason("grave", "The peer signed two bodies for one stage."),
}
"""Every reason by its code."""

UNKNOWN = Reason("plain", "A reason that this version does not know.")
OTHER = "other"
"""Under which reasons are counted that are not in the table."""


def blame_of(code: str) -> Blame:
    """Return how much the sender is to blame for a reason."""
    return BODY_REASONS.get(code, UNKNOWN).blame


def meaning_of(code: str) -> str:
    """Return what is wrong, in one sentence."""
    return BODY_REASONS.get(code, UNKNOWN).meaning


def counted_as(code: str) -> str:
    """Return the label under which a reason is counted: there are no more than the table has, and one."""
    return code if code in BODY_REASONS else OTHER
