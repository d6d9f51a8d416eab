"""Sampling by the trained model itself, with the decoder of `node.trainer.engines.decode`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import structlog
import torch
from torch import Tensor

from node.config import TrainerSettings
from node.trainer.engines.decode import Decoding, Row, decode_batch, draws_for
from node.trainer.engines.process_group import ProcessGroup
from node.trainer.engines.sampler import Sample
from node.trainer.engines.tree_attention import AttentionPlan, Pair, PrefixPlan
from node.trainer.engines.weight_layout import pays
from node.trainer.memory.memory_plan import SamplerMemory
from node.trainer.memory.oom import is_memory
from protocols.manifest import GameSpec

log = structlog.get_logger()

ResultT = TypeVar("ResultT")


class DecodableModel(Protocol):
    """What the decoder asks of the trained model."""

    game: GameSpec
    prefix: list[int]
    stops: Tensor
    device: torch.device
    process_group: ProcessGroup

    def forward(self, ids: Tensor, positions: Tensor, plan: AttentionPlan) -> Tensor:
        """Return the last hidden states [N, width] of ids [N] at positions [N] that attend as `plan` says."""

    def logits(self, hidden: Tensor) -> Tensor:
        """Return logits [n, vocabulary] of hidden states [n, width]."""

    def texts(self, rows: list[list[int]]) -> list[str]:
        """Return the texts of completions' ids."""

    def decoding(self, work: Callable[[], ResultT]) -> ResultT:
        """Return what `work` returns, run without gradient and with the weights prepared for sampling."""


class DecoderSampler:
    """`node.trainer.engines.sampler.Sampler` on the trained model's own weights. Several ranks sample alike."""

    name = "hf"

    def __init__(self, model: DecodableModel) -> None:
        self.max_num_seqs = 1
        self._model = model
        self._prefix_cache: dict[int, Pair] | None = None

    @classmethod
    def unusable(cls, settings: TrainerSettings) -> str:
        """Return nothing: it samples from any model that can be trained."""
        return ""

    @classmethod
    def memory(cls, device: torch.device, dtype: torch.dtype, *, quantised: bool) -> SamplerMemory:
        """Return a copy of the weights where a CPU multiplies faster by one that is laid out for it."""
        return SamplerMemory(copies_weights=pays(device, dtype) and not quantised)

    @property
    def started(self) -> bool:
        """Whether it was able to sample once: there is nothing to start."""
        return True

    def update_weights(self) -> None:
        """Forget the prefix's keys and values."""
        self._prefix_cache = None

    def wake(self) -> None:
        """Do nothing: what sampling takes is allocated per call."""

    def sleep(self) -> None:
        """Do nothing, for the same reason."""

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
        """Sample `group` completions for each prompt, `max_num_seqs` at a time.

        Each completion takes its own stretch of the numbers of `rng`. Raises `Cancelled` between two tokens,
        `NotFinite`, MemoryError or torch's error for it where even one group does not fit.
        """
        draws = draws_for(len(prompts), group, self._model.game.max_completion, rng)

        def decode() -> list[list[Sample]]:
            how = self._decoding(cancelled, greedy)
            made: list[list[Sample]] = []
            while len(made) < len(prompts):
                made += self._batch(how, prompts, draws, len(made), progress)
            return made

        return self._model.decoding(decode)

    def _batch(
        self,
        how: Decoding,
        prompts: Sequence[list[int]],
        draws: Tensor,
        start: int,
        progress: Callable[[int, int], None] | None,
    ) -> list[list[Sample]]:
        """Sample the prompts from `start` on that are sampled at once; none of them if that took too much memory."""
        group = draws.shape[1]
        stop = start + max(1, self.max_num_seqs // group)

        def ended(rows: int) -> None:
            if progress:
                progress(start + rows // group, len(prompts))

        try:
            rows = decode_batch(how, prompts[start:stop], draws[start:stop], ended)
        except (MemoryError, RuntimeError) as error:
            single = self._model.process_group.world_size == 1  # one of several ranks must not begin again by itself
            if not is_memory(error) or stop == start + 1 or not single:
                raise
            self.max_num_seqs //= 2
            log.warning("memory.short", max_num_seqs=self.max_num_seqs)
            return []
        return [self._samples(some) for some in rows]

    def _decoding(self, cancelled: Callable[[], bool], greedy: bool) -> Decoding:
        model, game = self._model, self._model.game
        if self._prefix_cache is None:
            plan = PrefixPlan(len(model.prefix), model.device)
            if model.prefix:
                ids = torch.tensor(model.prefix, device=model.device)
                model.forward(ids, torch.arange(len(model.prefix), device=model.device), plan)
            self._prefix_cache = plan.pairs
        return Decoding(
            forward=model.forward,
            logits=model.logits,
            prefix=self._prefix_cache,
            prefix_length=len(model.prefix),
            stops=model.stops,
            limit=game.max_completion,
            temperature=game.temperature,
            greedy=greedy,
            cancelled=cancelled,
            broadcast=model.process_group.broadcast_tensor,
        )

    def _samples(self, rows: list[Row]) -> list[Sample]:
        texts = self._model.texts([row.tokens for row in rows])
        return [Sample(row.tokens, row.logps, text, row.finished) for row, text in zip(rows, texts, strict=True)]
