"""Attention over a tree of tokens: a prefix common to all, a question per group, completions behind each question.

Every token is computed once. The tokens of a forward pass lie in one flat row, [prefix, questions, completions], so
that the linear layers see no padding; attention pads them level by level and scores each level against the keys of
those above without copying keys to rows. The softmax runs over all levels together, so the result is exact.

Shapes: N tokens, H query heads, K key heads, R = H / K, d head width, P prefix tokens, Q questions, L tokens of the
longest question, G completions a question, T tokens of the longest completion.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol, TypeAlias

import torch
from torch import Tensor

Pair: TypeAlias = tuple[Tensor, Tensor]
"""Keys and values of one level in one layer."""


class AttentionPlan(Protocol):
    """How the tokens of one forward pass attend to each other and to what is cached."""

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        """Return the attention's output [N, H, d] for queries [N, H, d] and keys and values [N, K, d]."""


class Slots(NamedTuple):
    """Where the tokens of one level stand in its padded form [questions, rows a question, tokens a row]."""

    places: Tensor
    questions: int
    rows: int
    length: int

    def pad(self, flat: Tensor) -> Tensor:
        """Return [questions, rows, length, ...] with the n tokens of `flat` [n, ...] in place, zeros elsewhere."""
        padded = flat.new_zeros(self.questions * self.rows * self.length, *flat.shape[1:])
        shape = (self.questions, self.rows, self.length, *flat.shape[1:])
        return padded.index_copy(0, self.places, flat).view(shape)

    def take(self, padded: Tensor) -> Tensor:
        """Undo `pad`: return the n tokens of [questions, rows, length, ...]."""
        return padded.flatten(0, 2).index_select(0, self.places)


class Branch(NamedTuple):
    """Keys and values [K, Q, L, d] of the questions, and an additive mask [Q, L] that hides their padding (None: they
    have none)."""

    keys: Tensor
    values: Tensor
    mask: Tensor | None


def slots_of(lengths: list[list[int]], device: torch.device) -> Slots:
    """Return the slots of a level with `lengths[question][row]` tokens."""
    rows, length = max(map(len, lengths)), max(max(row, default=0) for row in lengths)
    starts = [(q * rows + r) * length for q, row in enumerate(lengths) for r in range(len(row))]
    counts = [count for row in lengths for count in row]
    index = [start + i for start, count in zip(starts, counts, strict=True) for i in range(count)]
    return Slots(torch.tensor(index, dtype=torch.long, device=device), len(lengths), rows, length)


def padding_mask(lengths: list[int], like: Tensor) -> Tensor | None:
    """Return the additive mask [Q, L] over questions of `lengths` tokens, in the dtype and on the device of `like`;
    None where all are equally long."""
    if min(lengths) == max(lengths):
        return None
    valid = torch.arange(max(lengths), device=like.device)[None] < torch.tensor(lengths, device=like.device)[:, None]
    return torch.zeros(valid.shape, device=like.device, dtype=like.dtype).masked_fill_(~valid, _hidden(like))


def causal_mask(length: int, like: Tensor) -> Tensor:
    """Return the additive mask [length, length] that hides later tokens."""
    later = torch.ones(length, length, dtype=torch.bool, device=like.device).triu(1)
    return torch.zeros(later.shape, device=like.device, dtype=like.dtype).masked_fill_(later, _hidden(like))


def keys_of(padded: Tensor) -> Tensor:
    """Return keys or values [K, Q, rows, length, d] from their padded tokens [Q, rows, length, K, d]."""
    return padded.permute(3, 0, 1, 2, 4).contiguous()


def attend_level(
    q: Tensor, slots: Slots, own: Pair, mask: Tensor | None, shared: Pair | None, branch: Branch | None, scale: float
) -> Tensor:
    """Return the output [n, H, d] of one level's tokens.

    `own` holds the level's keys and values [K, Q, rows, S, d] under the additive mask [length, S]; `shared` those of
    the prefix [K, P, d]; `branch` those of the questions.
    """
    heads = own[0].shape[0]
    padded = slots.pad(q)
    grouped = (*padded.shape[:3], heads, -1, padded.shape[-1])
    padded = padded.view(grouped).permute(3, 0, 1, 4, 2, 5).contiguous()
    padded = padded if scale == 1 else padded * scale
    out = _joint(padded, own, mask, shared, branch)
    return slots.take(out.permute(1, 2, 4, 0, 3, 5).flatten(3, 4))


def _joint(q: Tensor, own: Pair, mask: Tensor | None, shared: Pair | None, branch: Branch | None) -> Tensor:
    """Attend with queries [K, Q, G, R, T, d] to prefix, question and own keys under one softmax; same shape out."""
    heads, questions, rows, _, _, width = q.shape
    lead = q.shape[:-1]
    scores = []
    if shared is not None:
        scores.append((q.view(heads, -1, width) @ shared[0].transpose(1, 2)).view(*lead, -1))
    if branch is not None:
        score = (q.view(heads, questions, -1, width) @ branch.keys.transpose(2, 3)).view(*lead, -1)
        scores.append(score if branch.mask is None else score + branch.mask[:, None, None, None])
    score = (q.view(heads, questions, rows, -1, width) @ own[0].transpose(3, 4)).view(*lead, -1)
    scores.append(score if mask is None else score + mask)
    joined = torch.cat(scores, -1) if len(scores) > 1 else scores[0]
    weights = joined.softmax(-1, dtype=torch.float32).to(own[1].dtype)
    parts = list(torch.split(weights, [score.shape[-1] for score in scores], -1))
    out: Tensor = (parts.pop().reshape(heads, questions, rows, -1, own[0].shape[3]) @ own[1]).view(q.shape)
    if branch is not None:
        out = out + (parts.pop().reshape(heads, questions, -1, branch.keys.shape[2]) @ branch.values).view(q.shape)
    if shared is not None:
        out = out + (parts.pop().reshape(heads, -1, shared[0].shape[1]) @ shared[1]).view(q.shape)
    return out


def _hidden(like: Tensor) -> float:
    return torch.finfo(like.dtype).min


class PrefixPlan:
    """The prefix alone; `pairs[layer]` holds its keys and values [K, P, d] afterwards."""

    def __init__(self, length: int, device: torch.device) -> None:
        self._slots = slots_of([[length]], device)
        self.pairs: dict[int, Pair] = {}

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        """Attend causally and remember the layer's keys and values."""
        out, pair = prefix_level(q, k, v, self._slots, scale)
        self.pairs[layer] = pair
        return out


class QuestionsPlan:
    """Questions behind a cached prefix; `branches[layer]` holds their keys and values afterwards."""

    def __init__(self, lengths: list[int], prefix: dict[int, Pair], device: torch.device) -> None:
        self._lengths = lengths
        self._slots = slots_of([[length] for length in lengths], device)
        self._prefix = prefix
        self.branches: dict[int, Branch] = {}

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        """Attend to the prefix and causally inside each question; remember the layer's keys and values."""
        mask = padding_mask(self._lengths, q)
        out, branch = question_level(q, k, v, self._slots, self._prefix.get(layer), mask, scale)
        self.branches[layer] = branch
        return out


class UpdatePlan:
    """Prefix, questions and completions in one differentiable pass."""

    def __init__(self, prefix: int, questions: list[int], completions: list[list[int]], device: torch.device) -> None:
        self._counts = [prefix, sum(questions), sum(map(sum, completions))]
        self._lengths = questions
        self._prefix = slots_of([[prefix]], device)
        self._questions = slots_of([[length] for length in questions], device)
        self._completions = slots_of(completions, device)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        """Attend level by level; nothing is remembered, so that checkpointing may run it twice."""
        (q0, q1, q2), (k0, k1, k2), (v0, v1, v2) = (torch.split(states, self._counts) for states in (q, k, v))
        outs: list[Tensor] = []
        shared: Pair | None = None
        if self._counts[0]:
            out, shared = prefix_level(q0, k0, v0, self._prefix, scale)
            outs.append(out)
        out, branch = question_level(q1, k1, v1, self._questions, shared, padding_mask(self._lengths, q), scale)
        outs.append(out)
        if self._counts[2]:
            slots = self._completions
            own = keys_of(slots.pad(k2)), keys_of(slots.pad(v2))
            outs.append(attend_level(q2, slots, own, causal_mask(slots.length, q), shared, branch, scale))
        return torch.cat(outs)


class DecodePlan:
    """One token of each row that still runs, behind cached prefix, questions and the row's own earlier tokens.

    Keys and values stay in their places [K, Q, G, `limit`, d] whichever rows have ended.
    """

    def __init__(self, prefix: dict[int, Pair], branches: dict[int, Branch], group: int, limit: int) -> None:
        self._prefix = prefix
        self._branches = branches
        self._own = {layer: _room(branch, group, limit) for layer, branch in branches.items()}
        self._group = group
        self._slots = Slots(torch.empty(0), 0, 0, 0)
        self._step = -1

    @property
    def questions(self) -> int:
        """Return how many questions are held."""
        return int(next(iter(self._branches.values())).keys.shape[1])

    def advance(self, running: Tensor) -> None:
        """Begin the next token of the rows `running` (numbers question * G + completion)."""
        self._slots = Slots(running, self.questions, self._group, 1)
        self._step += 1

    def keep(self, questions: Tensor) -> None:
        """Forget all questions but these; the rows left are numbered anew, in order."""
        for layer, branch in self._branches.items():
            keys, values = (states.index_select(1, questions) for states in branch[:2])
            mask = None if branch.mask is None else branch.mask.index_select(0, questions)
            self._branches[layer] = Branch(keys, values, mask)
            k, v = self._own[layer]
            self._own[layer] = k.index_select(1, questions), v.index_select(1, questions)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        """Store the new keys and values, then attend to everything before."""
        own = self._own[layer]
        for room, new in zip(own, (k, v), strict=True):
            room.flatten(1, 2)[:, self._slots.places, self._step] = new.transpose(0, 1)
        known = own[0][..., : self._step + 1, :], own[1][..., : self._step + 1, :]
        return attend_level(q, self._slots, known, None, self._prefix.get(layer), self._branches[layer], scale)


def prefix_level(q: Tensor, k: Tensor, v: Tensor, slots: Slots, scale: float) -> tuple[Tensor, Pair]:
    """Return the prefix's output [P, H, d], and its keys and values [K, P, d]."""
    own = keys_of(slots.pad(k)), keys_of(slots.pad(v))
    out = attend_level(q, slots, own, causal_mask(slots.length, q), None, None, scale)
    return out, (own[0][:, 0, 0], own[1][:, 0, 0])


def question_level(
    q: Tensor, k: Tensor, v: Tensor, slots: Slots, shared: Pair | None, mask: Tensor | None, scale: float
) -> tuple[Tensor, Branch]:
    """Return the questions' output [n, H, d], and their keys and values for the level below."""
    own = keys_of(slots.pad(k)), keys_of(slots.pad(v))
    out = attend_level(q, slots, own, causal_mask(slots.length, q), shared, None, scale)
    return out, Branch(own[0][:, :, 0], own[1][:, :, 0], mask)


def _room(branch: Branch, group: int, limit: int) -> Pair:
    heads, questions, _, width = branch.keys.shape
    shape = (heads, questions, group, limit, width)
    return branch.keys.new_zeros(shape), branch.keys.new_zeros(shape)
