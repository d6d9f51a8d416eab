"""This node's own work in a stage: generate, publish, collect, train; then save and evaluate. One task at a time.

`pursue` is level-triggered: it looks at what is to be done and asks the trainer for the next thing whenever the trainer
is free. Called twice it asks once; called after a restart it asks again.
"""

from __future__ import annotations

from msgspec.structs import replace

from node.machine import inputs as i
from node.machine.announcing import publish_again, report_again
from node.machine.commands import (
    AnyCommand,
    EvaluateModel,
    GenerateRollouts,
    SaveCheckpoint,
    SetTimer,
    StopNode,
    TrainOnRollouts,
)
from node.machine.external_bodies import (
    body_announced,
    body_arrived,
    body_refused,
    everybody_is_in,
    mark_used,
    may_wait,
    quotes_wait,
    quoting_again,
    to_quote,
    unused_bodies,
)
from node.machine.pacing import (
    forgiven,
    generated_in,
    groups_that_fit,
    latest_quoting,
    latest_training_start,
    local_deadline,
    margin,
    stage_seconds,
    trained_in,
    training_estimate,
)
from node.machine.skipping import DOING, lost_training, skip_stage
from node.machine.state import (
    MAX_CURVE,
    MAX_REWARDS,
    BodyRecord,
    Result,
    State,
    TrainerTask,
    becomes,
    counts,
    current_step,
    in_turn,
    label,
    own_body,
    with_body,
    worked_in,
)
from node.machine.status import CurvePoint, RewardPoint
from node.machine.uncounted_bodies import disbelieve
from node.machine.voting import due_votes
from protocols.identifiers import Digest
from protocols.schedule import step_number

TIMER_SLACK = 0.05
"""Seconds by which a timer may fire early and still count."""


def pursue(state: State, at: float) -> Result:
    """Ask the trainer for what is next, if it is there and free."""
    if state.stopping or state.round < 0:
        return state, ()
    if state.draining and _finished(state):
        return replace(state, stopping=True), (StopNode(0, "drained"),)
    if state.trainer != "present" or state.task is not None:
        return state, ()
    phase = state.work.phase
    if phase == "generate" and state.heard and not state.draining and counts(state, state.me, state.round):
        quoted = None if quotes_wait(state) else to_quote(state)
        if quoted is not None:
            return in_turn(state, at, lambda s, t: _start_generating(s, quoted, t), _pursue_if_skipped)
    if state.evaluation >= 0 and not state.curve:
        return _ask(state, at, TrainerTask("evaluate", state.round, state.stage, at), EvaluateModel(state.round))
    if phase == "train" and _known_time(state) and (state.work.due or everybody_is_in(state)):
        return in_turn(state, at, _start_training, _pursue_if_skipped)
    if state.saving:
        return _ask(state, at, TrainerTask("save", state.unsaved, state.stage, at), SaveCheckpoint(state.unsaved))
    if state.evaluation >= 0:
        return _ask(
            state, at, TrainerTask("evaluate", state.evaluation, state.stage, at), EvaluateModel(state.evaluation)
        )
    return state, ()


def wait_for_rollouts(state: State, at: float) -> Result:
    """Set the timer after which training, or a stage that quotes others, begins with whatever has arrived.

    A stage that quotes has it also where nothing is waited for: more may be announced before the trainer is free.
    """
    if state.work.phase == "generate" and may_wait(state):
        return state, (SetTimer("quote", latest_quoting(state)),)
    training = _is_task(state, "train", state.round, state.stage)
    if state.work.phase != "train" or state.work.due or training:
        return state, ()
    return state, (SetTimer("train", latest_training_start(state)),)


def train_timer(state: State, at: float) -> Result:
    """Begin training now if it is time; a timer of an earlier stage or estimate is set anew."""
    if state.work.phase != "train" or state.work.due:
        return state, ()
    if at + TIMER_SLACK < latest_training_start(state):
        return wait_for_rollouts(state, at)
    return pursue(replace(state, work=replace(state.work, due=True)), at)


def quote_timer(state: State, at: float) -> Result:
    """Wait no longer for what is quoted; a timer of an earlier stage is set anew."""
    if state.work.phase != "generate" or state.round < 0 or state.work.quote:
        return state, ()
    if at + TIMER_SLACK < latest_quoting(state):
        return wait_for_rollouts(state, at)
    return pursue(replace(state, work=replace(state.work, quote=True)), at)


def rollouts_generated(state: State, made: i.RolloutsGenerated, at: float) -> Result:
    """Publish the own rollouts; what comes of a stage that is over, or of its seed before a reorg, does not count."""
    task = state.task
    if task is None or not _is_task(state, "generate", made.round, made.stage) or made.seed not in (b"", task.seed):
        return state, ()
    state = generated_in(replace(state, task=None), made.groups, made.seconds)
    if made.groups < state.terms.minimum:
        reason = f"{made.groups} of at least {state.terms.minimum} groups were made"
        return in_turn(state, at, lambda state, at: skip_stage(state, reason, at), pursue)
    body = BodyRecord(made.body, made.size, "arrived", made.groups, made.reward, heard=at)
    state = with_body(state, current_step(state), state.me, body)
    mean = made.reward / made.groups
    state = replace(
        state,
        work=becomes(state.work, "rollouts published"),
        rewards=(*state.rewards, RewardPoint(made.round, mean, made.stage, made.right / made.groups))[-MAX_REWARDS:],
    )
    state, more = in_turn(state, at, pursue, wait_for_rollouts)
    return state, (*publish_again(state), *report_again(state), *more)


def rollouts_announced(state: State, said: i.RolloutsAnnounced, at: float) -> Result:
    """Ask for a body; where it was the last one to wait for and there will be none, go on."""
    return in_turn(state, at, lambda s, t: body_announced(s, said, t), pursue)


def rollouts_arrived(state: State, arrived: i.RolloutsArrived, at: float) -> Result:
    """Keep a body; where it was the last one to wait for, go on."""
    return in_turn(
        state, at, lambda s, _: body_arrived(s, arrived), lambda s, _: quoting_again(s, arrived), pursue
    )  # fmt: skip


def rollouts_refused(state: State, refused: i.RolloutsRefused, at: float) -> Result:
    """Wait no longer for a body; where it was the last one to wait for, go on."""
    return in_turn(state, at, lambda state, _: body_refused(state, refused), pursue)


def training_finished(state: State, done: i.TrainingFinished, at: float) -> Result:
    """Count the updates, also those of the stage before; discount what was not believed; see to checkpoint and
    evaluation."""
    if not _is_task(state, "train", done.round, done.stage):
        return state, ()
    totals = state.totals
    totals = replace(
        totals,
        rounds_worked=totals.rounds_worked + (not worked_in(state, done.round)),
        updates=totals.updates + done.updates,
        own_groups=totals.own_groups + done.own,
        external_groups=totals.external_groups + done.external,
    )
    state = trained_in(replace(state, task=None, totals=totals, unsaved=done.round), done.seconds)
    state = _own_used(state, done.round, done.stage)
    if done.stage == state.terms.stages - 1 or done.round < state.round:
        state = round_done(state)
    elif state.draining:
        state = to_be_saved(state)
    if (done.round, done.stage) == (state.round, state.stage):
        state = replace(state, work=becomes(state.work, "training finished"))
    return in_turn(state, at, lambda state, _: disbelieve(state, done.incredible), pursue)


def to_be_saved(state: State) -> State:
    """Return the state in which a checkpoint is due, where there is something that is not in the last one."""
    return replace(state, saving=state.saving or state.unsaved >= 0)


def round_done(state: State) -> State:
    """Return the state in which the round's training is to be saved and, every so often, measured."""
    if state.unsaved < 0:
        return state
    following, every = state.unsaved + 1, state.terms.evaluate_every
    due = following // every > max(0, state.evaluated) // every
    return replace(to_be_saved(state), evaluation=following if due else state.evaluation)


def evaluation_finished(state: State, done: i.EvaluationFinished, at: float) -> Result:
    """Add a point to the learning curve."""
    if state.task is None or state.task.kind != "evaluate" or state.task.round != done.round:
        return state, ()
    curve = (*state.curve, CurvePoint(done.round, at, done.accuracy))[-MAX_CURVE:]
    return pursue(_evaluated(replace(state, task=None, curve=curve), done.round), at)


def checkpoint_saved(state: State, saved: i.CheckpointSaved, at: float) -> Result:
    """Go on after a checkpoint."""
    if state.task is None or state.task.kind != "save" or state.task.round != saved.round:
        return state, ()
    state = replace(state, task=None, saving=False, unsaved=-1 if state.unsaved == saved.round else state.unsaved)
    return pursue(state, at)


def work_failed(state: State, failed: i.WorkFailed, at: float) -> Result:
    """Go on without what the trainer gave up; what it was to do under the seed before a reorg does not count."""
    task = state.task
    if task is None or task.kind != failed.task or task.round != failed.round or failed.seed not in (b"", task.seed):
        return state, ()
    if task.kind in ("generate", "train") and task.stage != failed.stage:
        return state, ()
    state, commands = _given_up(replace(state, task=None), task, failed.reason, at)
    return in_turn(state, at, lambda state, _: (state, commands), pursue)


def trainer_ready(state: State, ready: i.TrainerReady, at: float) -> Result:
    """Give the trainer what it is to do: a child that has just begun knows of no task."""
    return pursue(replace(state, trainer="present", task=None), at)


def trainer_lost(state: State, lost: i.TrainerLost, at: float) -> Result:
    """Note what is to be asked for again. An evaluation or a checkpoint that killed the child is not."""
    task = state.task
    state = replace(state, trainer="absent")
    if task is not None and task.kind in ("evaluate", "save"):
        return _given_up(replace(state, task=None), task, lost.reason, at)
    return training_lost(state, f"lost with the trainer: {lost.reason}")


def training_lost(state: State, how: str) -> Result:
    """Forget the trainer's task. What belongs to the current stage is asked for again; an earlier one's is missed."""
    task = state.task
    state = replace(state, task=None)
    if task is None or task.kind != "train":
        return state, ()
    return lost_training(state, task, f"training of {label(state, task.round, task.stage)} was {how}")


def _given_up(state: State, task: TrainerTask, reason: str, at: float) -> Result:
    if task.kind == "evaluate":
        return _evaluated(state, task.round), ()
    if task.kind == "save":
        return replace(state, saving=False), ()
    why = f"{DOING[task.kind]} of {label(state, task.round, task.stage)} failed: {reason}"
    if (task.round, task.stage) != (state.round, state.stage):
        return lost_training(state, task, why)
    return skip_stage(state, why, at)


def _evaluated(state: State, round_number: int) -> State:
    return replace(state, evaluated=round_number, evaluation=-1)


def _start_generating(state: State, quoted: tuple[Digest, ...], at: float) -> Result:
    groups = groups_that_fit(state, at)
    if groups >= state.terms.minimum:
        task = TrainerTask("generate", state.round, state.stage, at, groups, state.seed)
        return _ask(state, at, task, GenerateRollouts(state.round, state.stage, state.seed, groups, quoted))
    left = local_deadline(state) - at
    reason = f"{max(0.0, left):.0f} s of {label(state, state.round, state.stage)} were left"
    if state.pace.generate:
        need = state.terms.minimum * state.pace.generate + training_estimate(state)
        reason += f", {state.terms.minimum} groups and training on them take about {need:.0f} s"
    return skip_stage(forgiven(state) if left > margin(state) and _idle_before(state) else state, reason, at)


def _idle_before(state: State) -> bool:
    """Tell whether this node made nothing in the stage before either: then it is its measured speed that keeps it from
    work, not one late piece of news, however late all news come."""
    body = state.pools.get(current_step(state) - 1, {}).get(state.me)
    return body is None or not body.groups


def _start_training(state: State, at: float) -> Result:
    """Train on the own body and on what has arrived, within the time that is left.

    While the chain is away nothing else can follow, so that training begins however late it is.
    """
    body = own_body(state)
    if body is None:
        return skip_stage(state, f"the rollouts of {label(state, state.round, state.stage)} are gone", at)
    seconds = local_deadline(state) - at
    if state.chain != "present":
        seconds = max(seconds, float(stage_seconds(state)))
    if seconds <= 0 or seconds < state.pace.train:
        where = label(state, state.round, state.stage)
        need = f"training takes about {state.pace.train:.0f} s" if state.pace.train else "training had not begun"
        return skip_stage(state, f"{max(0.0, seconds):.0f} s of {where} were left, {need}", at)
    external = state.work.external or unused_bodies(state)
    state = mark_used(replace(state, work=replace(state.work, external=external)), external)
    task = TrainerTask("train", state.round, state.stage, at)
    order = TrainOnRollouts(
        state.round, state.stage, body.digest, external, state.terms.updates, max(1.0, seconds - margin(state))
    )
    return _ask(state, at, task, order)


def _known_time(state: State) -> bool:
    """Tell whether it is known, or can't be known, that the stage of the own rollouts is still open."""
    return state.heard or state.chain == "absent"


def _pursue_if_skipped(state: State, at: float) -> Result:
    return pursue(state, at) if state.task is None else (state, ())


def _ask(state: State, at: float, task: TrainerTask, command: AnyCommand) -> Result:
    return replace(state, task=task), (command,)


def _is_task(state: State, kind: str, round_number: int, stage: int) -> bool:
    task = state.task
    return task is not None and (task.kind, task.round, task.stage) == (kind, round_number, stage)


def _own_used(state: State, round_number: int, stage: int) -> State:
    step = step_number(round_number, stage, state.terms.stages)
    body = state.pools.get(step, {}).get(state.me)
    return state if body is None else with_body(state, step, state.me, replace(body, used=True))


def _finished(state: State) -> bool:
    """Tell whether a draining node has nothing left to finish in this stage; a lost trainer has nothing to save."""
    if state.task is not None and state.task.kind != "evaluate":
        return False
    if state.work.phase == "train" or due_votes(state):
        return False
    return not state.saving or state.trainer != "present"
