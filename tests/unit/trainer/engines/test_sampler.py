"""A sampler is a class of its own: another generation engine is one more, and neither engine nor plan know it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase, Qwen2Config

from node.config import TrainerSettings
from node.trainer.engines.causal import CausalEngine
from node.trainer.engines.factory import add_sampler, sampler_class
from node.trainer.engines.sampler import Sample, Sampler, ServedModel
from node.trainer.memory.memory_plan import MemoryPlan, ModelShape, SamplerMemory, plan_memory
from node.trainer.memory.placement import FLOAT32, Placement, ask_of
from protocols.manifest import GameSpec
from tests.support.letters import LETTERS

GAME = GameSpec(prompt="{question}?", stop="\n", max_prompt=8, max_completion=4)
CPU = torch.device("cpu")


class CopyingSampler:
    """A generation engine of its own: it copies the weights, and answers with the ids of the largest embedding."""

    name = "copying"

    def __init__(self, model: ServedModel) -> None:
        self.max_num_seqs = model.memory_plan.max_num_seqs
        self.model, self.calls = model, list[str]()
        self.weights: dict[str, torch.Tensor] = {}
        self.stale = True

    @classmethod
    def unusable(cls, settings: TrainerSettings) -> str:
        return "copying samples no adapters: set trainer.lora = 0" if settings.lora else ""

    @classmethod
    def memory(cls, device: torch.device, dtype: torch.dtype, *, quantised: bool) -> SamplerMemory:
        return SamplerMemory(copies_weights=True)

    @property
    def started(self) -> bool:
        return bool(self.weights)

    def update_weights(self) -> None:
        self.stale = True

    def wake(self) -> None:
        self.calls.append("wake")
        if self.stale:
            self.weights = dict(self.model.named_weights())
            self.stale = False

    def sample(
        self,
        prompts: Sequence[list[int]],
        group: int,
        rng: torch.Generator,
        cancelled: Callable[[], bool],
        *,
        greedy: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[list[Sample]]:
        self.calls.append("sample")
        token = int(self.weights["model.embed_tokens.weight"].norm(dim=1).argmax())
        return [[Sample([token], [0.0], self.model.shown([token]), finished=False)] * group for _ in prompts]

    def sleep(self) -> None:
        self.calls.append("sleep")


class BrokenSampler(CopyingSampler):
    """One whose library does not start."""

    name = "broken"

    def wake(self) -> None:
        raise ImportError("no library")


class PickySampler(CopyingSampler):
    """One that can't serve this model."""

    def __init__(self, model: ServedModel) -> None:
        raise ValueError("trainer.engine: not this model")


KNOWN: dict[str, type[Sampler]] = {"hf": CopyingSampler, "vllm": BrokenSampler}


@pytest.fixture
def engine(letters: PreTrainedTokenizerBase) -> CausalEngine:
    torch.manual_seed(1)
    config = Qwen2Config(
        vocab_size=len(LETTERS), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, tie_word_embeddings=True,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    return CausalEngine.adopt(model, letters, TrainerSettings(device="cpu", dtype="float32"), GAME)


def sampled(engine: CausalEngine) -> list[list[Sample]]:
    return engine.sample(["a", "b"], 3, torch.Generator().manual_seed(1), lambda: False)


def test_a_second_sampler_is_one_class(engine: CausalEngine) -> None:
    """The engine wakes it, samples by it and lets it sleep; an update hands it the new weights."""
    add_sampler(engine, CopyingSampler, optional=False)
    sampler = engine.sampler
    assert isinstance(sampler, CopyingSampler)
    assert [len(group) for group in sampled(engine)] == [3, 3]
    assert sampler.calls == ["wake", "sample", "sleep"]
    before = sampled(engine)[0][0].tokens
    with torch.no_grad():
        embedding = next(engine.parameters())
        embedding[(before[0] + 1) % len(LETTERS)] = 9.0
    assert sampled(engine)[0][0].tokens == before
    engine.weights_changed()
    assert sampled(engine)[0][0].tokens == [(before[0] + 1) % len(LETTERS)]


def test_a_sampler_gets_the_weights_as_they_are_on_disk(engine: CausalEngine) -> None:
    """By name, in the arithmetic's type; the output layer that is tied to the embedding is left out."""
    names = {name for name, _ in engine.named_weights()}
    assert "model.embed_tokens.weight" in names
    assert "lm_head.weight" not in names
    assert all(weight.dtype == torch.float32 for _, weight in engine.named_weights())


def test_the_model_s_own_decoder_takes_over_where_an_optional_sampler_does_not_start(engine: CausalEngine) -> None:
    """Once, for good; one that was asked for raises what its library raised."""
    engine.use_sampler(BrokenSampler(engine))
    with pytest.raises(ImportError, match="no library"):
        sampled(engine)
    engine.use_sampler(CopyingSampler(engine))
    engine.use_sampler(BrokenSampler(engine), optional=True)
    assert len(sampled(engine)) == 2
    assert engine.sampler.name == "copying"


def test_a_sampler_that_has_started_is_not_given_up(engine: CausalEngine) -> None:
    """What it raises later on is a fault of the task, not a reason to do without it."""
    sampler = CopyingSampler(engine)
    engine.use_sampler(sampler, optional=True)
    sampled(engine)
    sampler.__class__ = BrokenSampler
    with pytest.raises(ImportError):
        sampled(engine)
    assert engine.sampler is sampler


def test_a_sampler_that_can_t_serve_the_model_is_an_error_only_where_it_was_asked_for(engine: CausalEngine) -> None:
    """With "auto" the engine decodes by itself."""
    with pytest.raises(ValueError, match="not this model"):
        add_sampler(engine, PickySampler, optional=False)
    add_sampler(engine, PickySampler, optional=True)
    assert engine.sampler.name == "hf"


def test_settings_choose_a_sampler_by_name() -> None:
    """What it can't do is said with the key to change."""
    assert sampler_class(TrainerSettings(engine="vllm"), KNOWN) is BrokenSampler
    with pytest.raises(ValueError, match=r"^trainer\.engine: copying samples no adapters: set trainer\.lora = 0$"):
        sampler_class(TrainerSettings(engine="hf", lora=4), KNOWN)


def planned(shape: ModelShape, sampler: type[Sampler]) -> MemoryPlan:
    ask = ask_of(TrainerSettings(device="cpu"), GAME, Placement(CPU, FLOAT32, None), 0, sampler)
    return plan_memory(shape, ask, 10**9)


def test_the_memory_plan_asks_the_sampler(engine: CausalEngine) -> None:
    """A copy of the weights counts while it samples; the advice to do without it names what the decoder takes."""
    shape = engine.shape
    assert planned(shape, CopyingSampler).sampler == 4 * shape.parameters
    request = ask_of(TrainerSettings(device="cpu"), GAME, Placement(CPU, FLOAT32, None), 0, CopyingSampler)
    assert request.sampler == SamplerMemory(copies_weights=True)
    assert request.decoder is not None
