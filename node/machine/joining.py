"""Registration: requested until this node is registered, with a growing pause after each refusal."""

from __future__ import annotations

from msgspec.structs import replace

from node.backoff import Backoff
from node.exits import Exit
from node.machine.commands import IntroduceNode, RegisterNode, SetTimer, StopNode
from node.machine.inputs import TransactionSettled
from node.machine.state import Result, State

RETRY = Backoff(first=5.0, longest=300.0)
"""Between two attempts to register."""
OTHER_OWNER = "OtherOwner"
ADVICE = {
    "DelegationOver": "the owner's delegation is over; renew it (swarm login)",
    "BadSignature": "the owner's signature is not taken; have it signed anew (swarm login)",
    "BadNodeSignature": "delegation.json is not of this key; have it signed anew (swarm login)",
    "BadSerial": "the delegation is dated in the future; check the clock and have it signed anew (swarm login)",
}
"""What the operator can do about the contract's errors."""


def request_registration(state: State, at: float) -> Result:
    """Ask to be registered unless this node is, has asked, waits to ask again, or is under doppelganger protection.

    Where it is not known to have funds it shows the others its delegation, so that one of them may submit it.
    """
    if state.chain != "present" or state.round < 0 or state.me in state.peers:
        return state, ()
    if state.registering or state.register_error or state.doppelganger_watch is not None:
        return state, ()
    asked = (RegisterNode(),) if state.relays else (RegisterNode(), IntroduceNode())
    return replace(state, registering=True), asked


def register_timer(state: State, at: float) -> Result:
    """Try again after a refusal."""
    return request_registration(replace(state, register_error=""), at)


def registration_settled(state: State, settled: TransactionSettled, at: float) -> Result:
    """If the coordinator refuses, wait and try again; otherwise `PeerRegistered` follows.

    A key that belongs to another owner stops the node: that never changes.
    """
    if settled.ok or state.me in state.peers:
        return state, ()
    if settled.error == OTHER_OWNER:
        reason = (
            f"the contract has {state.me} under another owner, whom swarm whoami names; log in as that one, or give "
            "this node a new key (swarm keys new, in another data directory)"
        )
        return replace(state, stopping=True), (StopNode(int(Exit.OTHER_OWNER), reason),)
    pause = RETRY.pause(state.register_tries + 1)
    state = replace(
        state,
        registering=False,
        register_tries=min(state.register_tries + 1, 10),
        register_error=ADVICE.get(settled.error, settled.error) or "the transaction failed",
    )
    return state, (SetTimer("register", at + pause),)
