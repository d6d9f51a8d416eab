"""The engine of the built-in model: `node.trainer.engine.Engine` on `TinyModel`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from node.trainer.engine import Sample, TrainingGroup
from node.trainer.tiny_decode import Decoding, TinyDecoder, watch_for
from node.trainer.tiny_model import TinyModel, read_shape
from node.trainer.tiny_tokenizer import TinyTokenizer, load_tokenizer
from protocols.manifest import GameSpec

ROWS = 512
"""Completions that are sampled at the same time."""

PADDING = -1
PROMPT = 0
"""Segments of a packed row: padding, the prompt; completions count from 1."""


class TinyEngine:
    """Sampling and log-probabilities of the built-in model."""

    def __init__(self, model: TinyModel, tokenizer: TinyTokenizer, game: GameSpec, device: str = "auto") -> None:
        self._game = game
        self._tokenizer = tokenizer
        self.device = torch.device("cpu" if device == "auto" else device)
        self._model = model.to(self.device)
        self._decoder: TinyDecoder | None = None
        self._prefix = tokenizer.encode(game.examples)
        self._end = tokenizer.token(game.stop)
        self._ends = frozenset({tokenizer.end, self._end})
        self.fingerprint = tokenizer.fingerprint
        self.parameter_count = sum(each.numel() for each in model.parameters())
        room = model.shape.max_position_embeddings
        need = len(self._prefix) + game.max_prompt + game.max_completion
        if need > room:
            raise ValueError(f"the built-in model holds {room} tokens, this game needs {need}: prompt and completion")

    @classmethod
    def load(cls, directory: Path, game: GameSpec, device: str = "auto") -> TinyEngine:
        """Read a model made by `node.trainer.warmstart`. Raises ValueError where the directory holds another one."""
        shape = read_shape(directory)
        if shape is None:
            raise ValueError(f"{directory} holds no built-in model; make one with python -m node.trainer.warmstart")
        model = TinyModel(shape)
        model.load(directory)
        return cls(model, load_tokenizer(directory), game, device)

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, without special tokens added."""
        return self._tokenizer.encode(text)

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of a completion's ids without its end token. Raises ValueError for an unknown id."""
        if not all(0 <= token < self._model.shape.vocab_size for token in tokens):
            raise ValueError(f"ids go from 0 to {self._model.shape.vocab_size - 1}")
        return self._texts([list(tokens)])[0]

    def completion_ids(self, text: str, finished: bool) -> list[int]:
        """Return the ids of a completion's text, the end token behind it where it finished by itself."""
        return self.encode(text) + [self._end] * finished

    def _texts(self, rows: list[list[int]]) -> list[str]:
        """Return texts without the end token that closes them; one elsewhere, or any other special one, shows."""
        return self._tokenizer.decode([row[:-1] if row and row[-1] in self._ends else row for row in rows])

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
        """Sample `group` completions for each question text. Raises `Cancelled` between two tokens."""
        decoder = self._decoder = self._decoder or TinyDecoder(self._model)
        prompts = [self._prompt(self.encode(question)) for question in questions]
        how = Decoding(
            ends=self._ends, pad=self._tokenizer.pad, longest=self._game.max_completion,
            temperature=self._game.temperature, greedy=greedy,
        )  # fmt: skip
        at_once = max(1, ROWS // group)
        samples: list[Sample] = []
        for first in range(0, len(prompts), at_once):
            tokens, logps = decoder.sample(prompts[first : first + at_once], group, how, rng, watch_for(cancelled))
            samples += self._samples(tokens, logps)
            if progress:
                progress(len(samples) // group, len(prompts))
        return [samples[first : first + group] for first in range(0, len(samples), group)]

    def _samples(self, tokens: list[list[int]], logps: list[list[float]]) -> list[Sample]:
        texts = self._texts(tokens)
        return [
            Sample(tokens=ids, logps=values, text=text, finished=ids[-1] in self._ends)
            for ids, values, text in zip(tokens, logps, texts, strict=True)
        ]

    def _prompt(self, question: list[int]) -> list[int]:
        """Return prefix and question; of a question that is too long the end counts."""
        return self._prefix + question[-self._game.max_prompt :]

    def completion_logps(self, groups: Sequence[TrainingGroup]) -> Tensor:
        """Return the log-probability of every completion token, with gradient: shape [tokens].

        A row holds one group, its prompt once and its completions behind it; each sees the prompt and itself.
        """
        rows = [self._pack(group) for group in groups]
        ids = pad_sequence([row[0] for row in rows], batch_first=True, padding_value=self._tokenizer.pad)
        positions = pad_sequence([row[1] for row in rows], batch_first=True)
        segments = pad_sequence([row[2] for row in rows], batch_first=True, padding_value=PADDING)
        hidden = self._model(ids, positions, block_mask(segments))
        row_numbers = torch.cat([torch.full_like(row[3], number) for number, row in enumerate(rows)])
        before = torch.cat([row[3] for row in rows])
        targets = torch.cat([row[4] for row in rows])
        logits = self._model.logits(hidden[row_numbers, before]).float() / self._game.temperature
        return logits.gather(1, targets[:, None]).squeeze(1) - logits.logsumexp(-1)

    def _pack(self, group: TrainingGroup) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Return ids, positions and segments of a row; then where each target is predicted, and the targets."""
        prompt = self._prompt(group.prompt)
        ids, positions, segments = list(prompt), list(range(len(prompt))), [PROMPT] * len(prompt)
        before: list[int] = []
        for segment, completion in enumerate(group.completions, start=1):
            before += [len(prompt) - 1, *range(len(ids), len(ids) + len(completion) - 1)]
            ids += completion
            positions += range(len(prompt), len(prompt) + len(completion))
            segments += [segment] * len(completion)
        rows = (ids, positions, segments, before, ids[len(prompt) :])
        row_ids, row_positions, row_segments, row_before, targets = (
            torch.tensor(row, dtype=torch.long, device=self.device) for row in rows
        )
        return row_ids, row_positions, row_segments, row_before, targets

    def cost(self, group: TrainingGroup) -> int:
        """Return the length of the group's packed row."""
        return len(self._prefix) + len(group.prompt) + sum(map(len, group.completions))

    def parameters(self) -> Iterator[nn.Parameter]:
        """Return every parameter."""
        return self._model.parameters()

    def weights_changed(self) -> None:
        """Forget the decoder's fused copies."""
        self._decoder = None

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


def block_mask(segments: Tensor) -> Tensor:
    """Return who sees whom, [rows, 1, length, length], from segments [rows, length]: what lies before, if it is of
    the same segment or of the prompt."""
    length = segments.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=segments.device).tril()
    same = segments[:, :, None] == segments[:, None, :]
    return ((same | (segments == PROMPT)[:, None, :]) & causal)[:, None]
