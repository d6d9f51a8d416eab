"""From bodies of a debate to what the update sees, and what the built-in model is warmed up on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import islice
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.data.arithmetic import CalculationStep, Draws, draw_problem
from node.localnet.demo_plan import DemoOptions, demo_plan
from node.machine import commands as c
from node.trainer.engines.builtin.builtin_tokenizer import BuiltinTokenizer, train_tokenizer
from node.trainer.engines.builtin.corpus import MIXED
from node.trainer.engines.builtin.debate_corpus import (
    CRITIQUES,
    RESOLUTIONS,
    critique,
    debate_records,
    peer_answers,
    review,
)
from node.trainer.engines.engine import Engine
from node.trainer.learning.grpo import Objective
from node.trainer.messages import Generate, Train
from node.trainer.service.jobs import job_for, quotes_that_fit
from node.trainer.worker.rollouts import decode_bodies, fitted_prompt, has_its_quotes, training_groups
from node.validation.body_check import quotes_problem, stage_context
from protocols.games import game_named, game_problems
from protocols.games.debate import ANSWER, COMPACT, CRITIQUE, RESOLVE, DebateWording, Quote, picked
from protocols.games.quoting import MAX_QUOTE_CHARS, drawn
from protocols.games.share import one_each
from protocols.grading import final_number
from protocols.identifiers import Digest, body_digest
from protocols.manifest import GameSpec, Manifest
from protocols.manifest_rules import parse_manifest
from protocols.wire import Group, Rollouts, decode_rollouts
from tests.support.debate_tables import SEED, Doubles, Memory, body_of, debate, groups_for
from tests.support.paths import ROOT

PEERS = tuple(f"0x{number:040x}" for number in range(1, 5))
MANIFEST = debate()
CONFIG = ROOT / "configs" / "swarms" / "debate.toml"


class Letters:
    """As much of an engine as reading bodies takes: a token for each character."""

    fingerprint = bytes(32)

    def encode(self, text: str) -> list[int]:
        return list(map(ord, text))

    def decode(self, tokens: Sequence[int]) -> str:
        return "".join(map(chr, tokens))

    def completion_ids(self, text: str, finished: bool) -> list[int]:
        return self.encode(text)


ENGINE = cast(Engine, Letters())


@pytest.fixture
def bodies() -> Memory:
    return Memory()


def put(bodies: Memory, peer: str, stage: int, texts: tuple[str, str], *quoted: Digest) -> Digest:
    groups = groups_for(MANIFEST, peer, stage, 2, lambda _, number: texts[number])
    body = body_of(groups, stage, quoted, SEED)
    bodies[body_digest(body)] = body
    return body_digest(body)


def read(bodies: Memory, digest: Digest) -> Rollouts:
    return decode_rollouts(bodies[digest], digest, 9999)


def test_the_trainer_gets_whatever_is_quoted(bodies: Memory) -> None:
    """Answers come along with the critiques that quote them, to quote and to train on; a missing one stops quoting."""
    answer = put(bodies, PEERS[0], 0, ("#### 1", "#### 2"))
    critic = put(bodies, PEERS[1], 1, ("Best answer: 1", "Best answer: 2"), answer)
    resolve = job_for(1, c.GenerateRollouts(5, 2, SEED, 2, (critic,)), bodies, 1 << 20)
    assert not isinstance(resolve, str)
    assert isinstance(resolve.frame, Generate)
    assert set(decode_bodies(resolve.frame.quoted_bodies)) == {answer, critic}

    train = job_for(2, c.TrainOnRollouts(5, 1, critic, (), 1, 9.0), bodies, 1 << 20)
    assert not isinstance(train, str)
    assert isinstance(train.frame, Train)
    assert set(decode_bodies(train.frame.quoted_bodies)) == {answer}

    del bodies[answer]
    assert isinstance(job_for(3, c.GenerateRollouts(5, 1, SEED, 2, (answer,)), bodies, 1 << 20), str)


@given(st.data(), st.lists(st.integers(0, 2000), min_size=2, max_size=10), st.integers(0, 30_000))
def test_what_does_not_fit_is_not_quoted_and_peers_accept_what_is(
    data: st.DataObject, sizes: list[int], room: int
) -> None:
    """However large bodies strangers make: what is quoted fits with all that it leads to, and some of each stage are
    left, in their order; or nothing is quoted, and the reason is known."""
    bodies, answers, critics = Memory(), [], []
    for number, size in enumerate(sizes):
        if number % 2 == 0:
            answers.append(put(bodies, PEERS[0], 0, (f"{number}", "x" * size)))
        else:
            chosen = drawn(SEED, 0, data.draw(st.sets(st.sampled_from(answers), min_size=1, max_size=5)), 5)
            critics.append(put(bodies, PEERS[1], 1, (f"{number}", "x" * size), *chosen))
    wanted = drawn(SEED, 0, answers, 5) + drawn(SEED, 1, critics, 5)

    quoted_bodies = quotes_that_fit(wanted, bodies, room)

    if isinstance(quoted_bodies, str):
        assert room < sum(map(len, bodies.values()))
        assert quoted_bodies == "the bodies that are to be quoted are too large"
        return
    assert sum(map(len, quoted_bodies.values())) <= room
    quoted = tuple(digest for digest in wanted if digest in quoted_bodies)
    body = decode_rollouts(made := body_of((), 2, quoted, SEED), body_digest(made), len(made))
    assert has_its_quotes(body, decode_bodies(list(quoted_bodies.values())))
    assert quotes_problem(MANIFEST, game_named("debate"), body, decode_bodies(list(quoted_bodies.values()))) == ""
    assert quoted == wanted or room < sum(map(len, bodies.values()))


def test_quotes_of_every_stage_are_left_where_few_fit(bodies: Memory) -> None:
    """The answers that come first do not use up the room of the critiques."""
    answers = [put(bodies, peer, 0, (peer, "x" * 1000)) for peer in PEERS]
    critics = [put(bodies, peer, 1, (peer, "x" * 1000), answers[0]) for peer in PEERS]
    wanted = drawn(SEED, 0, answers, 5) + drawn(SEED, 1, critics, 5)
    quoted_bodies = quotes_that_fit(wanted, bodies, 4 * len(bodies[critics[0]]))
    assert not isinstance(quoted_bodies, str)
    assert {read(bodies, digest).stage for digest in quoted_bodies} == {0, 1}


def test_a_critique_is_trained_on_with_its_own_prompt(bodies: Memory) -> None:
    """The prompt that the update sees is the one that the critic had; without the quotes there is nothing to train."""
    answer = put(bodies, PEERS[0], 0, ("#### 1", "#### 2"))
    critic = read(bodies, put(bodies, PEERS[1], 1, ("Best answer: 1", "no"), answer))
    quoted_bodies = decode_bodies(list(bodies.values()))
    groups = training_groups(
        critic, Doubles(), MANIFEST.game, ENGINE, Objective(), external=True, quoted_bodies=quoted_bodies
    )
    context = stage_context(Doubles(), critic, critic.groups[0], quoted_bodies)
    prompt = game_named("debate").prompt(MANIFEST.game, context, MAX_QUOTE_CHARS)
    assert ENGINE.decode(groups[0].prompt)[-40:] == prompt[-40:]
    assert "Answer 2:" in prompt
    assert not has_its_quotes(critic, {})
    assert training_groups(critic, Doubles(), MANIFEST.game, ENGINE, Objective(), external=True) == []


@pytest.mark.parametrize("room", [900, 700, 560])
def test_prompts_fit_by_shorter_quotes(bodies: Memory, room: int) -> None:
    """A budget of tokens is met by cutting quotes, all that fits of them, and the question stays whole."""
    answers = drawn(SEED, 0, [put(bodies, peer, 0, ("x" * 300 + peer, "y" * 300)) for peer in PEERS], 5)
    critic = read(bodies, put(bodies, PEERS[0], 1, ("Best answer: 1", "no"), *answers))
    context = stage_context(Doubles(), critic, critic.groups[0], decode_bodies(list(bodies.values())))
    spec = debate(answer_chars=300).game
    text = fitted_prompt(_with_room(spec, room), context, ENGINE)
    assert context.question in text
    assert room - 2 * 5 < len(text) <= room


def _with_room(spec: GameSpec, room: int) -> GameSpec:
    return GameSpec(name=spec.name, parameters=spec.parameters, max_prompt=room)


def test_of_a_sender_each_question_counts_once() -> None:
    """A question that chance assigned twice is trained on once, and zero-advantage groups have no advantage."""
    manifest = Manifest(name="t", game=GameSpec(num_generations=2, num_prompts=3))
    first, second = groups_for(manifest, PEERS[0], 0, 2, lambda q, n: f"#### {2 * q + n}")
    again = Group(2, first.question, first.completions)
    assert one_each([first, second, again]) == [first, second]

    def trained(external: bool) -> int:
        rollouts = Rollouts(1, 0, bytes(32), (first, second, again))
        return len(training_groups(rollouts, Doubles(), manifest.game, ENGINE, Objective(), external=external))

    assert (trained(True), trained(False)) == (2, 3)


# --- the built-in model's corpus -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def records() -> list[tuple[str, str]]:
    return list(islice(debate_records("test"), 400))


@pytest.fixture(scope="module")
def tokenizer() -> BuiltinTokenizer:
    return train_tokenizer()


def test_the_corpus_fits_the_game_that_the_demo_plays(
    records: list[tuple[str, str]], tokenizer: BuiltinTokenizer
) -> None:
    """Prompts and replies of all stages are within the demo's lengths; the file that comes along has its wording."""
    plan, shipped = demo_plan(DemoOptions(game="debate")), parse_manifest(CONFIG.read_bytes())
    game = plan.manifest.game
    assert game_problems(plan.manifest) == []
    assert game.parameters == shipped.game.parameters == COMPACT
    assert max(len(tokenizer.encode(prompt)) for prompt, _ in records) <= min(game.max_prompt, shipped.game.max_prompt)
    assert max(len(tokenizer.encode(reply)) for _, reply in records) < game.max_completion


def test_all_stages_and_habits_are_in_the_corpus(records: list[tuple[str, str]]) -> None:
    """Nothing of the debate is new to the model when it begins to play."""
    words = DebateWording(**COMPACT)  # type: ignore[arg-type]
    played = Counter(("\n1 " in prompt) + ("@" in prompt) for prompt, _ in records)
    assert min(played[stage] for stage in (ANSWER, CRITIQUE, RESOLVE)) > 100
    assert sum(MIXED.values()) == sum(CRITIQUES.values()) == sum(RESOLUTIONS.values()) == 100
    formed = [picked(words, reply, 5) for prompt, reply in records if "\n1 " in prompt]
    assert 0 < sum(pick is not None for pick in formed) < len(formed)


def test_a_good_critique_picks_a_right_answer() -> None:
    """What the corpus calls good is what the game pays for."""
    words, draws = DebateWording(**COMPACT), Draws("critiques")  # type: ignore[arg-type]
    for _ in range(50):
        problem = draw_problem(draws)
        answers = peer_answers(problem, 50, draws, 4)
        pick = picked(words, critique(problem, answers, "good", draws), len(answers))
        right = [number for number, quote in enumerate(answers, 1) if final_number(quote.text, problem.answer)]
        assert pick in (right or [0])


def test_a_critic_reviews_answers_up_to_the_first_that_agrees() -> None:
    """Each is set beside the critic's own result; one without the mark has no result that counts."""
    steps = (CalculationStep(4, "+", 2), CalculationStep(4, "+", 6))
    answers = [Quote(b"a", "#### 9"), Quote(b"b", "4+6=10"), Quote(b"c", "4+6=10\n#### 10"), Quote(b"d", "#### 10")]

    assert review(steps, answers) == "4+2=6\n4+6=10\n#### 10\n1 9=10x\n2 -x\n3 10=10+@3"
    assert review(steps, answers[:2]) == "4+2=6\n4+6=10\n#### 10\n1 9=10x\n2 -x@0"
