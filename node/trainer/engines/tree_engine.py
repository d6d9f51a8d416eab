"""What all engines with a token tree share: sampling and log-probabilities, prompts computed once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import structlog
import torch
from torch import Tensor

from node.trainer.engines.decode import DecodeSampling, Row, decode_batch, draws_for
from node.trainer.engines.engine import Sample, TrainingGroup
from node.trainer.engines.packing import pack, token_logps
from node.trainer.engines.tree_attention import AttentionPlan, Pair, PrefixPlan
from node.trainer.memory.oom import is_memory
from protocols.manifest import GameSpec

log = structlog.get_logger()


def _as_it_is(tensor: Tensor) -> Tensor:
    return tensor


class TreeEngine(ABC):
    """Part of the `Engine` protocol; what depends on the model is left to subclasses.

    Log-probabilities are those of the game's temperature, in sampling and in the update alike.
    """

    name = "hf"
    half_precision = False
    _without_gradient: Callable[[], AbstractContextManager[Any]] = torch.inference_mode

    def __init__(self, game: GameSpec, prefix: list[int], stops: Sequence[int], device: torch.device) -> None:
        if game.temperature <= 0:
            raise ValueError("game.temperature: must be above 0 (greedy sampling is for evaluation)")
        self.device = device
        self.max_num_seqs = 1
        self.room = 1
        self._game, self._prefix = game, prefix
        self._stops = torch.tensor(stops, device=device)
        self._pairs: dict[int, Pair] | None = None
        self._agree: Callable[[Tensor], Tensor] = _as_it_is

    # --- the model's ----------------------------------------------------------------------------------------------

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, without special tokens added."""

    @abstractmethod
    def _texts(self, rows: list[list[int]]) -> list[str]:
        """Return the texts of completions' ids."""

    @abstractmethod
    def _forward(self, ids: Tensor, positions: Tensor, plan: AttentionPlan) -> Tensor:
        """Return the last hidden states [N, width] of a flat row."""

    @abstractmethod
    def _logits(self, hidden: Tensor) -> Tensor:
        """Return logits [n, vocabulary] of hidden states [n, width]."""

    @abstractmethod
    def _as_before(self) -> AbstractContextManager[None]:
        """Have the model compute as it did before any update. Raises RuntimeError where that is not kept."""

    def _arithmetic(self) -> AbstractContextManager[Any]:
        """Return the context of all computation."""
        return nullcontext()

    def _sparing(self, tokens: int, targets: int) -> bool:
        """Prepare for an update's part of so many tokens; return whether its logits are computed again instead of
        being kept."""
        return False

    # --- sampling -------------------------------------------------------------------------------------------------

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
        """Sample `group` completions for each question text; `progress` hears of groups done and wanted.

        Raises `Cancelled` between two tokens, `NotFinite`.
        """
        prompts = [self._bounded(self.encode(text)) for text in questions]
        draws = draws_for(len(prompts), group, self._game.max_completion, rng)
        made: list[list[Sample]] = []
        with self._without_gradient(), self._arithmetic(), self._laid_out():
            how = self._sampler(cancelled, greedy)
            while len(made) < len(prompts):
                start, stop = len(made), len(made) + max(1, self.max_num_seqs // group)

                def ended(rows: int, before: int = start) -> None:
                    if progress:
                        progress(before + rows // group, len(prompts))

                try:
                    rows = decode_batch(how, prompts[start:stop], draws[start:stop], ended)
                except (MemoryError, RuntimeError) as error:
                    alone = self._agree is _as_it_is  # of several ranks one must not begin again by itself
                    if not is_memory(error) or stop == start + 1 or not alone:
                        raise
                    self.max_num_seqs //= 2
                    log.warning("memory.short", sampling=self.max_num_seqs)
                else:
                    made += [self._samples(some) for some in rows]
        return made

    def _sampler(self, cancelled: Callable[[], bool], greedy: bool) -> DecodeSampling:
        game, prefix = self._game, self._prefix
        if self._pairs is None:
            plan = PrefixPlan(len(prefix), self.device)
            if prefix:
                ids = torch.tensor(prefix, device=self.device)
                self._forward(ids, torch.arange(len(prefix), device=self.device), plan)
            self._pairs = plan.pairs
        limits = game.max_completion, game.temperature, greedy, cancelled
        return DecodeSampling(self._forward, self._logits, self._pairs, len(prefix), self._stops, *limits, self._agree)

    def _laid_out(self) -> AbstractContextManager[None]:
        """Prepare the weights for sampling."""
        return nullcontext()

    def _samples(self, rows: list[Row]) -> list[Sample]:
        texts = self._texts([row.tokens for row in rows])
        return [Sample(row.tokens, row.logps, text, row.finished) for row, text in zip(rows, texts, strict=True)]

    def _bounded(self, prompt: list[int]) -> list[int]:
        """Return the last `max_prompt` ids of a question: its end is where the answer begins."""
        return prompt[-self._game.max_prompt :]

    # --- update ---------------------------------------------------------------------------------------------------

    def completion_logps(self, groups: Sequence[TrainingGroup]) -> Tensor:
        """Return, with gradient, the log-probability of every completion token [tokens].

        The common prefix is computed once for all groups, each question once for its group; tokens that predict
        nothing are not computed. Where memory asks, activations are computed again in the backward pass.
        """
        return self._logps(self._prefix, groups)

    def reference_logps(self, groups: Sequence[TrainingGroup]) -> Tensor:
        """Return the same of the model as it was before any update, without gradient."""
        with torch.no_grad(), self._as_before():
            return self._logps(self._prefix, groups)

    def _logps(self, prefix: list[int], groups: Sequence[TrainingGroup]) -> Tensor:
        if not any(any(group.completions) for group in groups):
            return torch.zeros(0, device=self.device, requires_grad=True)
        packed = pack(prefix, [self._bounded(group.prompt) for group in groups], groups, self.device)
        sparing = self._sparing(len(packed.ids), len(packed.targets))
        with self._arithmetic():
            ids, positions = (torch.tensor(each, device=self.device) for each in (packed.ids, packed.positions))
            hidden = self._forward(ids, positions, packed.plan)
            return token_logps(hidden, packed, self._logits, self._game.temperature, sparing)

    def cost(self, group: TrainingGroup) -> int:
        """Return the tokens that a group costs in an update (the common prefix, paid once a micro-batch, apart)."""
        return len(self._bounded(group.prompt)) + sum(map(len, group.completions))

    def weights_changed(self) -> None:
        """Forget the prefix's keys and values."""
        self._pairs = None

    @abstractmethod
    def parameters(self) -> Iterator[torch.nn.Parameter]:
        """Return the parameters that are trained."""
