"""Whatever happens in whatever order, the machine stays within its bounds and keeps its promises."""

from __future__ import annotations

import msgspec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from node.machine import commands as c
from node.machine import inputs as i
from node.machine.pacing import local_deadline
from node.machine.state import State, initial
from node.machine.step import step
from node.machine.transaction_keys import AdvanceKey, MessageKey, RegistrationKey, RelayKey, TransactionKey
from protocols.identifiers import body_digest
from protocols.manifest import GameSpec, Limits, Manifest, StageSpec, VotingSpec
from protocols.signed_messages import (
    MessageKind,
    MessageTopic,
    SignedCommitment,
    SignedDelegation,
    SignedMessage,
    SignedRevocation,
    SignedReward,
    SignedVote,
    VoteReveal,
)
from protocols.wire import NOTHING
from tests.support.machine_watch import ME, PEERS, MachineWatch

ROUNDS = st.integers(0, 5)
STAGES = st.integers(0, 2)
VARIANTS = st.integers(0, 1)
SNAPSHOT_LIMIT = 64_000

SIGNATURE, WORD = bytes(65), bytes(32)
VOTES = (MessageKind.COMMIT, MessageKind.REVEAL, MessageKind.VOTE)
MESSAGES = st.one_of(
    st.builds(SignedCommitment, ROUNDS, st.just(WORD), st.just(SIGNATURE)),
    st.builds(VoteReveal, ROUNDS, st.just((PEERS[1],)), st.just(WORD)),
    st.builds(SignedVote, ROUNDS, st.just((PEERS[1],)), st.just(SIGNATURE)),
    st.builds(SignedReward, ROUNDS, STAGES, st.just(5), st.just(SIGNATURE)),
    st.builds(SignedRevocation, st.just(ME), st.sampled_from(PEERS), st.integers(0, 3), st.just(SIGNATURE)),
    st.builds(
        SignedDelegation,
        st.just(ME), st.sampled_from(PEERS), st.integers(0, 3), st.just(9), st.just(SIGNATURE), st.just(SIGNATURE),
    ),
)  # fmt: skip
CARGOES = st.lists(MESSAGES, max_size=8).map(tuple)

decoder = msgspec.msgpack.Decoder(State)


def body(peer: str, round_number: int, stage: int, variant: int) -> bytes:
    return body_digest(f"{peer} {round_number} {stage} {variant}".encode())


def seed(round_number: int, variant: int) -> bytes:
    return body_digest(f"seed {round_number} {variant}".encode())


class Machine(RuleBasedStateMachine):
    """A machine to which anything happens, and a watch beside it."""

    @initialize(
        mode=st.sampled_from(["sealed", "open"]),
        stages=st.integers(1, 3),
        kept=st.integers(0, 2),
        game=st.sampled_from(["share", "debate"]),
        played=st.integers(0, 5),
        behind=st.booleans(),
    )
    def begin(self, mode: str, stages: int, kept: int, game: str, played: int, behind: bool) -> None:
        """A new node, or one that has played some stages with two others, and may be behind with the last one."""
        self.manifest = Manifest(
            name="property",
            game=GameSpec(name=game, num_prompts=8, min_prompts=2),
            stages=tuple(StageSpec(name=str(number), seconds=20) for number in range(stages)),
            voting=VotingSpec(mode=mode, winners=2, minimum_groups=1),  # type: ignore[arg-type]
            limits=Limits(rounds_kept=kept),
            evaluate_every=2,
        )
        self.now = 1000.0
        self.state = initial(ME, self.manifest)
        self.journal: list[i.Stamped] = []
        self.watch = MachineWatch(self.manifest)
        self.feed(i.NodeStarted())
        for peer in PEERS[:4]:
            self.feed(i.PeerRegistered(peer, 0))
        self.feed(i.ChainRestored(0.0))
        self.feed(i.NetworkChanged(3))
        self.feed(i.TrainerReady(1, "cpu", -1))
        for _ in range(played):
            self.ordinary_stage(set(PEERS[1:3]), settle=True, answers=5)
        if behind:
            self.training_runs_over(PEERS[3], 1000, 1)

    # --- what happens -----------------------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([0.0, 0.5, 3.0, 11.0, 25.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(happened=st.sampled_from([i.NodeStarted(), i.DrainRequested(), i.StopRequested()]))
    def life(self, happened: i.AnyInput) -> None:
        self.feed(happened)

    @precondition(lambda self: self.watch.stopped)
    @rule(up=st.booleans())
    def start_again(self, up: bool) -> None:
        self.feed(i.NodeStarted())
        if up:
            self.feed(i.ChainRestored(0.0))
            self.feed(i.TrainerReady(1, "cpu", -1))

    @rule(ahead=st.integers(-2, 2), stage=STAGES, variant=VARIANTS, rewound=st.booleans())
    def any_stage(self, ahead: int, stage: int, variant: int, rewound: bool) -> None:
        self.open(self.state.round + ahead, stage, variant, rewound)

    @rule(arriving=st.sets(st.sampled_from(PEERS[1:])), settle=st.booleans(), answers=st.integers(0, 5))
    def ordinary_stage(self, arriving: set[str], settle: bool, answers: int) -> None:
        """A stage as it should be: rollouts come, the trainer answers (or is at it still), transactions are mined."""
        self.next_stage(0)
        for peer in sorted(arriving):
            self.rollouts(peer, 0, self.state.stage, 0, 8)
        for _ in range(answers):
            self.wait_for("quote", "train")
            if self.watch.task is not None:
                self.trainer_answers(1, 1.0)
        for round_number, of_seed in sorted(self.watch.voted) if settle else ():
            for kind in VOTES:
                self.settle(kind, round_number, of_seed, ok=True)

    @rule(variant=VARIANTS)
    def next_stage(self, variant: int) -> None:
        stages = len(self.manifest.stages)
        following = self.state.round * stages + self.state.stage + 1 if self.state.round >= 0 else 0
        if following % stages and self.state.seed:
            variant = [seed(self.state.round, 0), seed(self.state.round, 1)].index(self.state.seed)
        self.open(following // stages, following % stages, variant, rewound=False)

    @rule(peer=st.sampled_from(PEERS), since=st.integers(0, 2), owner=st.sampled_from(["", PEERS[1], PEERS[2]]))
    def peer(self, peer: str, since: int, owner: str) -> None:
        self.feed(i.PeerRegistered(peer, since, owner))

    @rule(back=st.booleans(), offset=st.floats(-5, 5))
    def chain(self, back: bool, offset: float) -> None:
        self.feed(i.ChainRestored(offset) if back else i.ChainLost("gone"))

    @rule(relays=st.booleans())
    def funds(self, relays: bool) -> None:
        self.feed(i.FundsChanged(relays))

    @precondition(lambda self: self.state.round >= 0)
    @rule(seconds=st.sampled_from([-5, 0, 7, 40]), moved=st.booleans(), elsewhere=st.booleans())
    def pause(self, seconds: int, moved: bool, elsewhere: bool) -> None:
        """The organiser pauses or ends the pause, in this stage or in one that is over."""
        state, until = self.state, int(self.now + self.state.offset) + seconds
        deadline = state.deadline + (seconds if moved else 0)
        self.feed(i.PauseChanged(state.round - elsewhere, state.stage, until, deadline))

    @rule(days=st.sampled_from([-1, 0, 3, 20, 90]), renewal=st.integers(0, 2))
    def delegation(self, days: int, renewal: int) -> None:
        self.feed(i.DelegationRead(int(self.now) + days * 86_400, renewal))

    @rule(peer=st.sampled_from(PEERS), named=st.sampled_from(PEERS), serial=st.integers(0, 2))
    def introduced(self, peer: str, named: str, serial: int) -> None:
        self.feed(i.NodeIntroduced(peer, SignedDelegation(ME, named, serial, 9, SIGNATURE, SIGNATURE)))

    @rule(peer=st.sampled_from(PEERS), back=st.integers(-1, 1), relays=st.booleans(), carried=CARGOES)
    def carried(self, peer: str, back: int, relays: bool, carried: tuple[SignedMessage, ...]) -> None:
        """An announcement without rollouts, of this stage or one beside it, with all sorts of messages."""
        stages = len(self.manifest.stages)
        where = divmod(max(0, self.state.round * stages + self.state.stage - back), stages)
        self.feed(i.RolloutsAnnounced(peer, *where, NOTHING, 0, False, relays, carried))

    @precondition(lambda self: self.state.round >= 0)
    @rule(share=st.sampled_from([0.41, 0.6, 0.8]), relays=st.booleans(), carriers=st.sets(st.sampled_from(PEERS[1:])))
    def ordinary_relaying(self, share: float, relays: bool, carriers: set[str]) -> None:
        """A stage in which everybody carries what it should, and whose relayers' time comes."""
        self.feed(i.FundsChanged(True))
        here, before = self.state.round, max(0, self.state.round - 1)
        for peer in sorted(carriers):
            message_pool = (
                SignedCommitment(before, WORD, SIGNATURE),
                VoteReveal(before, (PEERS[1],), WORD),
                VoteReveal(max(0, before - 1), (PEERS[1],), WORD),
                SignedVote(before, (PEERS[1],), SIGNATURE),
                SignedReward(here, self.state.stage, 5, SIGNATURE),
            )
            self.feed(i.RolloutsAnnounced(peer, here, self.state.stage, NOTHING, 0, False, relays, message_pool))
        self.now = max(self.now, local_deadline(self.state) - 20 * (1 - share))
        if "relay" in self.watch.timers:
            del self.watch.timers["relay"]
            self.feed(i.TimerFired("relay"))

    @rule(connected=st.integers(0, 3))
    def network(self, connected: int) -> None:
        self.feed(i.NetworkChanged(connected))

    @rule(up=st.booleans())
    def trainer(self, up: bool) -> None:
        self.watch.task = None
        self.feed(i.TrainerReady(1, "cpu", -1) if up else i.TrainerLost("killed"))

    @rule(
        peer=st.sampled_from(PEERS), back=st.integers(-1, 2), stage=STAGES, variant=VARIANTS, groups=st.integers(0, 8)
    )
    def rollouts(self, peer: str, back: int, stage: int, variant: int, groups: int) -> None:
        where = (self.state.round - back, stage)
        digest = body(peer, *where, variant)
        self.feed(i.RolloutsAnnounced(peer, *where, digest, 1000, inline=False))
        if groups:
            self.feed(i.RolloutsArrived(peer, *where, digest, groups, groups / 2))
        elif variant:
            missing = (body(ME, where[0], 0, 1),) if stage else ()
            self.feed(i.RolloutsRefused(peer, *where, digest, "schema", missing))

    @rule(peer=st.sampled_from(PEERS[2:]), size=st.sampled_from([0, 1000]), back=st.integers(1, 2))
    def training_runs_over(self, peer: str, size: int, back: int) -> None:
        """The next stage opens before the training is done; meanwhile more is heard of what was announced before."""
        self.ordinary_stage(set(PEERS[1:3]), settle=False, answers=1)
        self.wait_for("train")
        self.next_stage(0)
        stages = len(self.manifest.stages)
        where = divmod(max(0, self.state.round * stages + self.state.stage - back), stages)
        digest = body(peer, *where, 0) if size else NOTHING
        self.feed(i.RolloutsAnnounced(peer, *where, digest, size, False, late=True))
        if self.watch.task is not None:
            self.trainer_answers(1, 1.0)

    @precondition(lambda self: self.watch.timers)
    @rule()
    def timer(self) -> None:
        self.fire(min(self.watch.timers, key=lambda name: (self.watch.timers[name], name)))

    def wait_for(self, *names: str) -> None:
        """Let time pass until these timers have fired, as long as the trainer has nothing to do."""
        for name in names:
            if self.watch.task is None and name in self.watch.timers:
                self.fire(name)

    def fire(self, name: str) -> None:
        self.now = max(self.now, self.watch.timers.pop(name))
        self.feed(i.TimerFired(name))

    @precondition(lambda self: self.watch.voted)
    @rule(
        kind=st.sampled_from(VOTES),
        ok=st.booleans(),
        data=st.data(),
    )
    def settled(self, kind: MessageKind, ok: bool, data: st.DataObject) -> None:
        round_number, of_seed = data.draw(st.sampled_from(sorted(self.watch.voted)))
        self.settle(kind, round_number, of_seed, ok)

    def settle(self, kind: MessageKind, round_number: int, of_seed: bytes, ok: bool) -> None:
        if ok and kind == MessageKind.COMMIT:
            self.watch.mined.add((round_number, of_seed))
        key = MessageKey(MessageTopic(kind, round_number), of_seed)
        self.feed(i.TransactionSettled(key, ok, "tx", "" if ok else "BadReveal"))

    @rule(
        key=st.sampled_from([
            RegistrationKey(), AdvanceKey(1, 0), RelayKey(MessageTopic(MessageKind.COMMIT, 1), 1, 0, 0),
            MessageKey(MessageTopic(MessageKind.REWARD, 1, 0)), MessageKey(MessageTopic(MessageKind.COMMIT, 9), b"?"),
        ])
    )  # fmt: skip
    def other_settled(self, key: TransactionKey) -> None:
        self.feed(i.TransactionSettled(key, ok=False, transaction="", error="refused"))

    @precondition(lambda self: self.watch.task is not None)
    @rule(well=st.integers(0, 4), seconds=st.floats(0.1, 30))
    def trainer_answers(self, well: int, seconds: float) -> None:
        task, self.watch.task = self.watch.task, None
        self.now += seconds
        match task:
            case c.GenerateRollouts() if (known := self.announced_before(task)) is not None:
                self.feed(known)
            case c.GenerateRollouts():
                made = i.RolloutsGenerated(
                    task.round, task.stage, body(ME, task.round, task.stage, well), 10, task.groups, 1.0, seconds
                )
                self.feed(made if well else i.WorkFailed("generate", task.round, task.stage, "memory"))
            case c.TrainOnRollouts():
                off_policy = task.external[:: max(1, well)]
                done = i.TrainingFinished(task.round, task.stage, 1, 2, len(task.external), 0.1, seconds, off_policy)
                self.feed(done if well else i.WorkFailed("train", task.round, task.stage, "nonfinite"))
            case c.EvaluateModel():
                measured = i.EvaluationFinished(task.round, 0.5, 400, seconds)
                self.feed(measured if well else i.WorkFailed("evaluate", task.round, 0, "error"))
            case c.SaveCheckpoint():
                self.feed(i.CheckpointSaved(task.round) if well else i.WorkFailed("save", task.round, 0, "disk"))

    def announced_before(self, task: c.GenerateRollouts) -> i.AnnouncedBefore | None:
        """Return what the vote protection answers; every third body is not kept any more."""
        where = (task.round, task.stage, task.seed)
        known = self.watch.announced.get(where)
        return (
            None if known is None else i.AnnouncedBefore(*where, known, 10 if known[0] % 3 and known != NOTHING else 0)
        )

    @rule(round_number=ROUNDS, stage=STAGES)
    def nonsense(self, round_number: int, stage: int) -> None:
        """Results nobody asked for; what happens to be awaited is left out, since it would be an answer."""
        for happened in (
            i.RolloutsGenerated(round_number, stage, bytes(32), 10, 4, 1.0, 1.0),
            i.TrainingFinished(round_number, stage, 1, 1, 1, 0.1, 1.0, (bytes(32),)),
            i.EvaluationFinished(round_number, 0.5, 400, 1.0),
            i.CheckpointSaved(round_number),
            i.AnnouncedBefore(round_number, stage, seed(round_number, 0), bytes(32), 10),
            i.TimerFired("nobody"),
        ):
            task = self.state.task
            if task is None or task.round != round_number:
                self.feed(happened)

    # --- what must hold ---------------------------------------------------------------------------------------------

    def open(self, round_number: int, stage: int, variant: int, rewound: bool) -> None:
        opened = int(self.now)
        self.feed(
            i.StageOpened(round_number, stage, seed(round_number, variant), opened + 20, opened, 1, rewound=rewound)
        )

    def feed(self, happened: i.AnyInput) -> None:
        stamped = i.Stamped(self.now, happened)
        self.journal.append(stamped)
        before = self.state
        self.state, commands = step(before, stamped)
        assert (self.state, commands) == step(before, stamped), "the same arguments gave two results"
        moved = (before.round, before.stage, before.seed) != (self.state.round, self.state.stage, self.state.seed)
        self.watch.happened(happened, moved)
        for command in commands:
            self.watch.commanded(self.state, self.now, command)
        self.watch.bounded(self.state)
        self.watch.moving(self.state)

    def teardown(self) -> None:
        if not hasattr(self, "state"):
            return
        snapshot = msgspec.msgpack.encode(self.state)
        assert len(snapshot) < SNAPSHOT_LIMIT
        assert decoder.decode(snapshot) == self.state
        self.replay_from(0, initial(ME, self.manifest))

    def replay_from(self, sequence: int, state: State) -> None:
        """Replaying what was journalled, also by way of a snapshot half way, ends in the same state."""
        journal = [msgspec.msgpack.decode(msgspec.msgpack.encode(each), type=i.Stamped) for each in self.journal]
        for number, stamped in enumerate(journal[sequence:]):
            state, _ = step(state, stamped)
            if number == len(journal) // 2:
                state = decoder.decode(msgspec.msgpack.encode(state))
        assert state == self.state


TestMachine = Machine.TestCase
TestMachine.settings = settings(
    max_examples=50, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck)
)
