"""The current model as a Hugging Face directory."""

from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast, Qwen2Config

from node.config import TrainerSettings
from node.trainer.checkpoints import export
from node.trainer.checkpoints.checkpoint import Checkpoints, Counters
from node.trainer.checkpoints.export import (
    Current,
    NoModelError,
    checkpointed_model,
    current_model,
    export_model,
    link_or_copy,
)
from node.trainer.engines.builtin.builtin_engine import BuiltinEngine
from node.trainer.engines.builtin.sft_warmup import build_builtin_model
from node.trainer.engines.causal import CausalEngine
from node.trainer.engines.engine import Engine
from node.trainer.learning.optimizer import make_optimizer
from protocols.manifest import GameSpec


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("base") / "model"
    build_builtin_model(directory, 0, steps=1)
    return directory


def save(engine: Engine, trainer: Path, number: int) -> None:
    with torch.no_grad():
        next(engine.parameters()).add_(0.01)
    Checkpoints(trainer / "checkpoints", 2, trainer / "model").save(
        engine, make_optimizer(engine, TrainerSettings()), Counters(round=number)
    )


def qwen(directory: Path) -> CausalEngine:
    words = {word: number for number, word in enumerate(["<eos>", "<stop>", "a", "b", "c"])}
    rules = Tokenizer(models.WordLevel(words, unk_token="a"))
    rules.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=rules, eos_token="<eos>")  # type: ignore[no-untyped-call]
    config = Qwen2Config(
        vocab_size=5, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, tie_word_embeddings=False,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(config).save_pretrained(directory)  # type: ignore[no-untyped-call]
    tokenizer.save_pretrained(directory)
    settings = TrainerSettings(model=str(directory), device="cpu")
    return CausalEngine.load(settings, GameSpec(prompt="{question}", stop="<stop>"))


def test_transformers_loads_what_is_exported(base: Path, tmp_path: Path) -> None:
    """Model and tokenizer of the built-in model and of a Qwen2 say what the engine says."""
    for name, engine in (("builtin", BuiltinEngine.load(base, GameSpec())), ("qwen", qwen(tmp_path / "base"))):
        save(engine, tmp_path / name, 4)
        found = export_model(tmp_path / name, tmp_path / f"{name}-out")
        assert found.counters.round == 4
        loaded = AutoModelForCausalLM.from_pretrained(found.directory)
        ours = {tuple(each.shape): each for each in engine.parameters()}
        theirs = {tuple(each.shape): each for each in loaded.parameters()}
        assert ours.keys() == theirs.keys()
        assert sum(p.numel() for p in loaded.parameters()) == engine.parameter_count
        assert torch.equal(next(loaded.parameters()), next(engine.parameters()))
        assert AutoTokenizer.from_pretrained(found.directory)("a b").input_ids == engine.encode("a b")


def test_a_damaged_checkpoint_gives_way_to_the_one_before(base: Path, tmp_path: Path) -> None:
    """What is exported is intact; without any intact checkpoint nothing is written."""
    engine = BuiltinEngine.load(base, GameSpec())
    save(engine, tmp_path, 1)
    save(engine, tmp_path, 2)
    newest = current_model(tmp_path)
    assert newest.counters.round == 2
    (newest.directory / "config.json").write_text("{}")
    assert current_model(tmp_path).counters.round == 1
    with pytest.raises(NoModelError, match="damaged"):
        checkpointed_model(newest.directory.parent)
    (current_model(tmp_path).directory / "config.json").write_text("{}")
    with pytest.raises(NoModelError, match="no intact checkpoint"):
        export_model(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_that_is_removed_meanwhile_gives_way_to_a_newer_one(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before its first file was copied, or after; what can't be written is no reason to try again."""
    engine = BuiltinEngine.load(base, GameSpec())
    moments = iter(["found", "copying"])

    def trainer_goes_on() -> None:
        newest = current_model(tmp_path).counters.round
        for number in (1, 2):
            save(engine, tmp_path, newest + number)

    def found(trainer: Path) -> Current:
        model = current_model(trainer)
        if next(moments, "") == "found":
            trainer_goes_on()
        return model

    def copy(source: str, target: str) -> None:
        if next(moments, "") == "copying":
            trainer_goes_on()
        link_or_copy(source, target)

    save(engine, tmp_path, 1)
    monkeypatch.setattr(export, "current_model", found)
    assert export_model(tmp_path, tmp_path / "out", copy).counters.round == 3
    moments = iter(["", "copying"])
    assert export_model(tmp_path, tmp_path / "out", copy).counters.round == 5
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        export_model(tmp_path, tmp_path / "file" / "out")


def test_links_outlive_their_checkpoint(base: Path, tmp_path: Path) -> None:
    """A model that is being pushed stays whole while the trainer goes on and removes its checkpoint."""
    engine = BuiltinEngine.load(base, GameSpec())
    save(engine, tmp_path, 1)
    staged = export_model(tmp_path, tmp_path / "out", link_or_copy)
    before = (staged.directory / "model.safetensors").read_bytes()
    for number in (2, 3, 4):
        save(engine, tmp_path, number)
    assert (staged.directory / "model.safetensors").read_bytes() == before
