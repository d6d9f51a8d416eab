"""The memory plan: against measured sizes of known models, and as an order that must hold for any."""

from __future__ import annotations

import msgspec
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import Qwen2Config

from node.config import TrainerSettings
from node.trainer.memory.memory_plan import (
    GPU_OVERHEAD,
    MemoryPlan,
    MemoryRequest,
    ModelShape,
    SamplerMemory,
    cache_bytes,
    mps_watermarks,
    plan_memory,
    refusal,
    size,
    table,
    trained_bytes,
    weight_bytes,
)
from node.trainer.memory.placement import LARGE, Placement, ask_of, multiplies_bfloat16, placements, shape_of
from protocols.manifest import GameSpec
from tests.support.paths import ROOT

GB = 10**9
CPU, MPS = torch.device("cpu"), torch.device("mps")


def qwen(
    hidden: int, inner: int, layers: int, heads: int, key_value_heads: int, vocabulary: int, *, tied: bool
) -> ModelShape:
    """The shape of a Qwen 2.5, from those of its first one and two layers."""
    one, two = (
        shape_of(
            Qwen2Config(
                hidden_size=hidden, intermediate_size=inner, num_hidden_layers=count, num_attention_heads=heads,
                num_key_value_heads=key_value_heads, vocab_size=vocabulary, tie_word_embeddings=tied,
            )
        )
        for count in (1, 2)
    )  # fmt: skip
    parameters, matrices, edges = (
        getattr(one, name) + (layers - 1) * (getattr(two, name) - getattr(one, name))
        for name in ("parameters", "matrices", "edges")
    )
    return msgspec.structs.replace(one, layers=layers, parameters=parameters, matrices=matrices, edges=edges)


@pytest.fixture(scope="module")
def shapes() -> dict[str, ModelShape]:
    return {
        "0.5B": qwen(896, 4864, 24, 14, 2, 151_936, tied=True),
        "1.5B": qwen(1536, 8960, 28, 12, 2, 151_936, tied=True),
        "7B": qwen(3584, 18_944, 28, 28, 4, 152_064, tied=False),
        "32B": qwen(5120, 27_648, 64, 40, 8, 152_064, tied=False),
        "72B": qwen(8192, 29_568, 80, 64, 8, 152_064, tied=False),
    }


@pytest.mark.parametrize(
    ("name", "parameters", "bf16", "fp32_adam", "adam8bit", "adapters", "nf4", "cache"),
    [
        ("0.5B", 0.494, 1.0, 7.9, 3.0, 8.8, 0.5, 12),
        ("1.5B", 1.54, 3.1, 24.7, 9.3, 18.5, 1.15, 28),
        ("7B", 7.62, 15.2, 122, 46, 40.4, 5.5, 56),
        ("32B", 32.8, 65.6, 525, 197, 134, 19.2, 256),
        ("72B", 72.7, 145, 1163, 436, 211, 41, 320),
    ],
)
def test_known_models_take_what_is_known(
    shapes: dict[str, ModelShape], name: str, parameters: float, bf16: float, fp32_adam: float, adam8bit: float,
    adapters: float, nf4: float, cache: int,
) -> None:  # fmt: skip
    """Qwen 2.5's parameters and gigabytes: weights, full training by either Adam, adapters of rank 16, NF4, cache."""
    shape = shapes[name]
    narrow = MemoryRequest(weights=2, arithmetic=2)
    eight = msgspec.structs.replace(narrow, adam8bit=True)
    whole, small = MemoryRequest(), msgspec.structs.replace(narrow, lora=16)
    assert shape.parameters / GB == pytest.approx(parameters, rel=0.01)
    assert weight_bytes(shape, narrow) / GB == pytest.approx(bf16, rel=0.05)
    assert (weight_bytes(shape, whole) + sum(trained_bytes(shape, whole))) / GB == pytest.approx(fp32_adam, rel=0.02)
    assert (weight_bytes(shape, eight) + sum(trained_bytes(shape, eight))) / GB == pytest.approx(adam8bit, rel=0.02)
    assert shape.edges * 16 / 1e6 == pytest.approx(adapters, rel=0.01)
    assert sum(trained_bytes(shape, small)) == shape.edges * 16 * 16
    assert weight_bytes(shape, msgspec.structs.replace(small, nf4=True)) / GB == pytest.approx(nf4, rel=0.09)
    assert cache_bytes(shape, 2) / 1024 == cache


TARGETS = [
    ("16 GB, 0.5B, bf16 whole", "0.5B", MemoryRequest(weights=2, arithmetic=2), 14.4),
    ("16 GB, 1.5B, LoRA", "1.5B", MemoryRequest(weights=2, arithmetic=2, lora=16), 14.4),
    ("80 GB, 7B, LoRA", "7B", MemoryRequest(weights=2, arithmetic=2, lora=16), 72),
    ("80 GB, 7B, 8-bit Adam", "7B", MemoryRequest(weights=2, arithmetic=2, adam8bit=True), 72),
    ("80 GB, 32B, NF4", "32B", MemoryRequest(weights=2, arithmetic=2, lora=16, nf4=True), 72),
    ("80 GB, 72B, NF4", "72B", MemoryRequest(weights=2, arithmetic=2, lora=16, nf4=True), 72),
]


@pytest.mark.parametrize(("name", "ask", "budget"), [each[1:] for each in TARGETS], ids=[each[0] for each in TARGETS])
def test_the_targets_fit(shapes: dict[str, ModelShape], name: str, ask: MemoryRequest, budget: float) -> None:
    """What the documentation promises for a machine has room there, a whole group at once."""
    plan = plan_memory(shapes[name], msgspec.structs.replace(ask, completion=200), int(budget * GB))
    assert plan.fits
    assert plan.micro_batch_tokens >= 256 + 8 * 200
    assert plan.max_num_seqs >= 8


CARDS = {"8 GB": 8, "16 GB": 16, "24 GB": 24, "40 GB": 40, "80 GB": 80}
PRESETS = {"0.5b": "0.5B", "1.5b": "1.5B", "7b": "7B", "32b": "32B", "72b": "72B"}


@pytest.mark.parametrize("preset", PRESETS)
def test_the_documented_table_is_what_the_plan_says(shapes: dict[str, ModelShape], preset: str) -> None:
    """For each preset and card: how many completions are sampled and how many tokens an update takes at once."""
    settings = msgspec.toml.decode((ROOT / f"configs/models/qwen2.5-{preset}.toml").read_bytes())["trainer"]
    chosen = msgspec.convert(settings, TrainerSettings)
    weights, autocast = (torch.bfloat16, torch.bfloat16) if chosen.lora else (torch.float32, torch.bfloat16)
    ask = ask_of(chosen, GameSpec(max_prompt=256, max_completion=200), Placement(CPU, weights, autocast), 0)
    cells = [cell(plan_memory(shapes[PRESETS[preset]], on_a_gpu(ask), int(0.9 * gb * GB))) for gb in CARDS.values()]
    row = f"| `qwen2.5-{preset}` | {' | '.join(cells)} |"
    assert row in (ROOT / "docs/trainer.md").read_text(), row


def on_a_gpu(ask: MemoryRequest) -> MemoryRequest:
    return msgspec.structs.replace(ask, overhead=GPU_OVERHEAD, sampler=SamplerMemory())


def cell(plan: MemoryPlan) -> str:
    if not plan.fits:
        return "-"
    return f"{plan.max_num_seqs}, {plan.micro_batch_tokens:,}{' r' * plan.gradient_checkpointing}"


@pytest.mark.parametrize(
    ("name", "budget", "advice"),
    [
        ("7B", 14, 'trainer.lora = 16 and trainer.quantise = "nf4"'),
        ("7B", 40, "trainer.lora = 16 ("),
        ("1.5B", 15, 'trainer.dtype = "bfloat16"'),
        ("1.5B", 22, 'trainer.optimizer = "adam8bit"'),
        ("72B", 16, "choose a smaller model"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_mildest_remedy(
    shapes: dict[str, ModelShape], name: str, budget: float, advice: str
) -> None:
    """One line: what is needed, what there is, what to set."""
    said = refusal(shapes[name], MemoryRequest(), int(budget * GB))
    assert not plan_memory(shapes[name], MemoryRequest(), int(budget * GB)).fits
    assert f"{budget:.1f} GB may be used: " in said
    assert advice in said
    assert "\n" not in said


@given(st.integers(1, 60), st.integers(0, 8), st.integers(16, 2000), st.booleans())
def test_more_memory_never_means_less_at_once(budget: int, rank: int, completion: int, quantised: bool) -> None:
    """A plan that fits is inside its budget, and a larger budget takes as much at once, or keeps activations."""
    shape = ModelShape(
        parameters=500_000_000, matrices=350_000_000, edges=550_000, layers=24, hidden=896, inner=4864, heads=14,
        key_value_heads=2, head_width=64, vocabulary=152_000,
    )  # fmt: skip
    ask = MemoryRequest(weights=2, arithmetic=2, lora=rank, nf4=quantised and rank > 0, completion=completion)
    small, large = (plan_memory(shape, ask, int(each * GB)) for each in (budget, budget + 4))
    assert small.fits == (small.peak <= budget * GB)
    assert large.fits or not small.fits
    if small.fits:
        assert large.max_num_seqs >= small.max_num_seqs
        assert large.micro_batch_tokens >= small.micro_batch_tokens or (
            small.gradient_checkpointing and not large.gradient_checkpointing
        )


def test_the_operator_overrides_the_plan(shapes: dict[str, ModelShape]) -> None:
    """What is set is not chosen; what then does not fit is said."""
    ask = MemoryRequest(micro_batch_tokens=100, max_num_seqs=24, gradient_checkpointing="always")
    plan = plan_memory(shapes["0.5B"], ask, 20 * GB)
    assert (plan.micro_batch_tokens, plan.max_num_seqs, plan.gradient_checkpointing, plan.fits) == (100, 24, True, True)
    assert not plan_memory(
        shapes["0.5B"], MemoryRequest(micro_batch_tokens=1_000_000, gradient_checkpointing="never"), 20 * GB
    ).fits


def test_a_reference_model_is_counted_once_it_is_kept(shapes: dict[str, ModelShape]) -> None:
    """The divergence needs a second copy of whole weights; adapters are simply switched off."""
    ask = MemoryRequest(reference=True)
    assert plan_memory(shapes["0.5B"], ask, 20 * GB).reference == weight_bytes(shapes["0.5B"], ask)
    assert plan_memory(shapes["0.5B"], msgspec.structs.replace(ask, lora=8), 20 * GB).reference == 0


def test_the_table_names_what_was_chosen(shapes: dict[str, ModelShape]) -> None:
    """Each row is a part and an amount; parts that take nothing are left out."""
    rows = dict(table(plan_memory(shapes["0.5B"], MemoryRequest(lora=8, weights=2, arithmetic=2), 20 * GB)))
    assert rows["weights"] == "988 MB"
    assert rows["may be used"] == "20.0 GB"
    assert "reference model" not in rows
    assert any(part.startswith("activations of ") for part in rows)
    assert size(1_500_000_000) == "1.5 GB"


def test_watermarks_keep_their_order() -> None:
    """torch refuses a low watermark above the high one."""
    found = mps_watermarks(0.9)
    assert float(found["PYTORCH_MPS_LOW_WATERMARK_RATIO"]) < float(found["PYTORCH_MPS_HIGH_WATERMARK_RATIO"]) <= 0.9


# --- placements -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "device", "expected"),
    [
        (TrainerSettings(), CPU, [(torch.float32, None)]),
        (TrainerSettings(), MPS, [(torch.float32, None)]),
        (TrainerSettings(dtype="bfloat16"), CPU, [(torch.bfloat16, None)]),
        (TrainerSettings(dtype="float16"), CPU, [(torch.float32, torch.float16)]),
        (TrainerSettings(dtype="bfloat16", lora=8), CPU, [(torch.bfloat16, None)]),
    ],
)
def test_each_device_has_its_types(
    settings: TrainerSettings, device: torch.device, expected: list[tuple[torch.dtype, torch.dtype | None]]
) -> None:
    """float32 where nothing is said; float16 only as arithmetic over float32 weights."""
    assert [each[1:] for each in placements(settings, device, 1_000_000)] == expected
    assert placements(settings, device, 1_000_000)[0].half == (settings.dtype == "float16")


def test_a_large_model_computes_in_what_the_cpu_is_made_for() -> None:
    """bfloat16 over float32 weights where the CPU multiplies it, unless something else is asked for."""
    plain = (torch.float32, None)
    mixed = [(torch.float32, torch.bfloat16), plain] if multiplies_bfloat16() else [plain]
    assert [each[1:] for each in placements(TrainerSettings(), CPU, LARGE)] == mixed
    for settings in (TrainerSettings(dtype="float32"), TrainerSettings(lora=8)):
        assert [each[1:] for each in placements(settings, CPU, LARGE)] == [plain]


def test_game_and_settings_ask_for_memory() -> None:
    """The longest lengths of the game count, and every setting that takes or saves memory."""
    settings = TrainerSettings(
        lora=8, quantise="nf4", optimizer="adam8bit", beta=0.1, micro_batch_tokens=64, max_num_seqs=16
    )
    game = GameSpec(
        max_prompt=100, max_completion=20, num_generations=4, num_prompts=8, local_groups=3, external_groups=9
    )
    assert ask_of(settings, game, Placement(CPU, torch.bfloat16, None), 7) == MemoryRequest(
        weights=2, arithmetic=2, lora=8, nf4=True, adam8bit=True, reference=True, prefix=7, prompt=100, completion=20,
        group=4, groups=12, micro_batch_tokens=64, max_num_seqs=16,
    )  # fmt: skip
