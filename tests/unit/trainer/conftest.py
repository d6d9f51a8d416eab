"""What several tests of the trainer need."""

from __future__ import annotations

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from node.trainer.engines.builtin.builtin_engine import BuiltinEngine
from node.trainer.engines.builtin.builtin_model import BuiltinModel, BuiltinShape
from node.trainer.engines.builtin.builtin_tokenizer import BuiltinTokenizer, train_tokenizer
from protocols.manifest import GameSpec
from tests.support.letters import letter_tokenizer

SHAPE = BuiltinShape(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Two threads on a busy machine are ten times slower."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def letters() -> PreTrainedTokenizerFast:
    return letter_tokenizer()


@pytest.fixture(scope="session")
def builtin_tokenizer() -> BuiltinTokenizer:
    return train_tokenizer()


@pytest.fixture
def builtin(builtin_tokenizer: BuiltinTokenizer) -> BuiltinEngine:
    """A small model of the built-in kind with random weights, its start kept as reference."""
    model = BuiltinModel(SHAPE)
    model.initialise(1)
    return BuiltinEngine(model, builtin_tokenizer, GameSpec(max_completion=12), keep_reference=True)
