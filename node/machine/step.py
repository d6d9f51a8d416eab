"""The machine: one pure function from state and input to state and commands.

Nothing else changes the state. Inputs may come twice, early, late or for unknown rounds: then they change nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from node.machine import chain_events as chain
from node.machine import delegation, doppelganger, lifecycle, pausing, relaying, work
from node.machine import inputs as i
from node.machine.state import Result, State

HANDLERS: dict[type[i.Input], Callable[[State, Any, float], Result]] = {
    i.NodeStarted: lifecycle.node_started,
    i.DrainRequested: lifecycle.drain_requested,
    i.StopRequested: lifecycle.stop_requested,
    i.TimerFired: lifecycle.timer_fired,
    i.NetworkChanged: lifecycle.network_changed,
    i.StageOpened: chain.stage_opened,
    i.PauseChanged: pausing.pause_changed,
    i.PeerRegistered: chain.peer_registered,
    i.DelegationRead: delegation.delegation_read,
    i.FundsChanged: relaying.funds_changed,
    i.ChainLost: chain.chain_lost,
    i.ChainRestored: chain.chain_restored,
    i.TransactionSettled: chain.transaction_settled,
    i.RolloutsAnnounced: work.rollouts_announced,
    i.NodeIntroduced: relaying.node_introduced,
    i.DoppelgangerDetected: doppelganger.doppelganger_detected,
    i.RolloutsArrived: work.rollouts_arrived,
    i.RolloutsRefused: work.rollouts_refused,
    i.TrainerReady: work.trainer_ready,
    i.TrainerLost: work.trainer_lost,
    i.RolloutsGenerated: work.rollouts_generated,
    i.TrainingFinished: work.training_finished,
    i.WorkFailed: work.work_failed,
    i.AnnouncedBefore: work.announced_before,
    i.EvaluationFinished: work.evaluation_finished,
    i.CheckpointSaved: work.checkpoint_saved,
}
"""Input type to transition: every input there is."""


def step(state: State, stamped: i.Stamped) -> Result:
    """Return the state after an input, and what is to be done. Same arguments, same result."""
    stopping = state.stopping
    state, commands = HANDLERS[type(stamped.input)](state, stamped.input, stamped.at)
    if stopping and state.stopping:
        return state, ()
    return state, commands
