"""The update: against hand-computed values, finite differences, and itself under other splits."""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from node.config import TrainerSettings
from node.trainer.engines.builtin.builtin_engine import BuiltinEngine
from node.trainer.engines.engine import Cancelled, TrainingGroup
from node.trainer.learning import grpo
from node.trainer.learning.loss_scale import LossScale
from protocols.manifest import GameSpec

NO_SCALE = LossScale(needed=False)
PLAIN = grpo.Objective()
WIDE = grpo.MicroBatchLimit(1 << 20, 1 << 20)


def group(advantages: list[float], behaviour: list[list[float]], *, external: bool = False) -> TrainingGroup:
    """Completions as long as their log-probabilities."""
    return TrainingGroup([1], [[2] * len(row) for row in behaviour], behaviour, advantages, external)


def loss(logps: list[float], groups: list[TrainingGroup], objective: grpo.Objective, **extra: Any) -> float:
    normaliser = grpo.normaliser_of(groups, objective)
    return grpo.loss_of(torch.tensor(logps, dtype=torch.float64), groups, objective, normaliser, **extra).item()


# --- hand-computed ----------------------------------------------------------------------------------------------------


def test_advantages_are_centred_and_scaled_by_the_sample_deviation() -> None:
    """Rewards 1, 0, 0, 0: mean 1/4, sample deviation 1/2."""
    assert grpo.advantages([1, 0, 0, 0]) == pytest.approx([0.75 / 0.5001, *[-0.25 / 0.5001] * 3])


def test_dr_grpo_leaves_advantages_unscaled() -> None:
    """Rewards 1, 0, 0, 0: only the mean is taken off."""
    assert grpo.advantages([1, 0, 0, 0], scaled=False) == [0.75, -0.25, -0.25, -0.25]


def test_loss_is_the_mean_over_all_tokens() -> None:
    """On policy every ratio is 1: three tokens with advantage 1, one with -2, mean -(3 - 2) / 4."""
    groups = [group([1.0, -2.0], [[-1.0, -1.0, -1.0], [-1.0]])]
    assert loss([-1.0] * 4, groups, PLAIN) == pytest.approx(-0.25)


def test_dr_grpo_divides_by_a_constant() -> None:
    """Two completions of at most 10 tokens count 20, however long they are."""
    groups = [group([1.0, -2.0], [[-1.0, -1.0, -1.0], [-1.0]])]
    assert loss([-1.0] * 4, groups, grpo.Objective(longest=10)) == pytest.approx(-1 / 20)


@pytest.mark.parametrize(
    ("ratio", "advantage", "expected"),
    [(1.5, 1.0, -1.28), (1.5, -1.0, 1.5), (0.5, 1.0, -0.5), (0.5, -1.0, 0.8), (1.1, 1.0, -1.1)],
)
def test_ratios_are_clipped_on_the_side_that_would_gain(ratio: float, advantage: float, expected: float) -> None:
    """The pessimistic of the clipped and the plain term counts (clip 0.2 below, 0.28 above)."""
    assert loss([-1.0 + math.log(ratio)], [group([advantage], [[-1.0]])], PLAIN) == pytest.approx(expected)


def test_clips_are_chosen() -> None:
    """Other bounds than the defaults hold."""
    narrow = grpo.Objective(epsilon=0.1, epsilon_high=0.1)
    assert loss([-1.0 + math.log(1.5)], [group([1.0], [[-1.0]])], narrow) == pytest.approx(-1.1)


def test_external_tokens_are_weighted_by_the_truncated_ratio() -> None:
    """pi / mu of 1.5 counts 1.5, of 3 counts 2 (the cap); unknown mu counts 1; the ratio itself is 1."""
    logps = [-1.0, -1.0, -1.0]
    known = group([1.0, 1.0], [[-1.0 - math.log(1.5)], [-1.0 - math.log(3.0)]], external=True)
    unknown = TrainingGroup([1], [[2]], [[]], [1.0], external=True)
    assert loss(logps, [known, unknown], PLAIN) == pytest.approx(-(1.5 + 2 + 1) / 3)


def test_external_tokens_may_be_taken_as_on_policy() -> None:
    """As in SAPO: what mu was does not matter."""
    known = group([1.0, 1.0], [[-3.0], [-0.1]], external=True)
    assert loss([-1.0, -1.0], [known], grpo.Objective(weighted=False)) == pytest.approx(-1.0)


def test_divergence_is_the_k3_estimate() -> None:
    """With log(ref / pi) = log 2: 2 - log 2 - 1, weighted by beta."""
    groups = [group([0.0], [[-1.0]])]
    reference = torch.tensor([-1.0 + math.log(2)], dtype=torch.float64)
    found = loss([-1.0], groups, grpo.Objective(beta=0.5), reference=reference)
    assert found == pytest.approx(0.5 * (1 - math.log(2)))


@given(st.lists(st.floats(-5, -0.01), min_size=1, max_size=8), st.lists(st.floats(-5, -0.01), min_size=8, max_size=8))
def test_divergence_is_never_negative(logps: list[float], reference: list[float]) -> None:
    """k3 is 0 where both agree and positive elsewhere."""
    ours, theirs = torch.tensor(logps), torch.tensor(reference[: len(logps)])
    assert (grpo.divergence(ours, theirs) >= 0).all()
    assert (grpo.divergence(ours, ours) == 0).all()


def test_settings_make_the_objective() -> None:
    """Every setting of the loss arrives."""
    chosen = TrainerSettings(
        loss="dr-grpo", epsilon=0.1, epsilon_high=0.3, beta=0.01, external="on-policy", importance_cap=3.0,
        mask_truncated=True, max_grad_norm=0.5,
    )  # fmt: skip
    assert grpo.objective_of(chosen, GameSpec(max_completion=7)) == grpo.Objective(
        epsilon=0.1, epsilon_high=0.3, beta=0.01, cap=3.0, max_norm=0.5, longest=7, weighted=False, mask_truncated=True
    )
    assert grpo.objective_of(TrainerSettings(), GameSpec()) == PLAIN


# --- gradient ---------------------------------------------------------------------------------------------------------


def frozen_loss(
    logps: torch.Tensor, at: torch.Tensor, groups: list[TrainingGroup], reference: torch.Tensor
) -> torch.Tensor:
    """The objective as the module's docstring writes it, with everything "without gradient" held at `at`."""
    total = torch.zeros((), dtype=torch.float64)
    rows = [(g, a, b) for g in groups for row, a in zip(g.behaviour, g.advantages, strict=True) for b in row]
    for place, (g, advantage, mu) in enumerate(rows):
        pi, now = logps[place], at[place]
        old = now if g.external else torch.tensor(mu, dtype=torch.float64)
        weight = torch.exp(now - mu).clamp(max=2.0) if g.external else 1.0
        ratio = torch.exp(pi - old)
        total = total - weight * torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.28) * advantage)
        ahead = reference[place] - pi
        total = total + 0.1 * (torch.exp(ahead) - ahead - 1)
    return total / len(rows)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(-3.0, -0.1), min_size=6, max_size=6), st.integers(0, 1000))
def test_gradient_is_that_of_finite_differences(logps: list[float], seed: int) -> None:
    """Central differences of the written-out objective agree with autograd, clipped or not, own or external."""
    rng = torch.Generator().manual_seed(seed)
    mus = (torch.tensor(logps) + 0.5 * torch.randn(6, generator=rng)).clamp(max=-0.01).tolist()
    groups = [
        group([1.0, -0.7], [mus[:2], mus[2:3]]),
        group([0.9, -1.3], [mus[3:4], mus[4:]], external=True),
    ]
    at = torch.tensor(logps, dtype=torch.float64)
    reference = at + 0.3 * torch.randn(6, generator=rng, dtype=torch.float64)
    point = at.clone().requires_grad_()
    grpo.loss_of(point, groups, grpo.Objective(beta=0.1), 6.0, reference).backward()  # type: ignore[no-untyped-call]
    step = 1e-6
    for place in range(6):
        shift = torch.zeros(6, dtype=torch.float64)
        shift[place] = step
        ahead, behind = (frozen_loss(at + s, at, groups, reference) for s in (shift, -shift))
        numeric = ((ahead - behind) / (2 * step)).item()
        assert point.grad is not None
        assert point.grad[place].item() == pytest.approx(numeric, abs=1e-5)


# --- micro-batches ----------------------------------------------------------------------------------------------------


def ragged(count: int, seed: int) -> list[TrainingGroup]:
    rng = torch.Generator().manual_seed(seed)
    made = []
    for number in range(count):
        lengths = torch.randint(1, 9, (4,), generator=rng).tolist()
        rows = [torch.randint(3, 500, (length,), generator=rng).tolist() for length in lengths]
        prompt = torch.randint(3, 500, (int(torch.randint(1, 12, (), generator=rng)),), generator=rng).tolist()
        known = [(-torch.rand(len(row), generator=rng) * 8).tolist() for row in rows]
        made.append(TrainingGroup(prompt, rows, known, [1.0, -0.5, 0.5, -1.0], external=number % 2 == 1))
    return made


@given(st.integers(1, 12), st.integers(1, 60), st.integers(0, 50))
def test_micro_batches_hold_every_completion_once_within_the_limit(completions: int, tokens: int, seed: int) -> None:
    """None is larger than the limit, padding counted, unless it is a single completion that is larger itself."""
    groups = ragged(5, seed)

    def cost(each: TrainingGroup) -> int:
        return len(each.prompt) + sum(map(len, each.completions))

    parts = grpo.micro_batches(groups, grpo.MicroBatchLimit(completions, tokens), cost)
    assert sorted(row for part in parts for g in part for row in g.completions) == sorted(
        row for g in groups for row in g.completions
    )
    for part in parts:
        assert sum(len(g.completions) for g in part) <= completions
        padded = len(part) * max(map(cost, part))
        assert padded <= tokens or (len(part) == 1 and len(part[0].completions) == 1)


def updated(
    engine: BuiltinEngine, limit: grpo.MicroBatchLimit, groups: list[TrainingGroup]
) -> tuple[grpo.UpdateOutcome, list[torch.Tensor]]:
    before = [each.detach().clone() for each in engine.parameters()]
    optimizer = torch.optim.SGD(engine.parameters(), lr=1.0)
    outcome = grpo.update(
        engine, optimizer, groups, grpo.Objective(beta=0.05), limit=limit, scale=NO_SCALE, watch=lambda done: None
    )
    after = [each.detach().clone() for each in engine.parameters()]
    with torch.no_grad():
        for each, old in zip(engine.parameters(), before, strict=True):
            each.copy_(old)
    engine.weights_changed()
    return outcome, [new - old for new, old in zip(after, before, strict=True)]


@pytest.mark.parametrize(
    "limit",
    [
        grpo.MicroBatchLimit(1, 1 << 20),
        grpo.MicroBatchLimit(3, 1 << 20),
        grpo.MicroBatchLimit(256, 25),
        grpo.MicroBatchLimit(7, 40),
    ],
)
def test_the_split_changes_no_result(builtin: BuiltinEngine, limit: grpo.MicroBatchLimit) -> None:
    """Loss, norm and step are the same in one part or in many."""
    groups = ragged(5, 7)
    whole, step = updated(builtin, WIDE, groups)
    split, other = updated(builtin, limit, groups)
    assert (split.loss, split.norm, split.tokens) == pytest.approx((whole.loss, whole.norm, whole.tokens), rel=1e-4)
    for ours, theirs in zip(other, step, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-3)


def test_completion_log_probabilities_are_the_plain_ones(builtin: BuiltinEngine) -> None:
    """Prompts computed once give what one padded row per completion gives, gradients included."""
    groups = ragged(3, 11)
    packed = builtin.completion_logps(groups)
    plain = torch.cat(
        [
            builtin.completion_logps([alone])
            for g in groups
            for alone in grpo.cut(g, grpo.MicroBatchLimit(1, 1), builtin.cost)
        ]
    )
    torch.testing.assert_close(packed, plain, atol=1e-4, rtol=0)
    ours, theirs = (torch.autograd.grad(each.sum(), list(builtin.parameters())) for each in (packed, plain))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=2e-3, rtol=1e-3)


# --- what may go wrong ------------------------------------------------------------------------------------------------


def spoil(engine: BuiltinEngine) -> Callable[[], None]:
    parameter = next(engine.parameters())
    good = parameter.detach().clone()
    with torch.no_grad():
        parameter.fill_(math.nan)

    def mend() -> None:
        with torch.no_grad():
            parameter.copy_(good)

    return mend


def test_a_loss_that_is_not_finite_changes_nothing(builtin: BuiltinEngine) -> None:
    """The step is skipped and no gradient is left behind."""
    mend = spoil(builtin)
    others = [deepcopy(each.data) for each in list(builtin.parameters())[1:]]
    optimizer = torch.optim.SGD(builtin.parameters(), lr=1.0)
    outcome = grpo.update(builtin, optimizer, ragged(2, 3), PLAIN, limit=WIDE, scale=NO_SCALE, watch=lambda done: None)
    mend()
    assert not outcome.stepped
    assert all(torch.equal(a, b) for a, b in zip(list(builtin.parameters())[1:], others, strict=True))
    assert all(each.grad is None for each in builtin.parameters())


def test_a_cancelled_update_leaves_no_gradient(builtin: BuiltinEngine) -> None:
    """Given up between two micro-batches, the weights are as before."""

    def watch(done: int) -> None:
        if done:
            raise Cancelled

    before = [each.detach().clone() for each in builtin.parameters()]
    optimizer = torch.optim.SGD(builtin.parameters(), lr=1.0)
    with pytest.raises(Cancelled):
        grpo.update(
            builtin, optimizer, ragged(3, 3), PLAIN, limit=grpo.MicroBatchLimit(2, 1 << 20), scale=NO_SCALE, watch=watch
        )
    assert all(torch.equal(a, b) for a, b in zip(builtin.parameters(), before, strict=True))
    assert all(each.grad is None for each in builtin.parameters())


def test_the_loss_scale_changes_no_step(builtin: BuiltinEngine) -> None:
    """What is multiplied in is divided out again before the gradient is clipped."""
    groups = ragged(3, 5)
    _, plain = updated(builtin, WIDE, groups)
    before = [each.detach().clone() for each in builtin.parameters()]
    optimizer = torch.optim.SGD(builtin.parameters(), lr=1.0)
    grpo.update(
        builtin,
        optimizer,
        groups,
        grpo.Objective(beta=0.05),
        limit=WIDE,
        scale=LossScale(needed=True),
        watch=lambda done: None,
    )
    for each, old, step in zip(builtin.parameters(), before, plain, strict=True):
        torch.testing.assert_close(each.detach() - old, step, atol=1e-5, rtol=1e-3)
        each.data.copy_(old)
    builtin.weights_changed()


def test_the_loss_scale_halves_on_overflow_and_recovers() -> None:
    """An overflow halves it; after 200 good steps it doubles, up to where it began; 1 is never gone below."""
    scale = LossScale(needed=True)
    assert scale.overflowed()
    assert scale.value == 32_768
    for _ in range(400):
        scale.stepped()
    assert scale.value == 65_536
    while scale.value > 1:
        scale.overflowed()
    assert not scale.overflowed()
    assert not LossScale(needed=False).overflowed()
