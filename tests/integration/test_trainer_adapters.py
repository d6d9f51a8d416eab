"""Adapters, 4-bit weights and the 8-bit optimiser, on a small Qwen 2 with random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2Config

from node.config import TrainerSettings
from node.trainer.checkpoints.checkpoint import Checkpoints, Counters
from node.trainer.engines.causal import CausalEngine
from node.trainer.engines.causal_load import merge
from node.trainer.engines.engine import TrainingGroup
from node.trainer.learning import grpo
from node.trainer.learning.loss_scale import LossScale
from node.trainer.learning.optimizer import make_optimizer
from protocols.manifest import GameSpec
from tests.support.letters import letter_tokenizer

pytestmark = pytest.mark.integration

GAME = GameSpec(examples="one ab? c\n", prompt="{question}?", stop="\n", max_completion=8, max_prompt=8)
QUESTIONS = ["how many?", "a?"]
CONFIG: dict[str, Any] = {
    "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128,
}  # fmt: skip


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model's directory."""
    torch.set_num_threads(1)
    letters = letter_tokenizer()
    directory = tmp_path_factory.mktemp("base")
    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_config(Qwen2Config(vocab_size=len(letters), **CONFIG))  # type: ignore[no-untyped-call]
    model.save_pretrained(directory)
    letters.save_pretrained(directory)
    return directory


def loaded(base: Path, **settings: Any) -> CausalEngine:
    return CausalEngine.load(TrainerSettings(model=str(base), device="cpu", **settings), GAME)


def groups_of(engine: CausalEngine) -> list[TrainingGroup]:
    sampled = engine.sample(QUESTIONS, 4, torch.Generator().manual_seed(2), lambda: False)
    return [
        TrainingGroup(
            engine.encode(question),
            [s.tokens for s in samples],
            [s.logps for s in samples],
            [1.0, -0.5, 0.5, -1.0],
            False,
        )
        for question, samples in zip(QUESTIONS, sampled, strict=True)
    ]


def step(engine: CausalEngine, optimizer: torch.optim.Optimizer, groups: list[TrainingGroup]) -> grpo.UpdateOutcome:
    return grpo.update(
        engine, optimizer, groups, grpo.Objective(beta=0.01), limit=grpo.MicroBatchLimit(5, 1000),
        scale=LossScale(needed=engine.half_precision), watch=lambda done: None,
    )  # fmt: skip


def test_adapters_alone_are_trained_and_the_base_is_the_reference(base: Path) -> None:
    """Only adapters change; with them off the model computes what it did at the start."""
    engine = loaded(base, lora=4, beta=0.01)
    groups = groups_of(engine)
    start = engine.completion_logps(groups).detach()
    frozen = {n: p.detach().clone() for n, p in engine._model.named_parameters() if "lora_" not in n}
    optimizer = make_optimizer(engine, TrainerSettings(learning_rate=0.05))

    outcomes = [step(engine, optimizer, groups) for _ in range(2)]

    assert all(outcome.stepped for outcome in outcomes)
    torch.testing.assert_close(engine.reference_logps(groups), start)
    assert not torch.allclose(engine.completion_logps(groups), start, atol=1e-3)
    assert all(torch.equal(p, frozen[n]) for n, p in engine._model.named_parameters() if n in frozen)
    assert sum(p.numel() for p in engine.parameters()) == 4 * sum(
        each.in_features + each.out_features
        for name, each in engine._model.named_modules()
        if hasattr(each, "lora_A") and hasattr(each, "in_features")
    )


def test_a_whole_reference_stays_as_it_was(base: Path) -> None:
    """Without adapters a copy is kept."""
    engine = loaded(base, beta=0.01)
    groups = groups_of(engine)
    start = engine.completion_logps(groups).detach()
    optimizer = make_optimizer(engine, TrainerSettings(learning_rate=0.05))
    step(engine, optimizer, groups)
    torch.testing.assert_close(engine.reference_logps(groups), start)
    assert not torch.allclose(engine.completion_logps(groups), start, atol=1e-3)


def test_a_reference_must_have_been_asked_for(base: Path) -> None:
    """No copy is kept for nothing."""
    engine = loaded(base)
    with pytest.raises(RuntimeError, match="no reference model"):
        engine.reference_logps(groups_of(engine))


def test_adapters_are_saved_alone_and_come_back(base: Path, tmp_path: Path) -> None:
    """A checkpoint holds the adapters; resuming restores them; the directory loads as a model; merged it is one."""
    engine = loaded(base, lora=4, beta=0.01)
    groups = groups_of(engine)
    optimizer = make_optimizer(engine, TrainerSettings(learning_rate=0.05))
    step(engine, optimizer, groups)
    trained = engine.completion_logps(groups).detach()
    checkpoints = Checkpoints(tmp_path / "checkpoints", 2, tmp_path / "model")
    checkpoints.save(engine, optimizer, Counters(round=3))
    fresh = loaded(base, lora=4)

    assert checkpoints.resume(fresh, make_optimizer(fresh, TrainerSettings())) == Counters(round=3)
    assert torch.equal(fresh.completion_logps(groups), trained)
    assert not (tmp_path / "model" / "model.safetensors").exists()
    again = loaded(tmp_path / "model")
    torch.testing.assert_close(again.completion_logps(groups), trained, atol=1e-5, rtol=0)
    assert merge(tmp_path / "model", tmp_path / "merged")
    whole = loaded(tmp_path / "merged")
    torch.testing.assert_close(whole.completion_logps(groups), trained, atol=1e-4, rtol=0)
    assert AutoTokenizer.from_pretrained(tmp_path / "merged").vocab_size == engine._vocabulary.tokenizer.vocab_size
    assert not merge(tmp_path / "merged", tmp_path / "nothing")


def test_a_checkpoint_of_the_whole_model_is_not_one_of_adapters(base: Path, tmp_path: Path) -> None:
    """Switching adapters on begins anew instead of failing."""
    engine = loaded(base)
    checkpoints = Checkpoints(tmp_path, 2, tmp_path / "model")
    checkpoints.save(engine, make_optimizer(engine, TrainerSettings()), Counters())
    other = loaded(base, lora=4)
    assert checkpoints.resume(other, make_optimizer(other, TrainerSettings())) is None


def test_a_4_bit_base_learns_through_adapters_and_8_bit_adam(base: Path) -> None:
    """NF4 weights attend by token tree, sample and train; what sampling reports is what the update computes."""
    pytest.importorskip("bitsandbytes")
    engine = loaded(base, lora=4, quantise="nf4", optimizer="adam8bit")
    assert any(type(each).__name__ == "Linear4bit" for each in engine._model.modules())
    groups = groups_of(engine)
    start = engine.completion_logps(groups).detach()
    told = torch.tensor([logp for group in groups for row in group.behaviour for logp in row])
    torch.testing.assert_close(start, told, atol=1e-3, rtol=0)
    optimizer = make_optimizer(engine, TrainerSettings(learning_rate=0.05, optimizer="adam8bit"))

    outcomes = [step(engine, optimizer, groups) for _ in range(2)]

    assert all(outcome.stepped for outcome in outcomes)
    assert not torch.allclose(engine.completion_logps(groups), start, atol=1e-3)
    assert type(optimizer).__name__ == "AdamW8bit"


def test_8_bit_state_survives_a_checkpoint(base: Path, tmp_path: Path) -> None:
    """What the quantised moments hold is saved and restored bit for bit."""
    pytest.importorskip("bitsandbytes")
    chosen = TrainerSettings(learning_rate=0.05, optimizer="adam8bit")
    engine = loaded(base)
    groups, optimizer = groups_of(engine), make_optimizer(engine, chosen)
    step_without_reference(engine, optimizer, groups)
    checkpoints = Checkpoints(tmp_path / "checkpoints", 2, tmp_path / "model")
    checkpoints.save(engine, optimizer, Counters())
    fresh = loaded(base)
    other = make_optimizer(fresh, chosen)
    assert checkpoints.resume(fresh, other) is not None

    for one, its in ((engine, optimizer), (fresh, other)):
        step_without_reference(one, its, groups)

    assert all(torch.equal(a, b) for a, b in zip(engine.parameters(), fresh.parameters(), strict=True))


def step_without_reference(engine: CausalEngine, optimizer: torch.optim.Optimizer, groups: list[TrainingGroup]) -> None:
    outcome = grpo.update(
        engine, optimizer, groups, grpo.Objective(), limit=grpo.MicroBatchLimit(5, 1000), scale=LossScale(needed=False),
        watch=lambda done: None,
    )  # fmt: skip
    assert outcome.stepped


@pytest.mark.parametrize("settings", [{"dtype": "float16"}, {"dtype": "bfloat16"}, {"dtype": "float16", "lora": 4}])
def test_half_precision_trains(base: Path, settings: dict[str, Any]) -> None:
    """float16 over float32 weights with a scaled loss, and bfloat16, make finite steps."""
    engine = loaded(base, **settings)
    assert engine.half_precision == (settings["dtype"] == "float16")
    optimizer = make_optimizer(engine, TrainerSettings(learning_rate=0.05))
    step_without_reference(engine, optimizer, groups_of(engine))


@pytest.mark.parametrize("settings", [{"dtype": "bfloat16"}, {"dtype": "bfloat16", "lora": 4}, {"dtype": "float16"}])
def test_float32_can_be_fallen_back_to(base: Path, settings: dict[str, Any]) -> None:
    """The same parameters go on in float32; a second time changes nothing."""
    engine = loaded(base, **settings)
    optimizer = make_optimizer(engine, TrainerSettings(learning_rate=0.01))
    groups = groups_of(engine)
    step_without_reference(engine, optimizer, groups)
    same = [id(each) for each in engine.parameters()]
    assert engine.use_float32()
    assert not engine.use_float32()
    assert [id(each) for each in engine.parameters()] == same
    assert all(each.dtype == torch.float32 for each in engine._model.parameters())
    told = torch.tensor([logp for group in groups_of(engine) for row in group.behaviour for logp in row])
    torch.testing.assert_close(engine.completion_logps(groups_of(engine)), told, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"quantise": "nf4"}, "set trainer.lora"),
        ({"memory_limit_mib": 1}, r"of memory, 0 MB may be used: choose a smaller model"),
    ],
)
def test_what_can_not_be_loaded_is_refused_in_one_line(base: Path, settings: dict[str, Any], said: str) -> None:
    """The line names what to change."""
    with pytest.raises(ValueError, match=said) as caught:
        loaded(base, **settings)
    assert "\n" not in str(caught.value)
