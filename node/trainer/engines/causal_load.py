"""Loads causal models as they are trained: whole, with adapters, or with adapters on a 4-bit base."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from node.trainer.file_names import ADAPTER_CONFIG
from node.trainer.memory.placement import Placement
from node.trainer.messages import TrainerSettings

ADAPTER = "default"
ALPHA = 32
"""LoRA's scale times its rank: the best step size then hardly depends on the rank."""

ADAPTER_WEIGHTS = "adapter_model.safetensors"


class ModelSource(NamedTuple):
    """Where a model comes from: its base, adapters for it (None: fresh ones, if any), configuration, tokenizer, and
    the settings with the rank that adapters on disk have."""

    base: str
    adapters: Path | None
    config: Any
    tokenizer: Any
    settings: TrainerSettings


def read(settings: TrainerSettings) -> ModelSource:
    """Return the source of `settings.model`: a directory (nothing is fetched), of a whole model or of adapters, or a
    name that transformers resolves. Raises ValueError with one line that says what is wrong and what to do."""
    local = Path(settings.model).expanduser()
    base, adapters = (str(local) if local.is_dir() else settings.model), None
    if (local / ADAPTER_CONFIG).is_file():
        found = msgspec.json.decode((local / ADAPTER_CONFIG).read_bytes())
        base, adapters = str(found["base_model_name_or_path"]), local
        settings = msgspec.structs.replace(settings, lora=int(found["r"]))
        if settings.beta:
            raise ValueError(
                "trainer.beta: the divergence from a start with adapters is not known, only that from their base: set "
                "it to 0, or name a whole model (swarm model export writes one)"
            )
    _refuse_missing(settings)
    known = _known(base)
    with _in_one_line(settings):
        config = AutoConfig.from_pretrained(base, **known)
        return ModelSource(
            base, adapters, config, AutoTokenizer.from_pretrained(str(adapters or base), **known), settings
        )


def _refuse_missing(settings: TrainerSettings) -> None:
    for extra, package, wanted in (
        ("lora", "peft", settings.lora),
        ("quant", "bitsandbytes", settings.quantise == "nf4" or settings.optimizer == "adam8bit"),
    ):
        if wanted and find_spec(package) is None:
            raise ValueError(f"trainer: {package} is not installed: pip install 'swarm-node[{extra}]'")
    if settings.quantise == "nf4" and not settings.lora:
        raise ValueError("trainer.quantise: 4-bit weights can't be trained themselves: set trainer.lora = 16")


def _known(place: str) -> dict[str, Any]:
    return {"local_files_only": Path(place).is_dir(), "trust_remote_code": False}


def load_model(source: ModelSource, placement: Placement) -> Any:
    """Return the model on its device, adapters included where the settings want them. Raises ValueError."""
    known = _known(source.base)
    if source.settings.quantise == "nf4":
        known["device_map"] = {"": placement.device}
        known["quantization_config"] = BitsAndBytesConfig(  # type: ignore[no-untyped-call]
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=placement.autocast or placement.weights,
        )
    with _in_one_line(source.settings):
        model = AutoModelForCausalLM.from_pretrained(
            source.base, dtype=placement.weights, use_safetensors=True, **known
        )
    if source.settings.quantise == "nf4":
        _keep_layout(model)
    model = prepare(model, source.settings, placement)
    if source.adapters is not None:
        load_adapters(model, source.adapters)
    return model


def _keep_layout(model: Any) -> None:
    """Keep bitsandbytes from repacking 4-bit weights on a CPU when they first sample: that layout has no gradient."""
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def prepare(model: Any, settings: TrainerSettings, placement: Placement) -> Any:
    """Return a model as it is trained: on its device, in its type, with fresh adapters where they are wanted."""
    if settings.quantise != "nf4":
        model = model.to(device=placement.device, dtype=placement.weights)
    model.config.use_cache = False
    if settings.lora:
        add_adapters(model, settings.lora)
    return model


@contextmanager
def _in_one_line(settings: TrainerSettings) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, ImportError) as fault:
        reason = next(iter(str(fault).splitlines()), type(fault).__name__)
        raise ValueError(f"trainer.model: {settings.model!r} does not load ({reason}): name a directory") from fault


# --- adapters ---------------------------------------------------------------------------------------------------------


def add_adapters(model: Any, rank: int) -> None:
    """Put LoRA adapters (arXiv 2106.09685) on every matrix of the blocks, in place; only they are trained."""
    from peft import LoraConfig

    head = model.get_output_embeddings()
    kinds = {
        name.rpartition(".")[2]
        for name, each in model.named_modules()
        if isinstance(each, torch.nn.Linear) and each is not head
    }
    model.add_adapter(LoraConfig(r=rank, lora_alpha=ALPHA, target_modules=sorted(kinds)), ADAPTER)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name)
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def load_adapters(model: Any, directory: Path) -> None:
    """Read adapters written by `save_pretrained`. Raises ValueError where they are not this model's."""
    from peft import set_peft_model_state_dict

    read: dict[str, Tensor] = load_file(directory / ADAPTER_WEIGHTS)
    result: Any = set_peft_model_state_dict(model, read, adapter_name=ADAPTER)
    missing = [name for name in result.missing_keys if "lora_" in name]
    if missing or result.unexpected_keys:
        raise ValueError(f"{directory}: these adapters are not of this model")


@contextmanager
def adapters_off(model: Any) -> Iterator[None]:
    """Have the base model compute alone."""
    model.disable_adapters()
    try:
        yield
    finally:
        model.enable_adapters()


def merge(source: Path, out: Path) -> bool:
    """Write the whole model of a directory with adapters to `out`: base weights in their own type plus adapters.

    Returns False, having done nothing, where `source` holds no adapters. The base is read anew in 16 or 32 bits,
    never in 4: what was trained on a 4-bit base differs from the merged model by the rounding of that base. Raises
    ValueError where the base is not there any more.
    """
    if not (source / ADAPTER_CONFIG).is_file():
        return False
    from peft import PeftConfig, PeftModel

    name = str(PeftConfig.from_pretrained(str(source)).base_model_name_or_path)
    try:
        base = AutoModelForCausalLM.from_pretrained(name)
    except (OSError, ValueError) as fault:
        raise ValueError(f"the adapters' base model {name} does not load: put it there again") from fault
    merged = PeftModel.from_pretrained(base, str(source)).merge_and_unload()
    merged.save_pretrained(str(out))
    AutoTokenizer.from_pretrained(str(source)).save_pretrained(str(out))
    return True
