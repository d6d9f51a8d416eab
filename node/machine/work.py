"""This node's own work in a stage: generate, publish, collect, train; then save and evaluate. One task at a time.

`schedule_next_task` is level-triggered: it looks at what is to be done and gives the trainer the next task when it is
free. Called twice it asks once; called after a restart it asks again.
"""

from __future__ import annotations

from msgspec.structs import replace

from node.machine import inputs as i
from node.machine.announcing import announce_own_rollouts, report_own_reward
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
    all_bodies_settled,
    bodies_to_quote,
    body_announced,
    body_arrived,
    body_refused,
    mark_used,
    may_wait_for_quotes,
    recheck_quoting,
    unused_bodies,
    waits_for_quotes,
)
from node.machine.pacing import (
    groups_that_fit,
    latest_training_start,
    learn_generation_speed,
    learn_training_speed,
    local_deadline,
    margin,
    quote_deadline,
    stage_seconds,
    training_estimate,
    with_retry_speed,
)
from node.machine.skipping import DOING, count_lost_training, skip_stage
from node.machine.state import (
    MAX_CURVE,
    MAX_REWARDS,
    BodyRecord,
    Result,
    State,
    TrainerTask,
    apply_transitions,
    becomes,
    current_step,
    has_trained_in,
    is_eligible,
    own_body,
    stage_label,
    with_body,
)
from node.machine.status import CurvePoint, RewardPoint
from node.machine.uncounted_bodies import refuse_off_policy
from node.machine.voting import due_votes
from protocols.identifiers import Digest
from protocols.schedule import step_number
from protocols.wire import NOTHING

TIMER_SLACK = 0.05
"""Seconds by which a timer may fire early and still count."""


def schedule_next_task(state: State, at: float) -> Result:
    """Give the trainer its next task, if it is there and free."""
    if state.stopping or state.round < 0:
        return state, ()
    if state.draining and _finished(state):
        return replace(state, stopping=True), (StopNode(0, "drained"),)
    if state.trainer != "present" or state.task is not None:
        return state, ()
    phase = state.work.phase
    if phase == "generate" and state.synced and not state.draining and is_eligible(state, state.me, state.round):
        quoted = None if waits_for_quotes(state) else bodies_to_quote(state)
        if quoted is not None:
            return apply_transitions(state, at, lambda s, t: _start_generating(s, quoted, t), _schedule_if_skipped)
    if state.evaluation >= 0 and not state.curve:
        return _ask(state, at, TrainerTask("evaluate", state.round, state.stage, at), EvaluateModel(state.round))
    if phase == "train" and _known_time(state) and (state.work.train_now or all_bodies_settled(state)):
        return apply_transitions(state, at, _start_training, _schedule_if_skipped)
    if state.saving:
        return _ask(state, at, TrainerTask("save", state.unsaved, state.stage, at), SaveCheckpoint(state.unsaved))
    if state.evaluation >= 0:
        return _ask(
            state, at, TrainerTask("evaluate", state.evaluation, state.stage, at), EvaluateModel(state.evaluation)
        )
    return state, ()


def set_rollouts_timer(state: State, at: float) -> Result:
    """Set the timer after which training, or a stage that quotes others, begins with whatever has arrived.

    A stage that quotes has it even if nothing is waited for: more may be announced before the trainer is free.
    """
    if state.work.phase == "generate" and may_wait_for_quotes(state):
        return state, (SetTimer("quote", quote_deadline(state)),)
    training = _is_task(state, "train", state.round, state.stage)
    if state.work.phase != "train" or state.work.train_now or training:
        return state, ()
    return state, (SetTimer("train", latest_training_start(state)),)


def train_timer(state: State, at: float) -> Result:
    """Begin training now if it is time; a timer of an earlier stage or estimate is set again."""
    if state.work.phase != "train" or state.work.train_now:
        return state, ()
    if at + TIMER_SLACK < latest_training_start(state):
        return set_rollouts_timer(state, at)
    return schedule_next_task(replace(state, work=replace(state.work, train_now=True)), at)


def quote_timer(state: State, at: float) -> Result:
    """Stop waiting for bodies to quote; a timer of an earlier stage is set again."""
    if state.work.phase != "generate" or state.round < 0 or state.work.quote_now:
        return state, ()
    if at + TIMER_SLACK < quote_deadline(state):
        return set_rollouts_timer(state, at)
    return schedule_next_task(replace(state, work=replace(state.work, quote_now=True)), at)


def rollouts_generated(state: State, made: i.RolloutsGenerated, at: float) -> Result:
    """Publish this node's rollouts; those of a stage that is over, or of its seed before a reorg, do not count."""
    task = state.task
    if task is None or not _is_task(state, "generate", made.round, made.stage) or made.seed not in (b"", task.seed):
        return state, ()
    state = learn_generation_speed(replace(state, task=None), made.groups, made.seconds)
    if made.groups < state.parameters.minimum:
        reason = f"{made.groups} of at least {state.parameters.minimum} groups were made"
        return apply_transitions(state, at, lambda state, at: skip_stage(state, reason, at), schedule_next_task)
    body = BodyRecord(made.body, made.size, "arrived", made.groups, made.reward, announced_at=at)
    state = with_body(state, current_step(state), state.me, body)
    mean = made.reward / made.groups
    state = replace(
        state,
        work=becomes(state.work, "rollouts published"),
        rewards=(*state.rewards, RewardPoint(made.round, mean, made.stage, made.right / made.groups))[-MAX_REWARDS:],
    )
    state, more = apply_transitions(state, at, schedule_next_task, set_rollouts_timer)
    return state, (*announce_own_rollouts(state), *report_own_reward(state), *more)


def announced_before(state: State, before: i.AnnouncedBefore, at: float) -> Result:
    """Take the body that this node announced for the stage, and has forgotten, as its own: none other may follow it."""
    task = state.task
    if task is None or not _is_task(state, "generate", before.round, before.stage) or before.seed != task.seed:
        return state, ()
    reason = "nothing" if before.body == NOTHING else "" if before.size else "unavailable"
    body = BodyRecord(before.body, before.size, "refused" if reason else "arrived", reason=reason)
    state = with_body(replace(state, task=None), current_step(state), state.me, body)
    if reason:
        why = f"{stage_label(state, before.round, before.stage)} was announced before, and its rollouts are not here"
        state, commands = skip_stage(state, why, at)
    else:
        state, commands = replace(state, work=becomes(state.work, "rollouts published")), ()
    announced = announce_own_rollouts(state)
    state, more = apply_transitions(state, at, schedule_next_task, set_rollouts_timer)
    return state, (*commands, *announced, *more)


def rollouts_announced(state: State, announcement: i.RolloutsAnnounced, at: float) -> Result:
    """Fetch an announced body; go on if it was the last one to wait for and there is none."""
    return apply_transitions(state, at, lambda s, t: body_announced(s, announcement, t), schedule_next_task)


def rollouts_arrived(state: State, arrived: i.RolloutsArrived, at: float) -> Result:
    """Keep a body; go on if it was the last one to wait for."""
    return apply_transitions(
        state, at, lambda s, _: body_arrived(s, arrived), lambda s, _: recheck_quoting(s, arrived), schedule_next_task
    )  # fmt: skip


def rollouts_refused(state: State, refused: i.RolloutsRefused, at: float) -> Result:
    """Stop waiting for a body; go on if it was the last one to wait for."""
    return apply_transitions(state, at, lambda state, _: body_refused(state, refused), schedule_next_task)


def training_finished(state: State, done: i.TrainingFinished, at: float) -> Result:
    """Count the updates, also those of the last stage; refuse bodies that the model does not believe; schedule
    checkpoint and evaluation."""
    if not _is_task(state, "train", done.round, done.stage):
        return state, ()
    totals = state.totals
    totals = replace(
        totals,
        rounds_worked=totals.rounds_worked + (not has_trained_in(state, done.round)),
        updates=totals.updates + done.updates,
        own_groups=totals.own_groups + done.own,
        external_groups=totals.external_groups + done.external,
    )
    state = learn_training_speed(replace(state, task=None, totals=totals, unsaved=done.round), done.seconds)
    state = _own_used(state, done.round, done.stage)
    if done.stage == state.parameters.stages - 1 or done.round < state.round:
        state = round_done(state)
    elif state.draining:
        state = to_be_saved(state)
    if (done.round, done.stage) == (state.round, state.stage):
        state = replace(state, work=becomes(state.work, "training finished"))
    return apply_transitions(state, at, lambda state, _: refuse_off_policy(state, done.off_policy), schedule_next_task)


def to_be_saved(state: State) -> State:
    """Return the state in which a checkpoint is due, if the last one is not up to date."""
    return replace(state, saving=state.saving or state.unsaved >= 0)


def round_done(state: State) -> State:
    """Return the state in which the round's training is to be saved and, every so often, measured."""
    if state.unsaved < 0:
        return state
    following, every = state.unsaved + 1, state.parameters.evaluate_every
    due = following // every > max(0, state.evaluated) // every
    return replace(to_be_saved(state), evaluation=following if due else state.evaluation)


def evaluation_finished(state: State, done: i.EvaluationFinished, at: float) -> Result:
    """Add a point to the learning curve."""
    if state.task is None or state.task.kind != "evaluate" or state.task.round != done.round:
        return state, ()
    curve = (*state.curve, CurvePoint(done.round, at, done.accuracy))[-MAX_CURVE:]
    return schedule_next_task(_evaluated(replace(state, task=None, curve=curve), done.round), at)


def checkpoint_saved(state: State, saved: i.CheckpointSaved, at: float) -> Result:
    """Go on after a checkpoint."""
    if state.task is None or state.task.kind != "save" or state.task.round != saved.round:
        return state, ()
    state = replace(state, task=None, saving=False, unsaved=-1 if state.unsaved == saved.round else state.unsaved)
    return schedule_next_task(state, at)


def work_failed(state: State, failed: i.WorkFailed, at: float) -> Result:
    """Go on without what the trainer gave up; a failed task of a seed before a reorg does not count."""
    task = state.task
    if task is None or task.kind != failed.task or task.round != failed.round or failed.seed not in (b"", task.seed):
        return state, ()
    if task.kind in ("generate", "train") and task.stage != failed.stage:
        return state, ()
    state, commands = _given_up(replace(state, task=None), task, failed.reason, at)
    return apply_transitions(state, at, lambda state, _: (state, commands), schedule_next_task)


def trainer_ready(state: State, ready: i.TrainerReady, at: float) -> Result:
    """Give the trainer its next task: a child process that has just started has none.

    Where its training began before the timer was set, because every body was here, it may have to wait now: for a peer
    that has registered since.
    """
    state, commands = schedule_next_task(replace(state, trainer="present", task=None), at)
    if state.work.phase != "train" or state.task is not None:
        return state, commands
    return apply_transitions(state, at, lambda state, _: (state, commands), set_rollouts_timer)


def trainer_lost(state: State, lost: i.TrainerLost, at: float) -> Result:
    """Note that the trainer is gone. An evaluation or a checkpoint that killed the child is not asked for again."""
    task = state.task
    state = replace(state, trainer="absent")
    if task is not None and task.kind in ("evaluate", "save"):
        return _given_up(replace(state, task=None), task, lost.reason, at)
    return drop_task(state, f"lost with the trainer: {lost.reason}")


def drop_task(state: State, how: str) -> Result:
    """Forget the trainer's task. What belongs to the current stage is asked for again; an earlier one's is missed."""
    task = state.task
    state = replace(state, task=None)
    if task is None or task.kind != "train":
        return state, ()
    return count_lost_training(state, task, f"training of {stage_label(state, task.round, task.stage)} was {how}")


def _given_up(state: State, task: TrainerTask, reason: str, at: float) -> Result:
    if task.kind == "evaluate":
        return _evaluated(state, task.round), ()
    if task.kind == "save":
        return replace(state, saving=False), ()
    why = f"{DOING[task.kind]} of {stage_label(state, task.round, task.stage)} failed: {reason}"
    if (task.round, task.stage) != (state.round, state.stage):
        return count_lost_training(state, task, why)
    return skip_stage(state, why, at)


def _evaluated(state: State, round_number: int) -> State:
    return replace(state, evaluated=round_number, evaluation=-1)


def _start_generating(state: State, quoted: tuple[Digest, ...], at: float) -> Result:
    groups = groups_that_fit(state, at)
    if groups >= state.parameters.minimum:
        task = TrainerTask("generate", state.round, state.stage, at, groups, state.seed)
        return _ask(state, at, task, GenerateRollouts(state.round, state.stage, state.seed, groups, quoted))
    left = local_deadline(state) - at
    reason = f"{max(0.0, left):.0f} s of {stage_label(state, state.round, state.stage)} were left"
    if state.speed.generate:
        need = state.parameters.minimum * state.speed.generate + training_estimate(state)
        reason += f", {state.parameters.minimum} groups and training on them take about {need:.0f} s"
    return skip_stage(with_retry_speed(state) if left > margin(state) and _idle_before(state) else state, reason, at)


def _idle_before(state: State) -> bool:
    """Return True if this node made nothing in the last stage either: then its measured speed keeps it from work, and
    not one input that came late."""
    body = state.bodies_by_step.get(current_step(state) - 1, {}).get(state.me)
    return body is None or not body.groups


def _start_training(state: State, at: float) -> Result:
    """Train on the own body and on what has arrived, within the time that is left.

    While the chain is away nothing else can follow, so that training begins however late it is.
    """
    body = own_body(state)
    if body is None:
        return skip_stage(state, f"the rollouts of {stage_label(state, state.round, state.stage)} are gone", at)
    seconds = local_deadline(state) - at
    if state.chain != "present":
        seconds = max(seconds, float(stage_seconds(state)))
    if seconds <= 0 or seconds < state.speed.train:
        where = stage_label(state, state.round, state.stage)
        need = f"training takes about {state.speed.train:.0f} s" if state.speed.train else "training had not begun"
        return skip_stage(state, f"{max(0.0, seconds):.0f} s of {where} were left, {need}", at)
    external = state.work.external or unused_bodies(state)
    state = mark_used(replace(state, work=replace(state.work, external=external)), external)
    task = TrainerTask("train", state.round, state.stage, at)
    order = TrainOnRollouts(
        state.round, state.stage, body.digest, external, state.parameters.updates, max(1.0, seconds - margin(state))
    )
    return _ask(state, at, task, order)


def _known_time(state: State) -> bool:
    """Return True if the stage of the own rollouts is known to be open, or can't be known while the chain is away."""
    return state.synced or state.chain == "absent"


def _schedule_if_skipped(state: State, at: float) -> Result:
    return schedule_next_task(state, at) if state.task is None else (state, ())


def _ask(state: State, at: float, task: TrainerTask, command: AnyCommand) -> Result:
    return replace(state, task=task), (command,)


def _is_task(state: State, kind: str, round_number: int, stage: int) -> bool:
    task = state.task
    return task is not None and (task.kind, task.round, task.stage) == (kind, round_number, stage)


def _own_used(state: State, round_number: int, stage: int) -> State:
    step = step_number(round_number, stage, state.parameters.stages)
    body = state.bodies_by_step.get(step, {}).get(state.me)
    return state if body is None else with_body(state, step, state.me, replace(body, used=True))


def _finished(state: State) -> bool:
    """Return True if a draining node has nothing left to finish in this stage; a lost trainer has nothing to save."""
    if state.task is not None and state.task.kind != "evaluate":
        return False
    if state.work.phase == "train" or due_votes(state):
        return False
    return not state.saving or state.trainer != "present"
