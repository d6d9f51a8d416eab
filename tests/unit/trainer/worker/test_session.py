"""Rounds of work: the same again after a restart, whatever happened to a file."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from msgspec.structs import replace
from transformers import AutoModelForCausalLM

from node.config import TrainerSettings
from node.data.arithmetic import ArithmeticQuestions
from node.files.atomic import replace_directory
from node.trainer import messages as f
from node.trainer.engines.builtin.builtin_engine import BuiltinEngine
from node.trainer.engines.builtin.builtin_model import BuiltinModel
from node.trainer.engines.builtin.builtin_tokenizer import BuiltinTokenizer
from node.trainer.engines.engine import Cancelled
from node.trainer.worker.session import Session, TaskContext
from protocols.identifiers import body_digest
from protocols.manifest import DataSpec, GameSpec, Manifest
from protocols.wire import decode_rollouts, encode
from tests.unit.trainer.conftest import SHAPE

SEED = bytes(range(32))
MANIFEST = Manifest(
    name="test",
    data=DataSpec(held_out=4),
    game=GameSpec(num_prompts=4, local_groups=2, external_groups=2, updates=3, max_completion=12),
)
IDLE = TaskContext(lambda: False, lambda done, total: None)


@pytest.fixture
def opened(builtin_tokenizer: BuiltinTokenizer, tmp_path: Path) -> Callable[..., Session]:
    """Opens the directory as a new process would: fresh weights, then what is on disk."""

    def build(clock: Callable[[], float] | None = None, **settings: object) -> Session:
        model = BuiltinModel(SHAPE)
        model.initialise(1)
        engine = BuiltinEngine(model, builtin_tokenizer, MANIFEST.game)
        chosen = TrainerSettings(learning_rate=0.01, **settings)  # type: ignore[arg-type]
        setup = f.SetUp(chosen, MANIFEST, "0x" + "11" * 20, str(tmp_path))
        return Session(setup, engine, clock) if clock else Session(setup, engine)

    return build


def play(session: Session, round_number: int, seconds: float = 60.0) -> tuple[f.Generated, f.Trained]:
    made = session.generate(f.Generate(1, round_number, 0, SEED, 4), IDLE)
    body = with_one_right(made.body)
    return made, session.train(f.Train(2, round_number, 0, body, (body,), 3, seconds), IDLE)


def with_one_right(body: bytes) -> bytes:
    """Random weights never answer right: give each group one right answer, so that it has an advantage."""
    read, questions = decode_rollouts(body, body_digest(body), len(body)), ArithmeticQuestions()
    groups = []
    for group in read.groups:
        right = replace(group.completions[0], text=questions[group.question].answer, finished=True)
        groups.append(replace(group, completions=(right, *group.completions[1:])))
    return encode(replace(read, groups=tuple(groups)))


def weights(session: Session) -> list[torch.Tensor]:
    return [each.detach().clone() for each in session.engine.parameters()]


def same(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_resumed_training_is_bit_for_bit_the_uninterrupted_one(opened: Callable[..., Session]) -> None:
    """Three updates, checkpoint, new process, three updates: rollouts, weights and step size as in one go."""
    session = opened()
    play(session, 0)
    session.save(f.Save(3, 0))
    straight, _ = play(session, 1)

    again = opened()
    resumed, trained = play(again, 1)

    assert again.counters == session.counters
    assert (again.counters.round, again.counters.updates, trained.updates) == (1, 6, 3)
    assert resumed.body == straight.body
    assert same(weights(again), weights(session))


def test_what_a_killed_child_left_half_written_is_removed(opened: Callable[..., Session], tmp_path: Path) -> None:
    """A whole model each time would fill the disk; what is not a draft of its own stays."""
    opened()
    killed = replace_directory(tmp_path / "checkpoints" / "checkpoint-00000001")
    draft = killed.__enter__()
    (draft / "model").mkdir()
    (tmp_path / ".model.1.new").symlink_to(draft)
    (tmp_path / ".mine.new").mkdir()
    opened()
    assert list(tmp_path.rglob(".*.new")) == [tmp_path / ".mine.new"]
    assert (tmp_path / "model" / "config.json").exists()


def test_a_damaged_checkpoint_falls_back_to_the_one_before(opened: Callable[..., Session], tmp_path: Path) -> None:
    """A byte that differs is noticed, in weights as in the optimiser."""
    session = opened()
    play(session, 0)
    session.save(f.Save(3, 0))
    saved = weights(session)
    play(session, 1)
    session.save(f.Save(4, 1))
    newest = max((tmp_path / "checkpoints").iterdir()) / "optimizer.safetensors"
    content = bytearray(newest.read_bytes())
    content[-1] ^= 1
    newest.write_bytes(content)

    again = opened()

    assert again.counters.round == 0
    assert same(weights(again), saved)


def test_the_last_checkpoints_are_kept_and_the_newest_model_is_linked(
    opened: Callable[..., Session], tmp_path: Path
) -> None:
    """`model` always leads to a directory that transformers loads, from the first start on."""
    session = opened(checkpoints=3)
    assert (tmp_path / "model" / "config.json").is_file()
    for number in range(4):
        session.save(f.Save(3, number))
    assert len(list((tmp_path / "checkpoints").iterdir())) == 3
    assert (tmp_path / "model").resolve() == (max((tmp_path / "checkpoints").iterdir()) / "model").resolve()
    assert not (tmp_path / "model").readlink().is_absolute()
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert sum(each.numel() for each in loaded.parameters()) == session.engine.parameter_count


def test_no_update_begins_that_would_end_too_late(opened: Callable[..., Session]) -> None:
    """Updates stop in time, and say how many there were."""
    ticks = iter(range(10_000))
    session = opened(lambda: float(next(ticks)))
    _, trained = play(session, 0, seconds=1000)
    assert trained.updates == 3
    _, late = play(session, 1, seconds=3)
    assert late.updates < 3
    assert late.seconds < 12


def test_a_slot_s_outcome_depends_on_nothing_behind_it(opened: Callable[..., Session]) -> None:
    """Fewer questions, or fewer at once, give the same completions to those that remain."""
    session = opened()
    texts = [f"What is {n} + {n}?" for n in range(5)]
    whole = session.engine.sample(texts, 4, session._generator(7), IDLE.cancelled)
    session.engine.sampler.max_num_seqs = 4
    some = session.engine.sample(texts[:3], 4, session._generator(7), IDLE.cancelled)
    assert [[s.tokens for s in g] for g in some] == [[s.tokens for s in g] for g in whole[:3]]


def test_peers_rounds_and_stages_draw_different_numbers(opened: Callable[..., Session]) -> None:
    """A seed belongs to one purpose, round, stage and peer."""
    session = opened()
    lots = {
        session._derived_seed(purpose, number, stage, SEED)
        for purpose in ("a", "b")
        for number in (0, 1)
        for stage in (0, 1)
    }
    assert len(lots) == 8


def test_cancelling_stops_before_the_next_token(
    opened: Callable[..., Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not one forward pass is made once the task is given up."""
    session = opened()
    engine = session.engine
    assert isinstance(engine, BuiltinEngine)
    passes, true = [0], engine.forward

    def counted(*arguments: object) -> torch.Tensor:
        passes[0] += 1
        return true(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(engine, "forward", counted)
    with pytest.raises(Cancelled):
        session.generate(f.Generate(1, 0, 0, SEED, 4), TaskContext(lambda: passes[0] >= 3, lambda done, total: None))
    assert passes[0] == 3


def test_foreign_groups_have_at_most_their_share_beside_few_own_ones(opened: Callable[..., Session]) -> None:
    """One own group, four foreign bodies: half of what is trained on is foreign, as the manifest says."""
    session = opened()
    body = with_one_right(session.generate(f.Generate(1, 0, 0, SEED, 4), IDLE).body)
    read = decode_rollouts(body, body_digest(body), len(body))
    alone = encode(replace(read, groups=read.groups[:1]))

    trained = session.train(f.Train(2, 0, 0, alone, (body, body, body, body), 1, 60.0), IDLE)

    assert (trained.own, trained.external) == (1, 1)


def test_own_groups_without_an_advantage_count_as_own(opened: Callable[..., Session]) -> None:
    """A model that gets nothing right still learns from others, no more than the manifest's number."""
    session = opened()
    body = session.generate(f.Generate(1, 0, 0, SEED, 4), IDLE).body

    trained = session.train(f.Train(2, 0, 0, body, (with_one_right(body),), 1, 60.0), IDLE)

    assert (trained.own, trained.external) == (0, MANIFEST.game.external_groups)


def test_a_foreign_group_whose_right_answer_is_endless_is_not_trained_on(opened: Callable[..., Session]) -> None:
    """Whoever gives right answers after endless text teaches nobody."""
    session = opened()
    body = session.generate(f.Generate(1, 0, 0, SEED, 4), IDLE).body
    right = with_one_right(body)
    read = decode_rollouts(right, body_digest(right), len(right))
    groups = []
    for group in read.groups:
        endless = replace(group.completions[0], text="well " * 60 + group.completions[0].text)
        groups.append(replace(group, completions=(endless, *group.completions[1:])))

    trained = session.train(f.Train(2, 0, 0, body, (encode(replace(read, groups=tuple(groups))),), 1, 60.0), IDLE)

    assert trained.external == 0


def test_the_node_learns_which_foreign_bodies_the_model_does_not_believe(opened: Callable[..., Session]) -> None:
    """One whose log-probabilities are all said to be very low; the honest one beside it, and the own one, are none."""
    session = opened()
    honest = with_one_right(session.generate(f.Generate(1, 0, 0, SEED, 4), IDLE).body)
    read = decode_rollouts(honest, body_digest(honest), len(honest))
    lie = encode(
        replace(
            read,
            groups=tuple(
                replace(group, completions=tuple(replace(each, logps=low(each.logps)) for each in group.completions))
                for group in read.groups
            ),
        )
    )

    trained = session.train(f.Train(2, 0, 0, honest, (honest, lie), 4, 60.0), IDLE)

    assert trained.off_policy == (body_digest(lie),)
    assert trained.external > 0


def low(logps: bytes) -> bytes:
    """As many log-probabilities of -20."""
    return struct.pack("<f", -20.0) * (len(logps) // 4)
