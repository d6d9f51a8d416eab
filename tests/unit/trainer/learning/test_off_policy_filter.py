"""Which groups of other peers are believed."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from node.trainer.engines.builtin.builtin_engine import BuiltinEngine
from node.trainer.engines.builtin.builtin_model import BuiltinModel, BuiltinShape
from node.trainer.engines.builtin.builtin_tokenizer import train_tokenizer
from node.trainer.engines.engine import TrainingGroup
from node.trainer.learning.grpo import MicroBatchLimit
from node.trainer.learning.off_policy_filter import (
    MAX_EXCESS_NLL,
    filter_mask,
    mean_nll,
    passes_filter,
    rejected_bodies,
)
from protocols.manifest import GameSpec


def group(behaviour: Sequence[list[float]], *, external: bool = True, tokens: int = 2) -> TrainingGroup:
    """Completions of which every second is better than the mean."""
    values = [1.0 if place % 2 == 0 else -1.0 for place in range(len(behaviour))]
    return TrainingGroup([1], [[2] * tokens for _ in behaviour], list(behaviour), values, external)


def test_a_group_that_claims_too_low_a_probability_is_rejected() -> None:
    """Seven nats over a completion may be chance; more of them, in any completion of a group, are a lie."""
    logps = [[-1.0, -1.0]] * 2
    assert passes_filter(group([[-1.0, -1.0], [-4.4, -4.4]]), logps, 0.5)
    assert not passes_filter(group([[-1.0, -1.0], [-4.6, -4.6]]), logps, 0.5)


def test_better_answers_that_this_model_would_hardly_write_are_rejected() -> None:
    """Most of them: one in two may be new. What is worse than the mean may be as unlikely as it likes."""
    unlikely, likely = [-3.0, -3.0], [-0.5, -0.5]
    for unknown in (group([[]] * 4), group([[-0.1, -0.1]] * 4)):
        assert not passes_filter(unknown, [unlikely, likely, unlikely, likely], 0.5)
        assert passes_filter(unknown, [unlikely, likely, likely, likely], 0.5)
        assert passes_filter(unknown, [likely, unlikely, likely, unlikely], 0.5)
        assert passes_filter(unknown, [unlikely, likely, unlikely, likely], 3.0 - MAX_EXCESS_NLL)


def test_the_own_nll_is_the_mean_of_own_tokens() -> None:
    """Whether they teach anything or not; without own ones it is a nat per token."""
    assert mean_nll([group([[-0.5, -1.5], [-1.0, -4.0]], external=False)]) == 1.75
    assert mean_nll([]) == 1.0


def test_a_model_that_is_not_finite_is_no_reason_against_others() -> None:
    """The update itself notices that, and goes back."""
    assert passes_filter(group([[-1.0, -1.0]] * 2), [[math.nan] * 2] * 2, 0.5)


def judged(body: bytes, prompt: int, *, external: bool = True) -> TrainingGroup:
    return TrainingGroup([prompt], [[2]], [[]], [0.0], external, body)


def test_a_body_is_rejected_where_a_quarter_of_its_judged_groups_are() -> None:
    """One in five is rejected alone, one of four, or all, take the body with them; own groups say nothing."""
    kept = [judged(b"a", each) for each in range(4)] + [judged(b"b", each) for each in range(3)]
    kept.append(judged(b"", 1, external=False))
    rejected = [judged(b"a", 4), judged(b"b", 3), judged(b"c", 1)]

    assert rejected_bodies(kept, rejected) == (b"b", b"c")
    assert rejected_bodies(kept, []) == rejected_bodies([], []) == ()


def test_a_group_that_was_judged_in_two_updates_counts_once() -> None:
    """Few foreign groups are dealt again and again; where the model has changed its mind it is against them."""
    again = judged(b"a", 1)
    assert rejected_bodies([judged(b"a", each) for each in range(2, 6)], [again, again]) == ()
    assert rejected_bodies([again], [again]) == (b"a",)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1 << 30))
def test_what_was_sampled_as_said_is_no_lie_however_the_policies_differ(seed: int) -> None:
    """Of a thousand completions of six tokens, from any policy over four, hardly one is taken for a lie."""
    rng = torch.Generator().manual_seed(seed)
    pi, mu = (torch.log_softmax(3 * torch.randn(4, generator=rng), 0) for _ in range(2))
    tokens = torch.multinomial(mu.exp(), 6000, replacement=True, generator=rng).view(1000, 6)
    believed = [
        passes_filter(group([said], tokens=6), [here], 99.0)
        for here, said in zip(pi[tokens].tolist(), mu[tokens].tolist(), strict=True)
    ]
    assert sum(believed) > 990


@pytest.fixture(scope="module")
def engine() -> BuiltinEngine:
    model = BuiltinModel(BuiltinShape())
    model.initialise(0)
    return BuiltinEngine(model, train_tokenizer(), GameSpec(), "cpu")


@pytest.mark.parametrize("limit", [MicroBatchLimit(64, 8192), MicroBatchLimit(3, 8192), MicroBatchLimit(64, 1)])
def test_no_verdict_depends_on_how_much_goes_through_the_model_at_once(
    engine: BuiltinEngine, limit: MicroBatchLimit
) -> None:
    """Own groups, one that is honest and one whose second completion is claimed too unlikely, in any batches."""
    completions = [[5, 6, 7], [8, 9], [10, 11, 12, 13], [14]]
    true = [[-6.2] * len(each) for each in completions]
    lie = [
        [-20.0] * len(each) if place == 1 else row
        for place, (each, row) in enumerate(zip(completions, true, strict=True))
    ]
    values = [1.0, -1.0, 1.0, -1.0]
    own = TrainingGroup([1, 2], completions, true, values, external=False)
    groups = [TrainingGroup([1, 2], completions, each, values, external=True) for each in (true, lie, true)]
    watched: list[int] = []

    assert filter_mask(engine, [own, *groups, own], 6.2, limit, watched.append) == [
        True,
        True,
        False,
        True,
        True,
    ]
    assert watched[0] == 0
    assert watched == sorted(watched)
