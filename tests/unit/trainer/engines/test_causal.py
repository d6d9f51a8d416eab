"""The causal engine says and learns exactly what the plain model does, only cheaper."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    LlamaConfig,
    MambaConfig,
    Qwen2Config,
)

from node.trainer.engines.causal import CausalEngine
from node.trainer.engines.engine import Cancelled, TrainingGroup
from node.trainer.memory.memory_plan import activation_bytes
from node.trainer.memory.placement import ask_of, shape_of
from node.trainer.messages import TrainerSettings
from protocols.manifest import GameSpec
from tests.support.letters import LETTERS

GAME = GameSpec(
    examples="one ab? c\ntwo de? f\n",
    prompt="{question}?",
    stop="\n",
    max_completion=12,
    max_prompt=8,
    temperature=0.8,
)
QUESTIONS = ["how many?", "a?", "what is it?"]
SIZES: dict[str, Any] = {
    "vocab_size": len(LETTERS),
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}
FAMILIES: dict[str, Any] = {
    "llama": LlamaConfig(**SIZES, tie_word_embeddings=True),
    "qwen2": Qwen2Config(**SIZES, tie_word_embeddings=False),
}


@pytest.fixture(scope="module")
def tokenizer(letters: Any) -> Any:
    return letters


@pytest.fixture(params=list(FAMILIES))
def engine(request: pytest.FixtureRequest, tokenizer: Any) -> CausalEngine:
    return make(FAMILIES[request.param], tokenizer)


def make(config: Any, tokenizer: Any, game: GameSpec = GAME, **settings: Any) -> CausalEngine:
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(deepcopy(config))  # type: ignore[no-untyped-call]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return CausalEngine.adopt(model, tokenizer, TrainerSettings(device="cpu", **settings), game)


def test_rows_that_are_no_ids_are_never_sampled(tokenizer: Any) -> None:
    """Models are padded beyond their tokenizer: what is sampled can be read, and the update finds the same
    log-probabilities."""
    engine = make(Qwen2Config(**{**SIZES, "vocab_size": 4 * len(LETTERS)}, tie_word_embeddings=True), tokenizer)
    groups = groups_of(engine)
    assert all(token < len(LETTERS) for group in groups for row in group.completions for token in row)
    known = torch.tensor([logp for group in groups for row in group.behaviour for logp in row])
    with torch.no_grad():
        assert torch.allclose(engine.completion_logps(groups), known, atol=1e-4)
    vocabulary = engine._vocabulary
    assert vocabulary.shown([0, 1, len(LETTERS), 2]) == "ab\ufffd"
    with pytest.raises(ValueError, match="ids go from"):
        engine.decode([len(LETTERS)])


def test_no_divergence_from_a_start_with_adapters(tmp_path: Path) -> None:
    """Without them the base is left, which is another model: refused in a line that says what to do."""
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "base", "r": 4}')
    with pytest.raises(ValueError, match=r"trainer\.beta: .* set it to 0, or name a whole model"):
        CausalEngine.load(TrainerSettings(device="cpu", model=str(tmp_path), beta=0.1), GAME)


def groups_of(engine: CausalEngine, game: GameSpec = GAME) -> list[TrainingGroup]:
    sampled = engine.sample(QUESTIONS, 4, torch.Generator().manual_seed(2), lambda: False)
    return [
        TrainingGroup(
            engine.encode(question),
            [sample.tokens for sample in samples],
            [sample.logps for sample in samples],
            [1.0, -0.5, 0.25, -1.0],
            external=False,
        )
        for question, samples in zip(QUESTIONS, sampled, strict=True)
    ]


def plain(engine: CausalEngine, groups: list[TrainingGroup], game: GameSpec = GAME) -> torch.Tensor:
    """One row per completion, by the model's own attention."""
    model = engine._model
    model.set_attn_implementation("eager")
    parts = []
    for group in groups:
        prompt = engine.encode(game.examples) + group.prompt[-game.max_prompt :]
        for completion in group.completions:
            logits = model(torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1]
            logps = (logits.float() / game.temperature).log_softmax(-1)
            parts.append(logps[torch.arange(len(completion)), torch.tensor(completion, dtype=torch.long)])
    model.set_attn_implementation("swarm_tree")
    return torch.cat(parts)


def gradients(engine: CausalEngine, logps: torch.Tensor, groups: list[TrainingGroup]) -> list[torch.Tensor]:
    weights = [w for group in groups for c, w in zip(group.completions, group.advantages, strict=True) for _ in c]
    return list(torch.autograd.grad((torch.tensor(weights) * logps).sum(), list(engine.parameters())))


def test_packed_log_probabilities_and_gradients_are_the_plain_ones(engine: CausalEngine) -> None:
    """Computing prompts once changes neither a log-probability nor a gradient beyond rounding."""
    groups = groups_of(engine)

    packed, expected = engine.completion_logps(groups), plain(engine, groups)

    torch.testing.assert_close(packed, expected, atol=1e-4, rtol=0)
    for ours, theirs in zip(gradients(engine, packed, groups), gradients(engine, expected, groups), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-3)


def test_sampled_log_probabilities_are_the_recomputed_ones(engine: CausalEngine) -> None:
    """What sampling reports is what the update computes for the same tokens."""
    groups = groups_of(engine)

    told = torch.tensor([logp for group in groups for row in group.behaviour for logp in row])

    torch.testing.assert_close(engine.completion_logps(groups), told, atol=1e-4, rtol=0)


def test_groups_of_unequal_size_and_empty_completions_are_packed(engine: CausalEngine) -> None:
    """Foreign groups may be ragged: every token is found, in order, whatever stands beside it."""
    ragged = [
        TrainingGroup([3, 4, 5], [[7, 8, 9, 10, 11], [6], []], [[]] * 3, [1.0] * 3, external=True),
        TrainingGroup([12] * 20, [[13], [14, 15]], [[]] * 2, [1.0] * 2, external=True),
    ]

    torch.testing.assert_close(engine.completion_logps(ragged), plain(engine, ragged), atol=1e-4, rtol=0)
    assert engine.completion_logps([]).shape == (0,)


@pytest.mark.parametrize("family", FAMILIES)
def test_recomputing_activations_changes_no_gradient(
    family: str, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where memory is short, layers and logits are computed twice, with the same result."""
    engine = make(FAMILIES[family], tokenizer)
    groups = groups_of(engine)
    expected = gradients(engine, engine.completion_logps(groups), groups)
    engine = make(FAMILIES[family], tokenizer, gradient_checkpointing="always")
    monkeypatch.setattr("node.trainer.engines.causal.SCORES_BYTES", 0)
    monkeypatch.setattr("node.trainer.engines.packing.CHUNK", 5)

    engine.train_mode(True)
    spared = gradients(engine, engine.completion_logps(groups), groups)

    assert engine._model.is_gradient_checkpointing
    for ours, theirs in zip(spared, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def test_rows_end_at_the_stop_text(engine: CausalEngine) -> None:
    """A completion ends with its first token that holds the stop text, or at the limit; its text stops before."""
    made = engine.sample(QUESTIONS, 32, torch.Generator().manual_seed(3), lambda: False)

    stops = {i for i, letter in enumerate(LETTERS) if "Ċ" in letter or letter == "<eos>"}
    rows = [sample for samples in made for sample in samples]
    assert {row.finished for row in rows} == {True, False}
    for row in rows:
        assert [token in stops for token in row.tokens[:-1]] == [False] * (len(row.tokens) - 1)
        assert row.finished == (row.tokens[-1] in stops)
        assert row.finished or len(row.tokens) == GAME.max_completion
        assert "\n" not in row.text
        assert "<eos>" not in row.text
        assert engine.decode(row.tokens) == row.text
        again = engine.completion_ids(row.text, row.finished)
        assert (engine.decode(again), again[-1:] != [] and again[-1] in stops) == (row.text, row.finished)


def test_a_row_depends_on_its_own_draws_alone(engine: CausalEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same seed gives the same completions, in one batch or in many."""
    whole = engine.sample(QUESTIONS, 4, torch.Generator().manual_seed(4), lambda: False)
    engine.sampler.max_num_seqs = 1
    monkeypatch.setattr("node.trainer.engines.decode.PREFILL_TOKENS", 1)

    apart = engine.sample(QUESTIONS, 4, torch.Generator().manual_seed(4), lambda: False)

    assert [[s.tokens for s in some] for some in apart] == [[s.tokens for s in some] for some in whole]


def test_samples_follow_the_distribution(engine: CausalEngine) -> None:
    """First tokens come as often as the model says."""
    made = engine.sample(["a?"], 4000, torch.Generator().manual_seed(5), lambda: False)[0]
    group = TrainingGroup(engine.encode("a?"), [[i] for i in range(len(LETTERS))], [], [], external=False)

    expected = engine.completion_logps([group]).exp()
    counted = torch.bincount(torch.tensor([s.tokens[0] for s in made]), minlength=len(LETTERS)) / 4000

    assert (expected - counted).abs().max() < 0.04


def test_greedy_takes_the_likeliest_token(engine: CausalEngine) -> None:
    """Greedy sampling ignores the generator and takes the argmax at every step."""
    first, second = (
        engine.sample(QUESTIONS, 1, torch.Generator().manual_seed(seed), lambda: False, greedy=True) for seed in (1, 2)
    )
    tokens = first[0][0].tokens
    prompt = engine.encode(GAME.examples) + engine.encode(QUESTIONS[0])[-GAME.max_prompt :]
    engine._model.set_attn_implementation("eager")
    logits = engine._model(torch.tensor([prompt + tokens])).logits[0, len(prompt) - 1 : -1]

    assert first == second
    assert logits.argmax(-1).tolist() == tokens


def test_new_weights_are_seen_by_sampling(engine: CausalEngine) -> None:
    """After `weights_changed` the prefix is computed anew, so that reported log-probabilities stay true."""
    groups_of(engine)
    with torch.no_grad():
        for parameter in engine.parameters():
            parameter.mul_(1.1)
    engine.weights_changed()

    groups = groups_of(engine)

    told = torch.tensor([logp for group in groups for row in group.behaviour for logp in row])
    torch.testing.assert_close(engine.completion_logps(groups), told, atol=1e-4, rtol=0)


def test_a_cancelled_task_ends_between_tokens(engine: CausalEngine) -> None:
    """Once cancelled, sampling raises before the next token, and the engine can be used again."""
    asked = iter([False, False, False, True])

    with pytest.raises(Cancelled):
        engine.sample(QUESTIONS, 4, torch.Generator().manual_seed(2), lambda: next(asked))

    assert groups_of(engine)


def test_saved_weights_come_back(engine: CausalEngine, tmp_path: Path, tokenizer: Any) -> None:
    """What `save` writes is a directory that `load` reads and `load_weights` restores, bit for bit."""
    groups = groups_of(engine)
    before = engine.completion_logps(groups).detach()
    engine.save(tmp_path)
    with torch.no_grad():
        for parameter in engine.parameters():
            parameter.zero_()
    engine.load_weights(tmp_path)

    fresh = CausalEngine.load(TrainerSettings(model=str(tmp_path), device="cpu"), GAME)

    assert torch.equal(engine.completion_logps(groups), before)
    assert torch.equal(fresh.completion_logps(groups), before)
    assert fresh.fingerprint == CausalEngine.load(TrainerSettings(model=str(tmp_path), device="cpu"), GAME).fingerprint
    assert fresh.parameter_count == sum(p.numel() for p in engine.parameters())


def test_no_examples_means_no_prefix(tokenizer: Any) -> None:
    """A game without worked examples works the same way."""
    game = GameSpec(prompt="{question}?", stop="\n", max_completion=6, max_prompt=8)
    engine = make(FAMILIES["llama"], tokenizer, game)
    groups = groups_of(engine)

    told = torch.tensor([logp for group in groups for row in group.behaviour for logp in row])

    torch.testing.assert_close(engine.completion_logps(groups), told, atol=1e-4, rtol=0)
    torch.testing.assert_close(engine.completion_logps(groups), plain(engine, groups, game), atol=1e-4, rtol=0)


def wrong_window(tokenizer: Any) -> CausalEngine:
    return make(Gemma2Config(**SIZES, head_dim=8, sliding_window=16), tokenizer)


def wrong_kind(tokenizer: Any) -> CausalEngine:
    return make(MambaConfig(vocab_size=len(LETTERS), hidden_size=16, num_hidden_layers=1), tokenizer)


def wrong_stop(tokenizer: Any) -> CausalEngine:
    return make(FAMILIES["llama"], tokenizer, GameSpec(stop="<|im_end|>"))


def wrong_place(tokenizer: Any) -> CausalEngine:
    return CausalEngine.load(TrainerSettings(model=str(Path(__file__).parent), device="cpu"), GAME)


def wrong_device(tokenizer: Any) -> CausalEngine:
    return CausalEngine.adopt(
        AutoModelForCausalLM.from_config(deepcopy(FAMILIES["llama"])),  # type: ignore[no-untyped-call]
        tokenizer,
        TrainerSettings(device="abacus"),
        GAME,
    )


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (wrong_window, "attends to 16 tokens"),
        (wrong_kind, "MambaForCausalLM can't share its prompt"),
        (wrong_stop, "game.stop: no token"),
        (wrong_place, "trainer.model: .* does not load"),
        (wrong_device, "trainer.device"),
    ],
)
def test_what_can_not_work_is_refused_in_one_line(
    build: Callable[[Any], CausalEngine], said: str, tokenizer: Any
) -> None:
    """A model or setting that would give wrong results is refused when it is loaded."""
    with pytest.raises(ValueError, match=said) as caught:
        build(tokenizer)

    assert "\n" not in str(caught.value)


def kept_bytes(engine: CausalEngine, groups: list[TrainingGroup]) -> int:
    """What autograd really keeps of a forward pass, parameters apart."""
    weights = {each.untyped_storage().data_ptr() for each in engine._model.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        engine.completion_logps(groups)
    return sum(storage.nbytes() for storage in kept.values())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize(("prompt", "completion"), [(40, 40), (160, 24)])
def test_planned_activations_are_those_that_are_kept(dtype: str, prompt: int, completion: int, tokenizer: Any) -> None:
    """The memory plan's estimate is within 15 % of what the update really keeps."""
    game = GameSpec(prompt="{question}?", stop="\n", max_prompt=prompt, max_completion=completion, num_generations=4)
    config = Qwen2Config(**SIZES | {"hidden_size": 96, "intermediate_size": 512, "vocab_size": 40})
    engine = make(config, tokenizer, game, dtype=dtype)
    group = TrainingGroup([3] * prompt, [[4] * completion] * 4, [[]] * 4, [1.0] * 4, external=False)
    tokens = prompt + 4 * (completion - 1)
    ask = ask_of(engine._settings, game, engine._placement, 0)

    planned = tokens * activation_bytes(shape_of(config), ask, gradient_checkpointing=False)

    assert planned == pytest.approx(kept_bytes(engine, [group]), rel=0.15)
