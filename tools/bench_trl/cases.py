"""What is compared: pure descriptions."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

TRL = "trl==1.16.0"


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """A causal LM with random weights: `kind` is transformers' model type."""

    kind: Literal["qwen2", "llama"]
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int

    def config(self) -> dict[str, Any]:
        """Return the keyword arguments of the configuration."""
        return {**msgspec.to_builtins(self), "tie_word_embeddings": True, "max_position_embeddings": 2048}


class BenchCase(msgspec.Struct, frozen=True, kw_only=True):
    """One comparison. `shape` None is the built-in model on generated problems, graded and evaluated.

    With a shape, prompts are `prompt` random letters (a token each), completions have `completion` tokens, and rewards
    alternate, so that every group has an advantage whatever the random model says. `times` is how many times faster we
    mean to be.
    """

    name: str
    title: str
    groups: int
    num_generations: int
    completion: int
    updates: int
    times: float
    shape: Shape | None = None
    prompt: int = 0
    rate: float = 4e-4
    seeds: tuple[int, ...] = (0,)
    dtype: Literal["float32", "bfloat16"] = "float32"


QWEN_HALF = Shape(
    kind="qwen2", vocab_size=151_936, hidden_size=896, intermediate_size=4864, num_hidden_layers=24,
    num_attention_heads=14, num_key_value_heads=2,
)  # fmt: skip
"""Qwen2.5-0.5B's."""

SMOLLM = Shape(
    kind="llama", vocab_size=49_152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30,
    num_attention_heads=9, num_key_value_heads=3,
)  # fmt: skip
"""SmolLM2-135M's."""

CASES = {
    case.name: case
    for case in (
        BenchCase(
            name="builtin", title="built-in model", groups=32, num_generations=8, completion=32, updates=25, times=3.0,
            seeds=(0, 1, 2),
        ),
        BenchCase(
            name="half", title="0.5B-shaped Qwen2", shape=QWEN_HALF, groups=2, num_generations=4, prompt=64,
            completion=16, updates=3, times=1.3, rate=1e-6, dtype="bfloat16",
        ),
        BenchCase(
            name="smol", title="SmolLM2-135M-shaped", shape=SMOLLM, groups=1, num_generations=8, prompt=400,
            completion=60, updates=3, times=3.0, rate=1e-6,
        ),
    )
}  # fmt: skip


def tiny(case: BenchCase) -> BenchCase:
    """Return the same comparison at a size that only shows that it runs."""
    replace = msgspec.structs.replace
    if case.shape is None:
        return replace(case, updates=3, seeds=(0,))
    small = replace(
        case.shape, vocab_size=300, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2,
    )  # fmt: skip
    return replace(case, shape=small, prompt=20, completion=8, updates=3)


class BenchJob(msgspec.Struct, frozen=True, kw_only=True):
    """What one contestant gets: the case, where the model is, the questions of all updates in order, and a seed."""

    case: BenchCase
    model: str
    questions: tuple[tuple[str, str], ...]
    threads: int
    seed: int
    out: str
    """Where the weights go at the end; empty keeps them nowhere."""


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """One update: seconds in all and for generating, CPU seconds of the process, mean reward, completion tokens."""

    seconds: float
    generating: float
    cpu: float
    reward: float
    tokens: int


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """The end: the process's highest resident memory, in bytes."""

    peak: int


def alternating(count: int) -> list[float]:
    """Return rewards that give every group of two or more an advantage."""
    return [float(place % 2) for place in range(count)]
