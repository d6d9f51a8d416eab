"""This node in the register: its owner's delegation expires, and has to be renewed before."""

from __future__ import annotations

from datetime import UTC, datetime

from msgspec.structs import replace

from node.machine import inputs as i
from node.machine.commands import RenewDelegation, SetTimer
from node.machine.notices import DelegationEnding
from node.machine.state import Result, State
from protocols.delegation import FOR_EVER

DAY = 86_400.0
NOTICE = 14 * DAY
"""Seconds before a delegation's end from which on there is a notice a day."""


def delegation_read(state: State, changed: i.DelegationRead, at: float) -> Result:
    """Note until when the delegation holds, and whether there is a newer one to submit."""
    return watch_delegation(replace(state, expiry=changed.expiry, renewal=changed.renewal, ending=""), at)


def watch_delegation(state: State, at: float) -> Result:
    """Notify of an end that is near or over, and look again a day later; earlier than that, when it comes near.

    Where the owner has signed anew already, nothing is asked for: the new delegation only has to be submitted.
    """
    if not 0 < state.expiry < FOR_EVER:
        return state, ()
    ends = state.expiry - state.offset
    if at < ends - NOTICE:
        return state, (SetTimer("delegation", ends - NOTICE), *renewals(state))
    over = at >= ends
    state = replace(state, ending="over" if over else "soon")
    asked = () if state.renewal else (DelegationEnding(state.expiry, over, _why(state)),)
    return state, (*asked, SetTimer("delegation", at + DAY if over else min(at + DAY, ends)), *renewals(state))


def renewals(state: State) -> tuple[RenewDelegation, ...]:
    """Return the command that submits a newer delegation, where this node pays for it.

    A node without funds for others leaves it to the relayers, since its announcements have it attached, until the end
    is near.
    """
    return (RenewDelegation(state.renewal),) if state.renewal and (state.relays or state.ending) else ()


def _why(state: State) -> str:
    when = f"{datetime.fromtimestamp(state.expiry, UTC):%Y-%m-%d %H:%M} UTC"
    if state.ending == "over":
        return f"the owner's delegation is over since {when}: this node's votes are refused; renew it (swarm login)"
    return f"the owner's delegation ends at {when}; renew it before (swarm login), the node need not be stopped"
