"""The sampler: what generates completions from the weights that an engine trains.

One class is one generation engine. `node.trainer.engines.decoder_sampler` decodes with the trained model itself,
`node.trainer.engines.vllm_sampler` through vLLM, `node.trainer.engines.parallel_vllm_sampler` through vLLM over all
ranks. Another one implements `Sampler` and gets a name in `node.trainer.engines.factory`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import msgspec
import torch
from torch import Tensor

from node.config import TrainerSettings
from node.trainer.engines.process_group import ProcessGroup
from node.trainer.memory.memory_plan import MemoryPlan, ModelShape, SamplerMemory
from protocols.manifest import GameSpec


class Sample(msgspec.Struct, frozen=True):
    """One sampled completion: ids with the end token, their log-probabilities, and whether it ended by itself."""

    tokens: list[int]
    logps: list[float]
    text: str
    finished: bool


class ServedModel(Protocol):
    """What a trained model offers to a generation engine that holds a copy of its weights."""

    source: str
    """Directory or hub name of the model that training started from: configuration and tokenizer."""
    game: GameSpec
    prefix: list[int]
    """Ids that stand before every prompt: the manifest's worked examples."""
    stops: Tensor
    """Ids that end a completion [n]."""
    device: torch.device
    shape: ModelShape
    memory_plan: MemoryPlan
    process_group: ProcessGroup

    @property
    def dtype(self) -> torch.dtype:
        """Type of the arithmetic."""

    def named_weights(self) -> Iterator[tuple[str, Tensor]]:
        """Yield the weights under their names on disk, whole, in `dtype`; adapters are merged, tied copies left out.

        With several ranks, all must iterate.
        """

    def shown(self, tokens: Sequence[int]) -> str:
        """Return the text of a completion's ids; U+FFFD stands for an id that the tokenizer does not have."""


class Sampler(Protocol):
    """Generates completions from the newest weights of the model that it was made for."""

    name: str
    max_num_seqs: int
    """Completions sampled at the same time; may be lowered when memory runs out. No outcome depends on it."""

    @classmethod
    def unusable(cls, settings: TrainerSettings) -> str:
        """Return why it can't be used with these settings, and what to do; empty if it can."""

    @classmethod
    def memory(cls, device: torch.device, dtype: torch.dtype, *, quantised: bool) -> SamplerMemory:
        """Return what it takes of a device's memory beside a model that computes in `dtype`."""

    def __init__(self, model: ServedModel) -> None:
        """Serve a trained model; nothing is started yet. Raises ValueError if it can't serve this model."""

    @property
    def started(self) -> bool:
        """Whether it was able to sample once. One that never was may be replaced by another."""

    def update_weights(self) -> None:
        """Note that the model's weights have changed: the next completions are sampled from the new ones."""

    def wake(self) -> None:
        """Make ready to sample: start if need be, take memory and the newest weights. Raises whatever its library
        raises."""

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
        """Sample `group` completions for each prompt's ids (`ServedModel.prefix` comes before them).

        Only while awake. `rng` is a CPU generator: the outcome depends on its seed, not on how many are sampled at
        once. `progress(done, total)` counts prompts. Raises `node.trainer.engines.engine.Cancelled` between two tokens,
        `NotFinite` for logits that are not finite.
        """

    def sleep(self) -> None:
        """Give back what an update needs of the memory, until the next `wake`."""
