"""Which inputs, commands and notices are logged, under which stable event name, at which level."""

from __future__ import annotations

from typing import Any

import msgspec

from node.machine import commands as c
from node.machine import inputs as i
from node.machine import notices as n
from node.machine.transaction_keys import BaseKey
from protocols.signed_messages import MessageTopic, RelayedMessage

INPUT_EVENTS: dict[type[Any], tuple[str, str]] = {
    i.NodeStarted: ("info", "node.started"),
    i.DrainRequested: ("info", "node.draining"),
    i.StopRequested: ("info", "node.stop_requested"),
    i.StageOpened: ("info", "stage.opened"),
    i.PauseChanged: ("warning", "swarm.pause_changed"),
    i.PeerRegistered: ("debug", "peer.registered"),
    i.DelegationRead: ("info", "delegation.read"),
    i.FundsChanged: ("info", "funds.changed"),
    i.ChainLost: ("warning", "chain.lost"),
    i.ChainRestored: ("info", "chain.restored"),
    i.TransactionSettled: ("info", "transaction.settled"),
    i.RolloutsAnnounced: ("debug", "rollouts.announced"),
    i.NodeIntroduced: ("debug", "peer.introduced"),
    i.DoppelgangerDetected: ("debug", "gossip.own_message_received"),
    i.RolloutsArrived: ("info", "rollouts.arrived"),
    i.RolloutsRefused: ("warning", "rollouts.refused"),
    i.NetworkChanged: ("info", "network.changed"),
    i.TrainerReady: ("info", "trainer.ready"),
    i.TrainerLost: ("warning", "trainer.lost"),
    i.RolloutsGenerated: ("info", "rollouts.generated"),
    i.TrainingFinished: ("info", "training.finished"),
    i.WorkFailed: ("warning", "work.failed"),
    i.AnnouncedBefore: ("warning", "rollouts.announced_before"),
    i.EvaluationFinished: ("info", "evaluation.finished"),
    i.CheckpointSaved: ("debug", "checkpoint.saved"),
}
COMMAND_EVENTS: dict[type[Any], tuple[str, str]] = {
    c.RegisterNode: ("info", "node.registering"),
    c.RenewDelegation: ("info", "delegation.renewing"),
    c.AdvanceStage: ("info", "stage.advancing"),
    c.CommitVote: ("info", "vote.committing"),
    c.RevealVote: ("info", "vote.revealing"),
    c.CastVote: ("info", "vote.casting"),
    c.ReportReward: ("debug", "reward.reporting"),
    c.RelayMessages: ("info", "relay.submitting"),
    c.PublishRollouts: ("info", "rollouts.publishing"),
    c.FetchRollouts: ("debug", "rollouts.fetching"),
    c.IntroduceNode: ("debug", "node.introducing"),
    c.GenerateRollouts: ("info", "rollouts.generating"),
    c.TrainOnRollouts: ("info", "training.started"),
    c.AbortWork: ("info", "work.aborted"),
    c.EvaluateModel: ("debug", "evaluation.started"),
    c.SaveCheckpoint: ("debug", "checkpoint.saving"),
    c.EndDoppelgangerProtection: ("info", "node.doppelganger_protection_ended"),
    c.StopNode: ("info", "node.stopping"),
}
NOTICE_EVENTS: dict[type[Any], tuple[str, str]] = {
    n.SkippedToRound: ("warning", "round.skipped"),
    n.DelegationEnding: ("warning", "delegation.ending"),
    n.BodyUncounted: ("warning", "rollouts.uncounted"),
    n.PeerGraylisted: ("warning", "peer.graylisted"),
}
"""Level and event by type; timers are not logged. WARNING: something went wrong that the node handles by itself. The
end of a delegation is an ERROR: only its owner can renew it."""

EVENTS = INPUT_EVENTS | COMMAND_EVENTS | NOTICE_EVENTS


def log_line(happened: object) -> tuple[str, str, dict[str, Any]] | None:
    """Return level, event and fields of an input, command or notice; None if it is not logged."""
    named = EVENTS.get(type(happened))
    if named is None:
        return None
    level, event = named
    if isinstance(happened, i.TransactionSettled) and not happened.ok:
        level = "warning"
    if isinstance(happened, n.DelegationEnding) and happened.over:
        level = "error"
    fields = {name: readable(value) for name, value in msgspec.structs.asdict(happened).items()}  # type: ignore[arg-type]
    return level, event, fields


def readable(value: object) -> object:
    """Return a value as it stands in a log line: bytes as their first 16 hex digits, sequences as lists.

    Of a command or a signed message only the name is logged, of a relayed message only its announcer.
    """
    match value:
        case bytes():
            return value.hex()[:16]
        case tuple():
            return [readable(item) for item in value]
        case RelayedMessage():
            return value.peer
        case BaseKey() | MessageTopic():
            return str(value)
        case msgspec.Struct():
            return type(value).__name__
        case float():
            return round(value, 4)
        case _:
            return value
