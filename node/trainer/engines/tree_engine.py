"""What all engines with a token tree share: log-probabilities with prompts computed once, and a sampler."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import structlog
import torch
from torch import Tensor

from node.trainer.engines.decoder_sampler import DecoderSampler
from node.trainer.engines.engine import TrainingGroup
from node.trainer.engines.packing import pack, token_logps
from node.trainer.engines.process_group import SINGLE_PROCESS, ProcessGroup
from node.trainer.engines.sampler import Sample, Sampler
from node.trainer.engines.tree_attention import AttentionPlan
from protocols.manifest import GameSpec

log = structlog.get_logger()

ResultT = TypeVar("ResultT")


class TreeEngine(ABC):
    """Part of the `Engine` protocol; what depends on the model is left to subclasses.

    Log-probabilities are those of the game's temperature, in sampling and in the update alike.
    """

    half_precision = False
    process_group: ProcessGroup = SINGLE_PROCESS

    def __init__(self, game: GameSpec, prefix: list[int], stops: Sequence[int], device: torch.device) -> None:
        if game.temperature <= 0:
            raise ValueError("game.temperature: must be above 0 (greedy sampling is for evaluation)")
        self.device = device
        self.micro_batch_tokens = 1
        self.game, self.prefix = game, prefix
        self.stops = torch.tensor(stops, device=device)
        self.sampler: Sampler = DecoderSampler(self)
        self._fallback: Sampler | None = None

    # --- the model's ----------------------------------------------------------------------------------------------

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, without special tokens added."""

    @abstractmethod
    def texts(self, rows: list[list[int]]) -> list[str]:
        """Return the texts of completions' ids."""

    @abstractmethod
    def forward(self, ids: Tensor, positions: Tensor, plan: AttentionPlan) -> Tensor:
        """Return the last hidden states [N, width] of ids [N] at positions [N] that attend as `plan` says."""

    @abstractmethod
    def logits(self, hidden: Tensor) -> Tensor:
        """Return logits [n, vocabulary] of hidden states [n, width]."""

    @abstractmethod
    def parameters(self) -> Iterator[torch.nn.Parameter]:
        """Return the parameters that are trained."""

    @abstractmethod
    def _as_reference(self) -> AbstractContextManager[None]:
        """Have the model compute as it did before any update. Raises RuntimeError where that is not kept."""

    def _arithmetic(self) -> AbstractContextManager[Any]:
        """Return the context of all computation."""
        return nullcontext()

    def _laid_out(self) -> AbstractContextManager[None]:
        """Return the context in which the weights are prepared for sampling."""
        return nullcontext()

    def _recomputes_logits(self, targets: int) -> bool:
        """Return True if a micro-batch of so many predicted tokens recomputes its logits instead of keeping them."""
        return False

    # --- sampling -------------------------------------------------------------------------------------------------

    def use_sampler(self, sampler: Sampler, *, optional: bool = False) -> None:
        """Sample by `sampler` from now on. If it is `optional` and never starts, the one before takes over again."""
        self._fallback = self.sampler if optional else None
        self.sampler = sampler

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
        """Sample `group` completions for each question text; `progress` gets groups done and groups in all.

        Raises `Cancelled` between two tokens, `NotFinite`.
        """
        prompts = [self._bounded(self.encode(text)) for text in questions]
        self._wake()
        try:
            return self.sampler.sample(prompts, group, rng, cancelled, greedy=greedy, progress=progress)
        finally:
            self.sampler.sleep()

    def _wake(self) -> None:
        try:
            self.sampler.wake()
        except Exception as error:  # a library's start: whatever it raises, there is another way to sample
            if self._fallback is None or self.sampler.started:
                raise
            reason = " ".join(str(error).split())[:300]
            log.warning("sampler.unusable", sampler=self.sampler.name, reason=reason)
            self.sampler, self._fallback = self._fallback, None
            self.sampler.update_weights()
            self.sampler.wake()

    def decoding(self, work: Callable[[], ResultT]) -> ResultT:
        """Return what `work` returns, run without gradient and with the weights prepared for sampling."""
        with torch.inference_mode(), self._arithmetic(), self._laid_out():
            return work()

    def _bounded(self, prompt: list[int]) -> list[int]:
        """Return the last `max_prompt` ids of a question: its end is where the answer begins."""
        return prompt[-self.game.max_prompt :]

    # --- update ---------------------------------------------------------------------------------------------------

    def completion_logps(self, groups: Sequence[TrainingGroup]) -> Tensor:
        """Return, with gradient, the log-probability of every completion token [tokens].

        The common prefix is computed once for all groups, each question once for its group; tokens that predict
        nothing are not computed. Where memory asks, activations are computed again in the backward pass.
        """
        return self._logps(self.prefix, groups)

    def reference_logps(self, groups: Sequence[TrainingGroup]) -> Tensor:
        """Return the same of the model as it was before any update, without gradient."""
        with torch.no_grad(), self._as_reference():
            return self._logps(self.prefix, groups)

    def _logps(self, prefix: list[int], groups: Sequence[TrainingGroup]) -> Tensor:
        if not any(any(group.completions) for group in groups):
            return torch.zeros(0, device=self.device, requires_grad=True)
        packed = pack(prefix, [self._bounded(group.prompt) for group in groups], groups, self.device)
        recompute = self._recomputes_logits(len(packed.targets))
        with self._arithmetic():
            ids, positions = (torch.tensor(each, device=self.device) for each in (packed.ids, packed.positions))
            hidden = self.forward(ids, positions, packed.plan)
            return token_logps(hidden, packed, self.logits, self.game.temperature, recompute=recompute)

    def cost(self, group: TrainingGroup) -> int:
        """Return the tokens that a group costs in an update (the common prefix, paid once a micro-batch, apart)."""
        return len(self._bounded(group.prompt)) + sum(map(len, group.completions))

    def weights_changed(self) -> None:
        """Forget whatever was derived from the weights; the sampler takes the new ones."""
        self.sampler.update_weights()
