"""Presets of models and devices: valid, and as large as they say."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from node.cli.init import trainer_settings
from node.cli.presets import presets, settings_of
from node.config import TrainerSettings


@pytest.mark.parametrize(
    "path", [*presets("models").values(), *presets("devices").values()], ids=lambda path: path.stem
)
def test_every_preset_is_valid_and_says_what_it_is_for(path: Path) -> None:
    """Its keys are the trainer's, its first line a comment."""
    assert settings_of(path)
    assert path.read_text().startswith("# ")


@pytest.mark.parametrize("name", ["qwen2.5-0.5b", "qwen2.5-1.5b", "qwen2.5-7b", "qwen2.5-32b", "qwen2.5-72b"])
def test_the_sizes_of_qwen_are_there(name: str) -> None:
    """Each names its model; the large ones are held in 4 bits."""
    found = msgspec.convert(settings_of(presets("models")[name]), TrainerSettings)
    assert found.model.lower() == f"qwen/{name}-instruct"
    assert (found.quantise == "nf4") == (name in ("qwen2.5-32b", "qwen2.5-72b"))
    assert found.lora or name == "qwen2.5-0.5b"


def test_a_device_s_preset_comes_over_the_model_s(tmp_path: Path) -> None:
    """Model, device and data of an operator make one section."""
    made = trainer_settings("qwen2.5-7b", "cuda-before-ampere", str(tmp_path))
    assert (made["lora"], made["dtype"], made["device"], made["data"]) == (16, "float16", "cuda", str(tmp_path))


def test_what_is_no_preset_is_a_model(tmp_path: Path) -> None:
    """A directory becomes absolute, a name stays, nothing is nothing."""
    assert trainer_settings(str(tmp_path), "", "") == {"model": str(tmp_path)}
    assert trainer_settings("some/model", "", "") == {"model": "some/model"}
    assert trainer_settings("", "", "") == {}


def test_a_preset_with_a_foreign_key_is_refused(tmp_path: Path) -> None:
    """A misspelt key would otherwise be noticed by the first node that starts with it."""
    (tmp_path / "x.toml").write_text("[trainer]\nlora_rank = 3\n")
    with pytest.raises(msgspec.ValidationError, match="lora_rank"):
        settings_of(tmp_path / "x.toml")
