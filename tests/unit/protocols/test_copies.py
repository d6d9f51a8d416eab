"""The copy test: copies are found, independent samples never accused."""

from __future__ import annotations

import math
import random
from collections import Counter
from itertools import combinations, product

import pytest

from node.validation.copy_detector import NGRAMS_COMPARED, PEERS_KEPT, STAGES_KEPT, CopyDetector
from protocols.copies import COMPARED, Written, chance, is_copy, ngrams, surprise, written
from protocols.likeness import are_alike, sketch
from protocols.wire import PROTOCOL_VERSION, Announcement

Body = list[list[str]]


def sums(rng: random.Random, groups: int, certainty: float) -> Body:
    """Return what a model that is sure to this degree of one answer writes to the same questions as every other."""
    return [
        [f"{at}+9={at + 9}\n#### {at + (9 if rng.random() < certainty else rng.randrange(9))}" for _ in range(8)]
        for at in range(groups)
    ]


def pairs(one: Body, other: Body) -> list[tuple[Written, Written]]:
    return [(written(a), written(b)) for a, b in zip(one, other, strict=True)]


@pytest.mark.parametrize("certainty", [0.0, 0.3, 0.6, 0.9, 0.99, 1.0])
def test_independent_samples_are_never_accused(certainty: float) -> None:
    """However sure the model, two peers that both sampled from it are no copies."""
    bodies = [sums(random.Random(number), 6, certainty) for number in range(16)]

    assert not any(is_copy(pairs(one, other)) for one, other in combinations(bodies, 2))


def test_a_verbatim_copy_is_found() -> None:
    """Also one with other spacing and case; two questions of long, different answers are enough."""
    body = sums(random.Random(1), 12, 0.6)
    spaced = [[text.replace("=", " =  ").replace("####", "#### ") for text in group] for group in body]
    varied = sums(random.Random(2), 2, 0.0)

    assert is_copy(pairs(body, body))
    assert is_copy(pairs(body, spaced))
    assert is_copy(pairs(varied, varied))


def test_a_copy_in_another_order_is_found_where_answers_differ_enough() -> None:
    """Without order there is less evidence: twelve questions of many different answers are enough."""
    body = sums(random.Random(1), 12, 0.1)
    rng = random.Random(3)
    shuffled = [rng.sample(group, len(group)) for group in body]

    assert is_copy(pairs(body, shuffled))


def test_a_copy_with_a_quarter_rewritten_is_found() -> None:
    """Exchanging some completions does not hide the others, where these differ enough."""
    body = sums(random.Random(1), 12, 0.2)
    rewritten = [[*group[:6], f"no {at}", f"none {at}"] for at, group in enumerate(body)]

    assert is_copy(pairs(body, rewritten))


def test_where_everybody_says_the_same_there_is_no_verdict() -> None:
    """A deterministic task proves nothing, however many questions agree."""
    body = [["#### 7"] * 8 for _ in range(500)]

    assert not is_copy(pairs(body, body))
    assert not is_copy([])


def test_few_short_answers_give_no_verdict() -> None:
    """Six of eight the same and the rest alike on one question is chance."""
    body = [["#### 7"] * 6 + ["#### 8", "#### 9"]]

    assert not is_copy(pairs(body, body))


@pytest.mark.parametrize("weights", [(1.0,), (0.5, 0.5), (0.7, 0.2, 0.1)])
@pytest.mark.parametrize("ordered", [True, False])
def test_surprise_bounds_the_chance_of_as_good_a_match(weights: tuple[float, ...], ordered: bool) -> None:
    """For every outcome of four draws and every target: matches at least that surprising are at most that likely."""
    for target in product(range(len(weights)), repeat=4):
        outcomes: list[tuple[float, float]] = []
        for drawn in product(range(len(weights)), repeat=4):
            same = [one for one, other in zip(target, drawn, strict=True) if one == other]
            shared = Counter(same) if ordered else Counter(target) & Counter(drawn)
            likely = math.prod(weights[each] for each in drawn)
            outcomes.append((surprise(tuple(shared.values()), 4, ordered=ordered), likely))
        for nats, _ in outcomes:
            assert sum(likely for other, likely in outcomes if other >= nats - 1e-9) <= math.exp(-nats) + 1e-9


def test_fishers_bound_is_that_of_one_match_for_one_and_weaker_for_more() -> None:
    """Evidence of several questions is not simply added up."""
    assert chance([3.0]) == pytest.approx(math.exp(-3.0))
    assert chance([3.0, 0.0]) == pytest.approx(math.exp(-3.0) * 4)
    assert chance([0.0, 0.0]) == pytest.approx(1.0)
    assert chance([400.0, 400.0]) == 0.0


def test_texts_are_alike_but_for_little_things() -> None:
    """One changed word in a long text leaves it the same, another number in a short one does not."""
    text = (
        "first we add the apples of both children and then we take away those that were eaten on the way home, "
        "what is left goes into bags of equal size, and their number is the answer to the question that was asked today"
    )

    assert are_alike(sketch(text), sketch(text.replace("today", "now")))
    assert not are_alike(sketch("3+4=7\n#### 7"), sketch("3+4=8\n#### 8"))


def said(stage: int) -> Announcement:
    return Announcement(PROTOCOL_VERSION, bytes(32), 1, stage, bytes(32), bytes(32), 1, b"")


def test_bodies_are_compared_within_a_stage_and_not_with_the_own_one() -> None:
    """The same answers in another stage are other answers; a body that comes twice is no copy of itself."""
    comparison = CopyDetector()
    body = dict(enumerate(map(written, sums(random.Random(1), 12, 0.6))))

    assert comparison.alike("0xa", said(0), body) == ()
    assert comparison.alike("0xa", said(0), body) == ()
    assert comparison.alike("0xb", said(1), body) == ()
    assert comparison.alike("0xc", said(0), body) == ("0xa",)


def test_what_is_remembered_is_bounded() -> None:
    """Stages are forgotten, and a stage keeps so many bodies."""
    comparison = CopyDetector()
    one = {0: written(["a", "b"])}
    for stage in range(STAGES_KEPT + 3):
        for peer in range(3):
            comparison.alike(str(peer), said(stage), one)
    for peer in range(PEERS_KEPT + 9):
        comparison.alike(str(peer), said(99), one)

    assert len(comparison._stages) == STAGES_KEPT
    assert max(map(len, comparison._stages.values())) == PEERS_KEPT


def test_a_text_is_known_by_its_beginning_and_a_short_one_by_one_hash() -> None:
    """Digits without end take no more room than a page; a copy in long texts is still found on few questions."""
    rng = random.Random(4)
    long = [["".join(rng.choices("0123456789", k=2_000)) for _ in range(8)] for _ in range(4)]

    assert ngrams({0: written(long[0])}) <= 8 * COMPARED
    assert ngrams({0: written(["3+4=7\n#### 7"] * 8)}) == 8
    assert is_copy(pairs(long, long))


def digits(seed: int, length: int) -> dict[int, Written]:
    """Return a body of four questions, each answered with eight texts of as many random digits."""
    rng = random.Random(seed)
    return {at: written("".join(rng.choices("0123456789", k=length)) for _ in range(8)) for at in range(4)}


def test_who_writes_most_is_forgotten_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stage keeps so many n-grams; rich bodies can't push out one that says less, whoever came first."""
    most = 4 * NGRAMS_COMPARED
    monkeypatch.setattr("node.validation.copy_detector.NGRAMS_KEPT", most)
    comparison, modest = CopyDetector(), digits(0, 60)
    comparison.alike("modest", said(0), modest)
    for peer in range(9):
        comparison.alike(str(peer), said(0), digits(peer % 3, 16_384 // 32))
    (kept,) = comparison._stages.values()

    assert most / 2 < sum(each.ngrams for each in kept.values()) <= most
    assert "modest" in comparison.alike("copier", said(0), modest)
