"""The engine: what the trainer asks of the language model that it trains, whatever its size and library.

`node.trainer.engines.builtin.builtin_engine` is the built-in model, `node.trainer.engines.causal` any causal LM of
transformers, `node.trainer.engines.sharded` such a one over several ranks. Each holds a sampler
(`node.trainer.engines.sampler`), which generates completions from its weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec
import torch

from node.trainer.engines.sampler import Sample, Sampler
from protocols.identifiers import Digest


class TrainingGroup(msgspec.Struct, frozen=True):
    """One group as the update sees it.

    `prompt` holds the ids of the question's own part (the manifest's worked examples, common to all, are the
    engine's); `completions[i]` the ids of completion i, end token included; `behaviour[i]` their log-probabilities
    under the policy that sampled them, or empty where they can't be used; `advantages[i]` its advantage. `body` is the
    body that the group came in, where that is known.
    """

    prompt: list[int]
    completions: list[list[int]]
    behaviour: list[list[float]]
    advantages: list[float]
    external: bool
    body: Digest = b""


class Engine(Protocol):
    """A model with its tokenizer. Every method runs in the trainer's child."""

    fingerprint: Digest
    parameter_count: int
    device: torch.device
    sampler: Sampler
    """What generates completions from its weights."""
    micro_batch_tokens: int
    """Tokens of a micro-batch, by the memory plan."""
    half_precision: bool
    """Whether gradients are float16's and the loss must be scaled."""

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, without special tokens added."""

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of a completion's ids, the same that `Sample.text` had when they were sampled. Raises
        ValueError where an id is not in the vocabulary."""

    def completion_ids(self, text: str, finished: bool) -> list[int]:
        """Return the ids of a completion that came as text, closed by the end token where it finished by itself."""

    def sample(
        self,
        questions: Sequence[str],
        group: int,
        rng: torch.Generator,
        cancelled: Callable[[], bool],
        *,
        greedy: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[list[Sample]]:
        """Sample `group` completions for each question text (`protocols.games.share.question_text`) by the sampler.

        `rng` is a CPU generator; the outcome depends on its seed, not on how many completions are sampled at once.
        Lengths, temperature and stop text are the game's. Raises `Cancelled` between two tokens when `cancelled()`,
        `NotFinite` for logits that are not finite.
        """

    def completion_logps(self, groups: Sequence[TrainingGroup]) -> torch.Tensor:
        """Return, with gradient, the log-probability of every completion token: shape [tokens], in the order
        group, completion, token. Prompts are computed once per group."""

    def reference_logps(self, groups: Sequence[TrainingGroup]) -> torch.Tensor:
        """Return the same of the model as it was before any update, without gradient. Raises RuntimeError where
        the settings have no `beta`: then none is kept."""

    def cost(self, group: TrainingGroup) -> int:
        """Return the tokens that a group costs in an update, for packing micro-batches."""

    def parameters(self) -> Iterator[torch.nn.Parameter]:
        """Return the parameters that are trained."""

    def weights_changed(self) -> None:
        """Forget what was derived from the weights (fused matrices, prefix caches); the sampler takes the new ones."""

    def save(self, directory: Path) -> None:
        """Write weights, tokenizer and config as a Hugging Face directory."""

    def load_weights(self, directory: Path) -> None:
        """Read weights written by `save`."""

    def train_mode(self, on: bool) -> Any:
        """Switch drop-out and the like."""

    def use_float32(self) -> bool:
        """Compute in float32 from now on, with the same parameters; return whether that changes anything."""


class Cancelled(Exception):  # noqa: N818 - what happened to the task
    """The node gave the task up."""


class NotFinite(Exception):  # noqa: N818 - what happened to the task
    """Logits, loss or gradient hold what is no number; the weights are as before."""
