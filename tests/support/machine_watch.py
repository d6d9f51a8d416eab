"""What a watchful operator would remember of a machine's inputs and commands, and what must hold of them."""

from __future__ import annotations

import msgspec

from node.machine import commands as c
from node.machine import inputs as i
from node.machine import notices as n
from node.machine import views
from node.machine.external_bodies import bodies_to_quote
from node.machine.pacing import local_deadline
from node.machine.relaying import MAX_BATCH, MAX_INTRODUCED, MAX_NEWCOMERS, MAX_POOLED_PEERS, OWNER_QUOTA, is_timely
from node.machine.stage_transition import AHEAD
from node.machine.state import MAX_CURVE, MAX_REORGED_BODIES, MAX_REWARDS, MAX_VOTES, Output, State, is_eligible
from protocols.manifest import Manifest
from protocols.signed_messages import MessageTopic, SignedDelegation, SignedRevocation, topic_of
from protocols.wire import NOTHING

PEERS = tuple(f"0x{number:040x}" for number in range(1, 6))
ME = PEERS[0]


class MachineWatch:
    """The machine's promises."""

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self.voted: dict[tuple[int, bytes], tuple[str, ...]] = {}
        self.mined: set[tuple[int, bytes]] = set()
        self.task: c.AnyCommand | None = None
        self.timers: dict[str, float] = {}
        self.stopped = False
        self.announced: dict[tuple[int, int, bytes], bytes] = {}
        """What the vote protection has: the first body that was announced for each round, stage and seed."""
        self._turns: dict[MessageTopic, set[int]] = {}
        self._set_here: set[str] = set()

    def happened(self, happened: i.AnyInput, moved: bool) -> None:
        """Note an input, and whether the machine stands in another round, stage or seed since."""
        if moved or isinstance(happened, i.StageOpened):
            self._turns = {}
        if moved or isinstance(happened, i.NodeStarted):
            self._set_here.clear()
        if isinstance(happened, i.TimerFired):
            self._set_here.discard(happened.name)
        if isinstance(happened, i.NodeStarted):
            self.task = None
            self.stopped = False
            self.timers.clear()

    def commanded(self, state: State, now: float, command: Output) -> None:
        """Check an output that a step gave, with the state that it gave beside."""
        match command:
            case c.CommitVote() | c.CastVote():
                assert isinstance(command, c.CommitVote) == (self.manifest.voting.mode == "sealed")
                assert command.winners == self.voted.setdefault((command.round, command.seed), command.winners)
                assert ME not in command.winners
                assert 0 < len(command.winners) <= 2
            case c.RevealVote():
                assert (command.round, command.seed) in self.mined
                assert command.winners == self.voted[command.round, command.seed]
            case c.GenerateRollouts() | c.PublishRollouts() | c.ReportReward():
                assert (command.round, command.stage, command.seed) == (state.round, state.stage, state.seed)
            case c.AdvanceStage():
                assert (command.round, command.stage) == (state.round, state.stage)
                assert state.chain == "present"
                assert now + 0.1 >= state.paused_until - state.offset
            case n.DelegationEnding():
                assert command.over == (now + state.offset >= state.expiry > 0)
            case c.FetchRollouts():
                assert command.peer != ME
                assert command.seed == views.window_seeds(state)[command.round]
            case c.SetTimer(name=name, at=at):
                self.timers[name] = at
                self._set_here.add(name)
            case c.RelayMessages():
                self._relay(state, command)
        if isinstance(command, c.CommitVote | c.RevealVote | c.CastVote | c.ReportReward) and command.after:
            assert abs(local_deadline(state) - 2 - command.after) < 1e-6
            assert not state.draining
        if isinstance(command, c.PublishRollouts):
            self._announcement(state, command)
        if isinstance(command, c.GenerateRollouts):
            assert 2 <= command.groups <= 8
            assert state.peers[ME] <= command.round
            assert bool(command.quoted) == bool(state.parameters.quotes[command.stage])
            assert set(command.quoted) <= self._arrived_before(state, command.round, command.stage)
        if isinstance(command, c.TrainOnRollouts):
            assert (command.round, command.stage) == (state.round, state.stage)
            assert command.seconds >= 1
            assert len(set(command.external)) == len(command.external)
        if isinstance(command, c.StopNode):
            self.stopped = True
        if isinstance(command, c.AbortWork):
            self.task = None
        if isinstance(command, c.GenerateRollouts | c.TrainOnRollouts | c.EvaluateModel | c.SaveCheckpoint):
            assert self.task is None, f"{command} while {self.task} is outstanding"
            self.task = command

    def _announcement(self, state: State, command: c.PublishRollouts) -> None:
        """No second body is announced for one stage and seed; what is attached can be submitted now.

        Messages without a body may follow one that was forgotten: they are announced with the first body.
        """
        where = (command.round, command.stage, command.seed)
        assert (command.size == 0) == (command.body == NOTHING)
        assert command.body in (self.announced.setdefault(where, command.body), NOTHING)
        assert not command.relays or (state.relays and not state.draining and state.doppelganger_watch is None)
        for each in command.attached:
            assert each.after == 0
            assert not isinstance(each, c.RevealVote) or (each.round, each.seed) in self.mined

    def _relay(self, state: State, command: c.RelayMessages) -> None:
        """A turn is taken once, by a relayer that can; what it brings is due, bounded, and not its own."""
        assert state.relays
        assert state.chain == "present"
        assert not state.draining
        assert (command.round, command.stage) == (state.round, state.stage)
        taken = self._turns.setdefault(command.topic, set())
        assert all(command.turn > turn for turn in taken)
        taken.add(command.turn)
        assert 0 < len(command.messages) <= MAX_BATCH
        assert ME not in {load.peer for load in command.messages}
        for load in command.messages:
            assert topic_of(load.message) == command.topic
            assert is_timely(state, load.message)
            if not isinstance(load.message, SignedDelegation | SignedRevocation):
                assert command.seed == state.seeds[load.message.round]
        if command.topic.has_round:
            assert len({load.peer for load in command.messages}) == len(command.messages)
        delegated = {each.message.node for each in command.messages if isinstance(each.message, SignedDelegation)}
        assert len(delegated - set(state.peers)) <= MAX_NEWCOMERS
        for owner in PEERS:
            assert sum(state.owners.get(load.peer, load.peer) == owner for load in command.messages) <= OWNER_QUOTA

    def _arrived_before(self, state: State, round_number: int, stage: int) -> set[bytes]:
        first = round_number * len(self.manifest.stages)
        by_stage = (state.bodies_by_step.get(step, {}) for step in range(first, first + stage))
        return {each.digest for bodies in by_stage for each in bodies.values() if each.state == "arrived"}

    def moving(self, state: State) -> None:
        """Check that a free trainer waits for nothing that may never come: a timer set in this stage ends the waiting.

        Only a stage that has found nothing at all to quote waits until it is over.
        """
        if state.stopping or state.doppelganger_watch or not state.synced or state.chain != "present":
            return
        if state.trainer != "present" or state.task is not None or not is_eligible(state, ME, state.round):
            return
        assert not state.saving
        if state.work.phase == "generate" and not state.draining:
            assert "quote" in self._set_here or (state.work.quote_now and bodies_to_quote(state) is None)
        if state.work.phase == "train":
            assert "train" in self._set_here
            assert not state.work.train_now

    def bounded(self, state: State) -> None:
        """Check that nothing in a state grows beyond its bounds."""
        stages = len(self.manifest.stages)
        kept = max(1, self.manifest.limits.rounds_kept) + 1 + AHEAD
        assert len(state.bodies_by_step) <= kept * stages
        assert len(state.seeds) <= max(3 + AHEAD, kept)
        assert all(len(bodies) <= len(PEERS) for bodies in state.bodies_by_step.values())
        assert len(state.reorged_bodies) <= MAX_REORGED_BODIES
        assert len(state.votes) <= MAX_VOTES
        assert len(state.curve) <= MAX_CURVE
        assert len(state.rewards) <= MAX_REWARDS
        assert min(msgspec.structs.astuple(state.totals)) >= 0
        assert len(state.message_pool) <= MAX_POOLED_PEERS
        assert len(state.introduced) <= MAX_INTRODUCED
        assert not set(state.introduced) & set(state.peers)
        assert ME not in {*state.relayers, *state.message_pool, *state.introduced}
        assert set(views.window_seeds(state)) <= set(state.seeds)
        assert views.status(state).round == state.round
