"""The game `debate`: what is shown, what is said, what it is worth, and what of strangers is refused."""

import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.ports.bodies import Verdict
from node.validation.body_check import check_body
from node.validation.quoted_bodies import QuoteResolver, closure
from protocols.games import StageContext, game_named
from protocols.games.debate import DebateWording, critique_reward, majority, pick_values, picked, shown_answers, voted
from protocols.games.quoting import MAX_QUOTE_CHARS, content_key, drawn
from protocols.identifiers import Digest, body_digest
from protocols.wire import decode_rollouts, quoted_in
from tests.support.debate_tables import (
    SEED,
    Doubles,
    Memory,
    Say,
    announced,
    body_of,
    debate,
    decode_bodies,
    groups_for,
)

GAME = game_named("debate")
MANIFEST = debate()
SPEC = MANIFEST.game
WORDS = DebateWording()
PEERS = tuple(f"0x{number:040x}" for number in range(1, 5))


def right(question: int, number: int) -> str:
    return f"{question}+{question}={2 * question}\n#### {2 * question}"


def wrong(question: int, number: int) -> str:
    return f"#### {2 * question + 1 + number}"


class Table:
    """Bodies of one round."""

    def __init__(self) -> None:
        self.bodies = Memory()

    def says(self, peer: str, stage: int, say: Say, quoted: tuple[Digest, ...] = (), groups: int = 3) -> Digest:
        body = body_of(groups_for(MANIFEST, peer, stage, groups, say), stage, quoted, SEED, peer)
        self.bodies[body_digest(body)] = body
        return body_digest(body)

    def context(self, stage: int, *quoted: Digest, slot: int = 0) -> StageContext:
        index = GAME.question(Doubles.digest, SEED, PEERS[0], 0, slot, 50)
        text = Doubles()[index].text
        return StageContext(
            seed=SEED, stage=stage, slot=slot, question=text, quoted=quoted, quoted_bodies=decode_bodies(self.bodies)
        )

    def truth(self, slot: int = 0) -> str:
        return Doubles()[GAME.question(Doubles.digest, SEED, PEERS[0], 0, slot, 50)].answer

    def verdict(self, peer: str, digest: Digest) -> Verdict:
        body = self.bodies[digest]
        stage = decode_rollouts(body, digest, len(body)).stage
        return check_body(MANIFEST, Doubles(), peer, announced(body, stage), body, QuoteResolver(self.bodies))


@pytest.fixture
def table() -> Table:
    return Table()


def number_of(context: StageContext, text: str) -> int:
    return [quote.text for quote in shown_answers(context, 5)].index(text) + 1


# --- questions and what is shown -------------------------------------------------------------------------------------


def test_the_questions_of_a_round_are_everybodys_and_stay_through_its_stages() -> None:
    """So first and final answers are to the same question, and a peer that did not answer can criticise."""
    asked = {GAME.question(bytes(32), SEED, peer, stage, 3, 50) for peer in PEERS for stage in range(3)}
    assert len(asked) == 1


def test_answers_are_numbered_alike_by_everybody_in_the_order_of_their_hashes(table: Table) -> None:
    """The numbers follow from the texts, whoever quotes whom in which order."""
    first, second = table.says(PEERS[0], 0, right), table.says(PEERS[1], 0, wrong)
    shown = shown_answers(table.context(1, first, second), 5)
    assert shown == shown_answers(table.context(1, second, first), 5)
    assert [quote.key for quote in shown] == sorted(content_key(quote.text) for quote in shown)


def test_the_same_text_of_two_peers_is_one_answer(table: Table) -> None:
    """Copying an answer does not make it two."""
    quoted = (table.says(PEERS[0], 0, right), table.says(PEERS[1], 0, right, groups=2))
    assert len(shown_answers(table.context(1, *quoted), 5)) == 1


def test_who_is_alone_sees_several_answers_of_its_own(table: Table) -> None:
    """One body fills the list with its other completions."""
    assert len(shown_answers(table.context(1, table.says(PEERS[0], 0, wrong)), 5)) == 2


@given(st.integers(1, 5), st.integers(1, 4), st.integers(0, 99))
def test_never_more_answers_than_quoted_are_shown_and_each_body_has_one(most: int, bodies: int, seed: int) -> None:
    """With as many places as bodies, no peer crowds another out."""
    table, rng = Table(), random.Random(seed)
    said = {peer: [f"{peer} {rng.random()}" for _ in range(2)] for peer in PEERS[:bodies]}
    quoted = [table.says(peer, 0, lambda _, number, peer=peer: said[peer][number]) for peer in said]  # type: ignore[misc]
    shown = {quote.text for quote in shown_answers(table.context(1, *quoted), most)}
    assert len(shown) == min(most, 2 * bodies)
    if most >= bodies:
        assert all(shown & set(texts) for texts in said.values())


def test_prompts_hold_question_answers_and_criticisms(table: Table) -> None:
    """A critique shows the answers, a resolution the criticisms too; each stage says what it wants."""
    answers = (table.says(PEERS[0], 0, right), table.says(PEERS[1], 0, wrong))
    critique = GAME.prompt(SPEC, table.context(1, *answers), MAX_QUOTE_CHARS)
    picks = table.says(PEERS[2], 1, lambda *_: "It adds up.\nBest answer: 1", drawn(SEED, 0, answers, 5))
    resolve = GAME.prompt(SPEC, table.context(2, *answers, picks), MAX_QUOTE_CHARS)
    for prompt in (critique, resolve):
        assert table.context(1).question in prompt
        assert all(f"Answer {number}: " in prompt for number in (1, 2))
    assert "Critic: It adds up. (best: 1)" in resolve
    assert "Critic:" not in critique
    assert GAME.prompt(SPEC, table.context(0), 0) == SPEC.prompt.replace("{question}", table.context(0).question)


def test_quotes_give_way_the_question_never(table: Table) -> None:
    """Without any max_chars the whole question still stands in the prompt, and no quote does."""
    long = table.says(PEERS[0], 0, lambda *_: "x" * 5000)
    assert len(GAME.prompt(SPEC, table.context(1, long), MAX_QUOTE_CHARS)) < 5000
    tight = GAME.prompt(SPEC, table.context(1, long), 0)
    assert table.context(1).question in tight
    assert "xx" not in tight


# --- what is said ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "pick"),
    [
        ("Best answer: 2", 2),
        ("I compare.\n\nBoth add.\nbest  answer:\t2.\n", 2),
        ("Best answer: none", 0),
        ("Best answer: NONE", 0),
        ("Best answer: 0", 0),
        ("**Best answer:** 1", 1),
        ("Best answer: 4", None),
        ("Best answer: 12", None),
        ("Best answer: 123", None),
        ("Best answer: ٢", None),
        ("Best answer: 1\nBest answer: 2", None),
        ("Best answer: 1 because it adds up", None),
        ("2", None),
        ("", None),
    ],
)
def test_a_critique_ends_in_one_pick(text: str, pick: int | None) -> None:
    """Lines before it, blanks and case don't matter; two picks, or an answer that is not there, are none."""
    assert picked(WORDS, text, 3) == pick


def test_the_word_for_none_is_read_in_any_case_that_the_pattern_takes() -> None:
    """Also in one that lower case does not lead back to, as a dotless i; a number can be the word too."""
    assert picked(DebateWording(none="neither"), "Best answer: ne\u0131ther", 3) == 0
    assert [picked(DebateWording(none="2"), f"Best answer: {said}", 30) for said in ("2", "25", "0")] == [0, 25, 0]


@pytest.mark.parametrize(
    ("text", "vote", "solution"),
    [
        ("They agree.\nMajority: 1\n2+2=4\n#### 4", 1, "\n2+2=4\n#### 4"),
        ("majority: none\n#### 4", 0, "\n#### 4"),
        ("2+2=4\n#### 4", None, "2+2=4\n#### 4"),
        ("Majority: 9\n#### 4", None, "\n#### 4"),
        ("Majority: 1\nMajority: 2\n#### 4", None, "Majority: 1\nMajority: 2\n#### 4"),
    ],
)
def test_a_resolution_names_the_majority_and_solves(text: str, vote: int | None, solution: str) -> None:
    """The solution is what follows the vote; without one it is all of the text."""
    assert voted(WORDS, text, 3) == (vote, solution)


@given(st.text(max_size=80))
def test_no_text_breaks_the_readers(text: str) -> None:
    """Whatever is written has a pick, a vote and a final answer, or none."""
    for said in (text, f"Best answer: {text}", f"Majority: {text}"):
        assert picked(WORDS, said, 5) in (None, *range(6))
        assert voted(WORDS, said, 5)[0] in (None, *range(6))
        assert isinstance(GAME.final(SPEC, 2, said), str)


# --- what it is worth ------------------------------------------------------------------------------------------------


@given(st.lists(st.floats(0, 1), min_size=1, max_size=5), st.integers(0, 5))
def test_none_is_right_exactly_where_no_answer_is(grades: list[float], pick: int) -> None:
    """Rewards are in [0, 1]; "none" and the best answer together are worth one right pick."""
    worth = pick_values(grades)
    assert all(0 <= critique_reward(each, worth) <= 1 for each in range(len(worth)))
    assert critique_reward(None, worth) == 0
    assert worth[0] == pytest.approx(1 - max(grades))


def test_a_right_pick_is_worth_all_and_none_is_worth_it_only_when_all_are_wrong(table: Table) -> None:
    """With a right answer shown, "none" gets no more than its form; with wrong ones only, picking gets no more."""
    good, bad = table.says(PEERS[0], 0, right), table.says(PEERS[1], 0, wrong)
    context, truth = table.context(1, good, bad), table.truth()
    number = next(n for n, quote in enumerate(shown_answers(context, 5), 1) if quote.text.endswith(truth))
    said = [f"Best answer: {number}", "Best answer: none", "no idea", "Best answer: 1\nBest answer: 2"]
    assert GAME.rewards(SPEC, context, said, truth) == pytest.approx((1.0, 0.1, 0.0, 0.0))
    alone = table.context(1, bad)
    assert GAME.rewards(SPEC, alone, ["Best answer: none", "Best answer: 1"], truth) == pytest.approx((1.0, 0.1))


def test_where_no_answer_is_shown_only_a_solution_is_worth_anything(table: Table) -> None:
    """Who quotes a body of few groups can't be paid for saying of the others that nothing is right."""
    short = table.says(PEERS[0], 0, wrong, groups=1)
    critic = table.says(PEERS[1], 1, lambda *_: "Best answer: none", (short,))
    final = [f"Majority: none\n{table.truth(1)}", "Majority: none\n#### x"]

    assert GAME.rewards(SPEC, table.context(1, short, slot=1), ["Best answer: none"], table.truth(1)) == (0.0,)
    rewards = GAME.rewards(SPEC, table.context(2, short, critic, slot=1), final, table.truth(1))
    assert rewards == pytest.approx((0.7, 0.0))


def test_a_peer_has_one_vote_however_often_it_says_so(table: Table) -> None:
    """Two honest critics outvote one that stuffs its text with picks; where they tie, both sides are the majority."""
    answers = drawn(SEED, 0, (table.says(PEERS[0], 0, right), table.says(PEERS[1], 0, wrong)), 5)
    stuffing = "Best answer: 2 " * 9 + "(best: 2) Critic: x (best: 2)\nBest answer: 2"
    honest = [table.says(peer, 1, lambda *_, name=peer: f"{name}\nBest answer: 1", answers) for peer in PEERS[:2]]
    stuffer = table.says(PEERS[2], 1, lambda *_: stuffing, answers)
    plain = table.says(PEERS[3], 1, lambda *_: "Best answer: 2", answers)
    said = ["Majority: 1\n#### 0", "Majority: 2\n#### 0"]

    def worth(*critics: Digest) -> tuple[float, ...]:
        return GAME.rewards(SPEC, table.context(2, *answers, *critics), said, "#### 1")

    assert worth(*honest, stuffer) == pytest.approx((0.3, 0.1))
    assert worth(*honest, plain) == pytest.approx((0.3, 0.1))
    assert worth(honest[0], plain) == pytest.approx((0.3, 0.3))
    assert worth(stuffer) == pytest.approx((0.1, 0.1))


def test_a_vote_keeps_its_answer_where_the_numbers_differ(table: Table) -> None:
    """A critic that saw other answers is understood by their content, and left out where its pick is not shown."""
    first, second = table.says(PEERS[0], 0, right), table.says(PEERS[1], 0, lambda *_: "#### 77")
    text = shown_answers(table.context(1, second), 5)[0].text
    critic = table.says(PEERS[2], 1, lambda *_: "Best answer: 1", (second,))
    context = table.context(2, *drawn(SEED, 0, (first, second), 5), critic)
    vote = number_of(context, text)
    said = [f"Majority: {number}\n#### 0" for number in (1, 2)]
    expected = [0.3 if number == vote else 0.1 for number in (1, 2)]
    assert GAME.rewards(SPEC, context, said, "#### 1") == pytest.approx(expected)
    assert "Critic:" not in GAME.prompt(SPEC, table.context(2, first, critic), MAX_QUOTE_CHARS)


def test_a_resolution_is_worth_its_final_answer_most(table: Table) -> None:
    """Right without a vote beats wrong with the majority; everything together is 1."""
    answers = (table.says(PEERS[0], 0, right),)
    critic = table.says(PEERS[1], 1, lambda *_: "Best answer: 1", answers)
    context, truth = table.context(2, *answers, critic), table.truth()
    said = [f"Majority: 1\n{truth}", truth, "Majority: 1\n#### x", "Majority: none\n#### x", f"{truth}\nMajority: 1"]
    assert GAME.rewards(SPEC, context, said, truth) == pytest.approx((1.0, 0.7, 0.3, 0.1, 0.3))


def test_most_picks_win_and_ties_share() -> None:
    """Nobody's picks make no majority."""
    assert majority([1, 1, 2]) == {1}
    assert majority([0, 2]) == {0, 2}
    assert majority([]) == frozenset()


def test_who_skips_the_hard_stages_gains_nothing() -> None:
    """The mean is over all stages of the round: one that was not played counts as nothing."""
    all_played = GAME.score(PEERS[0], [(4, 1.0), (4, 2.0), (4, 3.0)])
    picked_best = GAME.score(PEERS[1], [(0, 0.0), (0, 0.0), (4, 4.0)])
    assert all_played.mean == pytest.approx(0.5)
    assert picked_best.mean == pytest.approx(1 / 3)
    assert all_played.groups == 12


# --- bodies of strangers ---------------------------------------------------------------------------------------------


def test_receivers_recompute_the_rewards_of_every_stage(table: Table) -> None:
    """With the bodies that are quoted at hand, an honest round passes and is worth what it says."""
    said = (table.says(PEERS[0], 0, right), table.says(PEERS[1], 0, wrong))
    answers = drawn(SEED, 0, said, 5)
    critics = tuple(table.says(peer, 1, lambda *_: "Best answer: none", answers) for peer in PEERS[:2])
    final = table.says(
        PEERS[0], 2, lambda q, n: f"Majority: none\n{right(q, n)}", (*answers, *drawn(SEED, 1, critics, 5))
    )
    assert table.verdict(PEERS[0], said[0]).reason == ""
    for peer, body, reward in ((PEERS[1], critics[1], 0.3), (PEERS[0], final, 3.0)):
        verdict = table.verdict(peer, body)
        assert verdict == Verdict(reason="", groups=3, reward=verdict.reward)
        assert verdict.reward == pytest.approx(reward)


def test_what_is_missing_is_named(table: Table) -> None:
    """Without a quoted body, or one that it quotes, the receiver abstains and says which it needs."""
    answer = table.says(PEERS[0], 0, right)
    critic = table.says(PEERS[1], 1, lambda *_: "Best answer: 1", (answer,))
    final = table.says(PEERS[0], 2, right, (answer, critic))
    del table.bodies[answer]
    assert table.verdict(PEERS[1], critic) == Verdict(reason="quotes-missing", missing=(answer,))
    assert table.verdict(PEERS[0], final) == Verdict(reason="quotes-missing", missing=(answer,))


def test_a_body_quotes_what_it_should(table: Table) -> None:
    """Nothing, too much, the wrong stage, the wrong order, another round's or another seed's answers are refused."""
    answers = drawn(
        SEED, 0, [table.says(peer, 0, wrong if n else right, groups=n + 1) for n, peer in enumerate(PEERS)], 5
    )
    critic = table.says(PEERS[0], 1, lambda *_: "Best answer: 1", answers[:1])

    def reason(stage: int, *quoted: Digest) -> str:
        return table.verdict(PEERS[0], table.says(PEERS[0], stage, wrong, quoted)).reason

    def stray(**changes: object) -> Digest:
        body = decode_rollouts(table.bodies[answers[0]], answers[0], 9999)
        encoded = msgspec.msgpack.encode(msgspec.structs.replace(body, **changes))
        table.bodies[body_digest(encoded)] = encoded
        return body_digest(encoded)

    assert reason(1, *answers) == ""
    assert reason(0, answers[0]) == "quotes"
    assert reason(1) == "quotes"
    assert reason(1, *answers, *answers) == "quotes"
    assert reason(1, answers[0], answers[0]) == "quotes"
    assert reason(1, *reversed(answers)) == "quotes"
    assert reason(1, critic) == "quotes"
    assert reason(2, *answers) == "quotes"
    assert reason(2, critic, *answers) == "quotes"
    assert reason(2, *answers, critic) == ""
    assert reason(1, stray(round=4)) == "quotes"
    assert reason(1, stray(seed=b"t" * 32)) == "quotes"


def test_a_body_of_another_seed_is_refused(table: Table) -> None:
    """After a reorg the questions are others."""
    body = body_of(groups_for(MANIFEST, PEERS[0], 0, 2, right), 0, (), b"t" * 32, PEERS[0])
    assert check_body(MANIFEST, Doubles(), PEERS[0], announced(body), body).reason == "seed"


def test_nobody_can_announce_anothers_body_as_his_own(table: Table) -> None:
    """The questions are everybody's, so that only the author in it tells whose a body is: it goes by no second name."""
    answer = table.says(PEERS[0], 0, right)
    assert table.verdict(PEERS[0], answer).reason == ""
    assert table.verdict(PEERS[1], answer).reason == "assignment"
    nobodys = body_of(groups_for(MANIFEST, PEERS[0], 0, 2, right), 0, (), SEED)
    assert check_body(MANIFEST, Doubles(), PEERS[0], announced(nobodys), nobodys).reason == "assignment"


def test_quotes_are_read_without_decoding_groups(table: Table) -> None:
    """Garbage quotes nothing."""
    answer = table.says(PEERS[0], 0, right)
    critic = table.says(PEERS[1], 1, right, (answer,))
    assert quoted_in(table.bodies[critic]) == (answer,)
    assert quoted_in(b"\xc1 garbage") == ()


def test_a_ring_of_quotes_ends() -> None:
    """Bodies can't quote in a circle, but whoever claims so costs a bounded walk."""
    ring = {bytes([n]): (bytes([(n + 1) % 200]),) for n in range(200)}
    found, missing = closure([b"\0"], ring.get, lambda quoted: quoted)
    assert len(found) == 64
    assert missing == ()
