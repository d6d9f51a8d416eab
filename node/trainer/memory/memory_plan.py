"""The memory plan: what a model takes of a device, worked out before it is loaded. Pure arithmetic."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

CHUNK = 256
"""Completion tokens whose logits are computed at once."""

SCORES_BYTES = 512 << 20
"""Logits that an update keeps for its backward pass; beyond it they are computed again, `CHUNK` by `CHUNK`."""

MOST_TOKENS = 65_536
MOST_ROWS = 1_024
"""More at once is no faster."""

NF4_BITS = 4.127
"""Bits of a parameter in NF4 with its scales quantised too (QLoRA, arXiv 2305.14314)."""

GPU_OVERHEAD = 768 << 20
"""Context and library workspaces of a GPU process."""


class ModelShape(msgspec.Struct, frozen=True, kw_only=True):
    """A model's sizes. `matrices` counts the parameters of the blocks' linear layers, `edges` the sum of their rows
    and columns: what adapters of rank 1 hold."""

    parameters: int
    matrices: int
    edges: int
    layers: int
    hidden: int
    inner: int
    heads: int
    key_value_heads: int
    head_width: int
    vocabulary: int


class SamplerMemory(msgspec.Struct, frozen=True):
    """What a sampler takes beside the trained model while it samples: a copy of the weights in the arithmetic's type
    (sharded over the ranks, as the model is), and the key-value cache, whole or sharded by heads."""

    copies_weights: bool = False
    shards_cache: bool = False


class MemoryRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be done with the model. Widths are bytes of a number; lengths are tokens.

    `weights` is the width of stored weights, `arithmetic` that of the computation; `group` completions are sampled
    for each of `groups` questions. `sampler` is what samples; `decoder` is the model's own decoder if that could take
    its place. `micro_batch_tokens` and `max_num_seqs` are the operator's choice, 0 leaves it to the plan.
    """

    weights: int = 4
    arithmetic: int = 4
    lora: int = 0
    nf4: bool = False
    adam8bit: bool = False
    reference: bool = False
    prefix: int = 0
    prompt: int = 256
    completion: int = 32
    group: int = 8
    groups: int = 16
    micro_batch_tokens: int = 0
    max_num_seqs: int = 0
    gradient_checkpointing: Literal["auto", "always", "never"] = "auto"
    sampler: SamplerMemory = SamplerMemory()
    decoder: SamplerMemory | None = None
    world_size: int = 1
    overhead: int = 0


class MemoryPlan(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes by what takes them, and what was chosen: tokens an update takes at once, completions sampled at once,
    whether activations are computed again. `sampler` is the sampler's copy of the weights, there while it samples.
    `peak` is the larger of the update's and the sampling's sum."""

    weights: int
    gradients: int
    optimizer: int
    reference: int
    casts: int
    activations: int
    logits: int
    cache: int
    sampler: int
    overhead: int
    micro_batch_tokens: int
    max_num_seqs: int
    gradient_checkpointing: bool
    budget: int

    @property
    def standing(self) -> int:
        """Bytes taken all the time."""
        return self.weights + self.optimizer + self.reference + self.casts + self.overhead

    @property
    def peak(self) -> int:
        """The most bytes taken at any time."""
        return self.standing + max(self.gradients + self.activations + self.logits, self.cache + self.sampler)

    @property
    def fits(self) -> bool:
        """Whether the peak is inside the budget."""
        return self.peak <= self.budget


# --- parts ------------------------------------------------------------------------------------------------------------


def weight_bytes(shape: ModelShape, ask: MemoryRequest) -> int:
    """Return the bytes of the model's weights; embeddings and norms of an NF4 model keep their type."""
    if ask.nf4:
        return int(shape.matrices * NF4_BITS / 8) + ask.weights * (shape.parameters - shape.matrices)
    return shape.parameters * ask.weights


def trained_bytes(shape: ModelShape, ask: MemoryRequest) -> tuple[int, int]:
    """Return the bytes of gradients and of optimiser state; adapters themselves count with the state.

    Adam's moments have the type of their parameter, or 8 bits each.
    """
    trained, width = (shape.edges * ask.lora, 4) if ask.lora else (shape.parameters, ask.weights)
    moments = 2 if ask.adam8bit else 2 * width
    return trained * width, trained * (moments + (width if ask.lora else 0))


def cache_bytes(shape: ModelShape, width: int) -> int:
    """Return what one token takes in the key-value cache."""
    return 2 * shape.layers * shape.key_value_heads * shape.head_width * width


def activation_bytes(shape: ModelShape, ask: MemoryRequest, *, gradient_checkpointing: bool) -> int:
    """Estimate what one token of an update keeps for the backward pass.

    A block keeps about 10 states of its hidden width in the weights' type (under autocast 7 more in the
    arithmetic's, in 16 bits 2 more for its norms), 4 of its inner width and, for each head and token that is seen, a
    softmax in float32 and that in the arithmetic's type; recomputed, its input alone. Counted over Qwen 2's blocks.
    """
    seen = ask.prefix + ask.prompt + ask.completion
    narrow = ask.arithmetic < 4
    states = 10 * ask.weights + (7 if ask.arithmetic < ask.weights else 2 * narrow) * ask.arithmetic
    block = states * shape.hidden + 4 * shape.inner * ask.arithmetic
    block += seen * shape.heads * (4 + narrow * ask.arithmetic)
    if gradient_checkpointing:
        return shape.layers * shape.hidden * ask.weights + block
    return shape.layers * block


def logit_bytes(shape: ModelShape, ask: MemoryRequest, tokens: int) -> int:
    """Return what the logits of an update's part take: all of them and their gradient, or one chunk at a time."""
    everything = 4 * shape.vocabulary * tokens
    if everything > SCORES_BYTES:
        return 3 * 4 * shape.vocabulary * min(tokens, CHUNK)
    return 2 * everything


# --- plan -------------------------------------------------------------------------------------------------------------


def plan_memory(shape: ModelShape, ask: MemoryRequest, budget: int) -> MemoryPlan:
    """Return the plan for `budget` bytes of one rank; if it does not fit, the smallest one (see
    `MemoryPlan.fits`).

    Activations are kept while at least one whole group fits into a part of an update, and computed again otherwise.
    """
    gradients, optimizer = trained_bytes(shape, ask)
    weights = weight_bytes(shape, ask)
    plan = MemoryPlan(
        weights=weights // ask.world_size + _gathered(shape, ask),
        gradients=gradients // ask.world_size,
        optimizer=optimizer // ask.world_size,
        reference=weights if ask.reference and not ask.lora else 0,
        casts=shape.parameters // ask.world_size * ask.arithmetic
        if ask.arithmetic < ask.weights and not ask.nf4
        else 0,
        activations=0,
        logits=0,
        cache=0,
        sampler=shape.parameters * ask.arithmetic // ask.world_size if ask.sampler.copies_weights else 0,
        overhead=ask.overhead,
        micro_batch_tokens=0,
        max_num_seqs=0,
        gradient_checkpointing=False,
        budget=budget,
    )
    return _with_sampling(_with_update(plan, shape, ask), shape, ask)


def _gathered(shape: ModelShape, ask: MemoryRequest) -> int:
    """Return what a rank has whole for a while: embedding and output layer, and two of the blocks."""
    if ask.world_size == 1:
        return 0
    return (shape.parameters - shape.matrices + 2 * shape.matrices // shape.layers) * ask.weights


def _with_update(plan: MemoryPlan, shape: ModelShape, ask: MemoryRequest) -> MemoryPlan:
    """Choose how much an update takes at once."""
    room = plan.budget - plan.standing - plan.gradients
    least = ask.prompt + ask.completion
    whole = ask.prompt + ask.group * ask.completion
    wanted = ask.micro_batch_tokens or min(MOST_TOKENS, max(whole, ask.groups * whole))
    choices = {"auto": (False, True), "always": (True,), "never": (False,)}[ask.gradient_checkpointing]
    for gradient_checkpointing in choices:
        each = activation_bytes(shape, ask, gradient_checkpointing=gradient_checkpointing)
        tokens = ask.micro_batch_tokens or _most_tokens(shape, ask, room - ask.prefix * each, each, wanted)
        kept = (ask.prefix + tokens) * each
        logits = logit_bytes(shape, ask, tokens)
        enough = kept + logits <= room and tokens >= min(whole, wanted)
        if enough or gradient_checkpointing == choices[-1]:
            tokens = max(tokens, min(least, wanted))
            break
    return msgspec.structs.replace(
        plan,
        activations=(ask.prefix + tokens) * each,
        logits=logit_bytes(shape, ask, tokens),
        micro_batch_tokens=tokens,
        gradient_checkpointing=gradient_checkpointing,
    )


def _most_tokens(shape: ModelShape, ask: MemoryRequest, room: int, each: int, wanted: int) -> int:
    """Return the most tokens, at most `wanted`, whose activations (`each` bytes) and logits have room."""
    low, high = 0, wanted
    while low < high:
        middle = (low + high + 1) // 2
        if middle * each + logit_bytes(shape, ask, middle) <= room:
            low = middle
        else:
            high = middle - 1
    return low


def _with_sampling(plan: MemoryPlan, shape: ModelShape, ask: MemoryRequest) -> MemoryPlan:
    """Choose how many completions are sampled at once, whole groups of them."""
    room = plan.budget - plan.standing - plan.sampler
    shards = min(ask.world_size, shape.key_value_heads) if ask.sampler.shards_cache else 1
    token = cache_bytes(shape, ask.arithmetic) // shards
    fixed = ask.prefix * token
    # Rows end at their own time; logits, their log-softmax and its running sum are float32.
    group = (ask.prompt + ask.group * ask.completion) * token + ask.group * 3 * 4 * shape.vocabulary
    groups = max(1, min((room - fixed) // group, ask.groups, MOST_ROWS // ask.group))
    rows = ask.max_num_seqs or int(groups * ask.group)
    return msgspec.structs.replace(plan, cache=fixed + -(-rows // ask.group) * group, max_num_seqs=rows)


# --- words ------------------------------------------------------------------------------------------------------------


def table(plan: MemoryPlan) -> list[tuple[str, str]]:
    """Return the plan's rows as an operator reads them: part and amount."""
    rows = [
        ("weights", plan.weights),
        ("weights in the arithmetic's type", plan.casts),
        ("reference model", plan.reference),
        ("gradients", plan.gradients),
        ("optimiser state", plan.optimizer),
        (
            f"activations of {plan.micro_batch_tokens} tokens{', computed again' * plan.gradient_checkpointing}",
            plan.activations,
        ),
        ("logits", plan.logits),
        (f"key-value cache of {plan.max_num_seqs} completions", plan.cache),
        ("weights once more while it samples", plan.sampler),
        ("device's own", plan.overhead),
        ("peak", plan.peak),
        ("may be used", plan.budget),
    ]
    return [(name, size(count)) for name, count in rows if count or name in ("peak", "may be used")]


def size(count: int) -> str:
    """Return bytes as "1.5 GB" (10^9) or "20 MB"."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{max(0, count) / 1e6:.0f} MB"


def refusal(shape: ModelShape, ask: MemoryRequest, budget: int) -> str:
    """Return one line: what is missing, and the mildest change of settings with which the model would fit."""
    plan = plan_memory(shape, ask, budget)
    advice = "choose a smaller model"
    for words, changes in _changes(ask):
        other = plan_memory(shape, msgspec.structs.replace(ask, **changes), budget)
        if other.fits:
            advice = f"set {words} ({size(other.peak)})"
            break
    return f"it needs {size(plan.peak)} of memory, {size(budget)} may be used: {advice}"


def _changes(ask: MemoryRequest) -> list[tuple[str, dict[str, Any]]]:
    """Return what an operator may change, mildest first, in words and in terms of `MemoryRequest`."""
    sparing: dict[str, Any] = {
        "gradient_checkpointing": "auto",
        "micro_batch_tokens": 0,
        "max_num_seqs": 0,
    }
    rank = ask.lora or 16
    return [
        ("trainer.gradient_checkpointing = auto, trainer.micro_batch_tokens = 0 and trainer.max_num_seqs = 0", sparing),
        *([('trainer.engine = "hf"', {**sparing, "sampler": ask.decoder})] if ask.decoder else []),
        ('trainer.optimizer = "adam8bit"', {**sparing, "adam8bit": True}),
        ('trainer.dtype = "bfloat16"', {**sparing, "weights": 2, "arithmetic": 2}),
        (f"trainer.lora = {rank}", {**sparing, "lora": rank, "weights": min(ask.weights, 2), "arithmetic": 2}),
        (f'trainer.lora = {rank} and trainer.quantise = "nf4"',
         {**sparing, "lora": rank, "nf4": True, "weights": 2, "arithmetic": 2}),
    ]  # fmt: skip


def mps_watermarks(share: float) -> dict[str, str]:
    """Return the environment that makes torch refuse more than `share` of what Metal recommends.

    By default torch takes 1.7 times that, and the whole machine swaps.
    """
    return {
        "PYTORCH_MPS_HIGH_WATERMARK_RATIO": f"{share:.2f}",
        "PYTORCH_MPS_LOW_WATERMARK_RATIO": f"{0.8 * share:.2f}",
    }
