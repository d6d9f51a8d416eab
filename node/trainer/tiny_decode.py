"""Sampling from the built-in model: prompts once per group, finished rows leave, log-probabilities on the way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec
import torch
from torch import Tensor
from torch.nn import functional

from node.trainer.engine import Cancelled
from node.trainer.tiny_model import FusedLayer, TinyModel, mlp, project

LEAVE_SHARE = 4
"""Finished rows leave once they are a fourth of the batch: copying the caches costs about one step."""


class Decoding(msgspec.Struct, frozen=True, kw_only=True):
    """How to decode: ids that end a completion, the pad id, the longest completion in tokens, the temperature."""

    ends: frozenset[int]
    pad: int
    longest: int
    temperature: float
    greedy: bool = False


class Watch(Protocol):
    """Called once per token step with the steps done; may raise `Cancelled`."""

    def __call__(self, steps: int) -> None:
        """Take notice."""


def watch_for(cancelled: Callable[[], bool]) -> Watch:
    """Return a watch that raises `Cancelled` once `cancelled()`."""

    def watch(steps: int) -> None:
        if cancelled():
            raise Cancelled(f"after {steps} tokens")

    return watch


class Cache:
    """Keys and values of every block for all rows, shape [rows, key heads, length, head], and who may be seen."""

    def __init__(self, keys: list[Tensor], values: list[Tensor], seen: Tensor) -> None:
        self.keys, self.values, self.seen = keys, values, seen

    def keep(self, rows: Tensor) -> None:
        """Drop all rows but these."""
        self.keys = [each[rows] for each in self.keys]
        self.values = [each[rows] for each in self.values]
        self.seen = self.seen[rows]


class TinyDecoder:
    """Decodes with fused copies of the weights; make a new one when the weights change."""

    @torch.no_grad()
    def __init__(self, model: TinyModel) -> None:
        self._model = model
        self._shape = model.shape
        self._layers = model.fused()
        self._device = model.model.embed_tokens.weight.device

    @torch.no_grad()
    def sample(
        self, prompts: Sequence[Sequence[int]], group: int, how: Decoding, rng: torch.Generator, watch: Watch
    ) -> tuple[list[list[int]], list[list[float]]]:
        """Return `group` completions per prompt, in order: their ids (end token included) and log-probabilities."""
        logits, cache, lengths = self._prefill(prompts, group, how)
        rows, start = len(lengths), cache.seen.shape[1] - how.longest
        tokens = torch.full((rows, how.longest), how.pad, device=self._device)
        logps = torch.zeros(rows, how.longest, device=self._device)
        ends = torch.tensor(sorted(how.ends), device=self._device)
        alive = torch.arange(rows, device=self._device)
        ended = torch.zeros(rows, dtype=torch.bool, device=self._device)
        for step in range(how.longest):
            watch(step)
            chosen, chosen_logps = choose(logits, how, rng)
            tokens[alive, step], logps[alive, step] = chosen, chosen_logps
            ended = ended | torch.isin(chosen, ends)
            finished = int(ended.sum())
            if finished == len(alive) or step == how.longest - 1:
                break
            if finished * LEAVE_SHARE >= len(alive):
                left = (~ended).nonzero().squeeze(1)
                alive, chosen, lengths, ended = alive[left], chosen[left], lengths[left], ended[left]
                cache.keep(left)
            cache.seen[:, start + step] = True
            logits = self._step(chosen, lengths, cache, start + step)
            lengths = lengths + 1
        return _cut(tokens.tolist(), logps.tolist(), how)

    def _prefill(self, prompts: Sequence[Sequence[int]], group: int, how: Decoding) -> tuple[Tensor, Cache, Tensor]:
        """Run every prompt once; return logits, caches and lengths with each row repeated `group` times."""
        longest = max(map(len, prompts))
        ids = torch.full((len(prompts), longest), how.pad)
        real = torch.zeros(ids.shape, dtype=torch.bool)
        for row, prompt in enumerate(prompts):
            ids[row, longest - len(prompt) :] = torch.tensor(prompt)
            real[row, longest - len(prompt) :] = True
        ids, real = ids.to(self._device), real.to(self._device)
        positions = (real.long().cumsum(1) - 1).clamp(min=0)
        causal = torch.ones(longest, longest, dtype=torch.bool, device=self._device).tril()
        # A padded position sees itself: a row without anything to see would be NaN.
        itself = torch.eye(longest, dtype=torch.bool, device=self._device)
        hidden, keys, values = self._run(ids, positions, ((causal & real[:, None]) | itself)[:, None])
        logits = self._model.logits(self._model.model.norm(hidden[:, -1]))
        seen = functional.pad(real.repeat_interleave(group, 0), (0, how.longest))
        room = (0, 0, 0, how.longest)
        cache = Cache(
            [functional.pad(each.repeat_interleave(group, 0), room) for each in keys],
            [functional.pad(each.repeat_interleave(group, 0), room) for each in values],
            seen,
        )
        return logits.repeat_interleave(group, 0), cache, real.sum(1).repeat_interleave(group)

    def _run(self, ids: Tensor, positions: Tensor, mask: Tensor) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Return hidden states, keys and values of whole sequences."""
        rotation = self._model.rotation(positions)
        x = self._model.model.embed_tokens(ids)
        keys, values = [], []
        for layer in self._layers:
            query, key, value = project(self._shape, layer, x, rotation)
            mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, enable_gqa=True)
            x = x + functional.linear(mixed.transpose(1, 2).reshape(x.shape), layer.out)
            x = x + mlp(layer, x, self._shape.rms_norm_eps)
            keys.append(key)
            values.append(value)
        return x, keys, values

    def _step(self, ids: Tensor, positions: Tensor, cache: Cache, at: int) -> Tensor:
        """Put one token per row at column `at` of the cache and return the logits after it."""
        rotation = self._model.rotation(positions[:, None])
        bias = torch.zeros(len(ids), 1, 1, at + 1, device=self._device)
        bias.masked_fill_(~cache.seen[:, None, None, : at + 1], float("-inf"))
        x = self._model.model.embed_tokens(ids)[:, None]
        for layer, keys, values in zip(self._layers, cache.keys, cache.values, strict=True):
            x = x + self._attend(layer, x, rotation, keys, values, bias)
            x = x + mlp(layer, x, self._shape.rms_norm_eps)
        return self._model.logits(self._model.model.norm(x[:, 0]))

    def _attend(
        self, layer: FusedLayer, x: Tensor, rotation: Tensor, keys: Tensor, values: Tensor, bias: Tensor
    ) -> Tensor:
        """Attend from one token per row; queries that share a key head are one small matrix, no key is repeated."""
        shape, end = self._shape, bias.shape[-1]
        query, key, value = project(shape, layer, x, rotation)
        keys[:, :, end - 1 : end] = key
        values[:, :, end - 1 : end] = value
        query = query.reshape(len(x), shape.num_key_value_heads, -1, shape.head_dim)
        scores = query @ keys[:, :, :end].transpose(2, 3)
        weights = (scores * shape.head_dim**-0.5 + bias).softmax(-1)
        mixed = weights @ values[:, :, :end]
        return functional.linear(mixed.reshape(len(x), 1, shape.hidden_size), layer.out)


def choose(logits: Tensor, how: Decoding, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return one id per row of logits and its log-probability under softmax(logits / temperature).

    The largest of p / Exp(1) is distributed as p: the Gumbel-max trick without the two logarithms.
    """
    probabilities = (logits.float() / how.temperature).softmax(-1)
    if how.greedy:
        chosen = probabilities.argmax(-1)
    else:
        noise = torch.empty_like(probabilities).exponential_(generator=rng)
        chosen = (probabilities / noise).argmax(-1)
    return chosen, probabilities.gather(1, chosen[:, None]).squeeze(1).log()


def _cut(tokens: list[list[int]], logps: list[list[float]], how: Decoding) -> tuple[list[list[int]], list[list[float]]]:
    """Cut each row after its end token; rows that stayed in the batch after it hold more."""
    ends = [next((at + 1 for at, token in enumerate(row) if token in how.ends), how.longest) for row in tokens]
    return (
        [row[:end] for row, end in zip(tokens, ends, strict=True)],
        [row[:end] for row, end in zip(logps, ends, strict=True)],
    )
