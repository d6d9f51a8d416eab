"""The engine of the built-in model: `node.trainer.engines.engine.Engine` on `BuiltinModel`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path

import torch
from torch import Tensor, nn

from node.trainer.engines.builtin.builtin_model import BuiltinModel, read_shape
from node.trainer.engines.builtin.builtin_tokenizer import BuiltinTokenizer, load_tokenizer
from node.trainer.engines.tree_attention import AttentionPlan
from node.trainer.engines.tree_engine import TreeEngine
from protocols.manifest import GameSpec

MAX_NUM_SEQS, MICRO_BATCH_TOKENS = 512, 8192
"""Completions sampled, and tokens trained on, at the same time."""


class BuiltinEngine(TreeEngine):
    """The built-in model behind the `Engine` protocol."""

    def __init__(
        self,
        model: BuiltinModel,
        tokenizer: BuiltinTokenizer,
        game: GameSpec,
        device: str = "auto",
        *,
        keep_reference: bool = False,
    ) -> None:
        self._tokenizer = tokenizer
        self._end = tokenizer.token(game.stop)
        self._ends = frozenset({tokenizer.end, self._end})
        place = torch.device("cpu" if device == "auto" else device)
        super().__init__(game, tokenizer.encode(game.examples), sorted(self._ends), place)
        self._model = model.to(place)
        self._reference = deepcopy(self._model) if keep_reference else None
        self.sampler.max_num_seqs, self.micro_batch_tokens = MAX_NUM_SEQS, MICRO_BATCH_TOKENS
        self.fingerprint = tokenizer.fingerprint
        self.parameter_count = sum(each.numel() for each in model.parameters())
        context = model.shape.max_position_embeddings
        need = len(self.prefix) + game.max_prompt + game.max_completion
        if need > context:
            raise ValueError(
                f"the built-in model holds {context} tokens, prompt and completion of this game need {need}"
            )

    @classmethod
    def load(
        cls, directory: Path, game: GameSpec, device: str = "auto", *, keep_reference: bool = False
    ) -> BuiltinEngine:
        """Read a model made by `node.trainer.engines.builtin.sft_warmup`; `keep_reference` keeps a copy for
        `reference_logps`.

        Raises ValueError where the directory holds another one.
        """
        shape = read_shape(directory)
        if shape is None:
            raise ValueError(
                f"{directory} holds no built-in model; make one with python -m node.trainer.engines.builtin.sft_warmup"
            )
        model = BuiltinModel(shape)
        model.load(directory)
        return cls(model, load_tokenizer(directory), game, device, keep_reference=keep_reference)

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, without special tokens added."""
        return self._tokenizer.encode(text)

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of a completion's ids without its end token. Raises ValueError for an unknown id."""
        if not all(0 <= token < self._model.shape.vocab_size for token in tokens):
            raise ValueError(f"ids go from 0 to {self._model.shape.vocab_size - 1}")
        return self.texts([list(tokens)])[0]

    def completion_ids(self, text: str, finished: bool) -> list[int]:
        """Return the ids of a completion's text, the end token behind it where it finished by itself."""
        return self.encode(text) + [self._end] * finished

    def texts(self, rows: list[list[int]]) -> list[str]:
        """Return texts without the end token that closes them; one elsewhere, or any other special one, shows."""
        return self._tokenizer.decode([row[:-1] if row and row[-1] in self._ends else row for row in rows])

    def forward(self, ids: Tensor, positions: Tensor, plan: AttentionPlan) -> Tensor:
        """Return the last hidden states [N, width] of ids [N] at positions [N] that attend as `plan` says."""
        hidden: Tensor = self._model(ids, positions, plan)
        return hidden

    def logits(self, hidden: Tensor) -> Tensor:
        """Return logits [n, vocabulary] of hidden states [n, width]."""
        return self._model.logits(hidden)

    @contextmanager
    def _as_reference(self) -> Iterator[None]:
        if self._reference is None:
            raise RuntimeError("no reference model was kept: trainer.beta is 0")
        self._model, trained = self._reference, self._model
        try:
            yield
        finally:
            self._model = trained

    def parameters(self) -> Iterator[nn.Parameter]:
        """Return every parameter."""
        return self._model.parameters()

    def weights_changed(self) -> None:
        """Forget the fused copies of the weights and the prefix's keys and values."""
        super().weights_changed()
        self._model.forget()

    def save(self, directory: Path) -> None:
        """Write weights, tokenizer and config as a Hugging Face directory."""
        self._model.save(directory, self._tokenizer.end, self._tokenizer.pad)
        self._tokenizer.save(directory)

    def load_weights(self, directory: Path) -> None:
        """Read weights written by `save`."""
        self._model.load(directory)
        self.weights_changed()

    def train_mode(self, on: bool) -> None:
        """Switch the module's mode; the built-in model has no drop-out."""
        self._model.train(on)

    def use_float32(self) -> bool:
        """Return False: the built-in model computes in float32 already."""
        return False
