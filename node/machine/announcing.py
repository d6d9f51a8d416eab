"""What this node announces: its rollouts, and with them its own signed messages for relayers."""

from __future__ import annotations

from msgspec.structs import replace

from node.machine.commands import AnyCommand, OwnMessage, PublishRollouts, ReportReward
from node.machine.relaying import may_relay, sent_after
from node.machine.state import BodyRecord, Result, State, current_step, is_eligible, own_body, with_body
from node.machine.voting import due_votes
from protocols.wire import NOTHING


def announce_own_rollouts(state: State) -> tuple[AnyCommand, ...]:
    """Announce this node's rollouts of the current stage (again), if there are any and they are kept."""
    body = own_body(state)
    if body is None or (body.size == 0 and body.digest != NOTHING):
        return ()
    where = (state.round, state.stage, state.seed)
    return (PublishRollouts(*where, body.digest, body.size, may_relay(state), _own_messages(state)),)


def report_own_reward(state: State) -> tuple[ReportReward, ...]:
    """Report this node's reward of the current stage (again), unless the chain has answered."""
    body = own_body(state)
    if body is None or state.work.reported or not body.groups:
        return ()
    reward = body.reward / body.groups
    return (ReportReward(state.round, state.stage, state.seed, reward, sent_after(state)),)


def announce_messages_only(state: State, at: float) -> Result:
    """Announce this node's own messages without rollouts, where it will make none in this stage.

    That uses the node's one announcement of the stage, so it is kept in place of a body: none may follow it.
    """
    if state.work.phase != "skipped" or state.stopping or own_body(state) is not None:
        return state, ()
    if not is_eligible(state, state.me, state.round) or not due_votes(state):
        return state, ()
    state = with_body(state, current_step(state), state.me, BodyRecord(NOTHING, 0, "refused", reason="nothing"))
    return state, announce_own_rollouts(state)


def _own_messages(state: State) -> tuple[OwnMessage, ...]:
    """Return the own commands whose messages can be relayed in this stage, without the time at which they are sent."""
    return tuple(replace(command, after=0.0) for command in (*due_votes(state), *report_own_reward(state)))
