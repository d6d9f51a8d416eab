"""What the protocol's functions do at their edges: empty sets, wrong lengths, texts without content."""

from __future__ import annotations

import random

import pytest

from protocols.assignment import assigned_question
from protocols.games import game_named
from protocols.games.quoting import ELLIPSIS, cut, quotable
from protocols.games.share import has_advantage, sample_groups
from protocols.grading import parse_number
from protocols.identifiers import address_of_public_key, body_digest
from protocols.likeness import are_alike, sketch
from protocols.manifest import GameSpec
from protocols.wire import Group, Malformed, decode_rollouts

SEED = body_digest(b"seed")
PEER = f"0x{1:040x}"
BODY = b"not a body"
GROUPS = [Group(number, number, ()) for number in range(5)]


def test_no_question_is_assigned_from_an_empty_data_set() -> None:
    """The manifest's data must hold something."""
    with pytest.raises(ValueError, match="empty data set"):
        assigned_question(body_digest(b"data"), SEED, PEER, 0, 0, 0)


@pytest.mark.parametrize("length", [0, 63, 65])
def test_only_a_public_key_of_64_bytes_has_an_address(length: int) -> None:
    """A key with its prefix byte is a mistake of the caller, not another address."""
    with pytest.raises(ValueError, match=f"got {length}"):
        address_of_public_key(bytes(length))


def test_the_address_of_a_public_key_is_the_evm_s() -> None:
    """The generator point of secp256k1 is the public key of private key 1, whose address is well known."""
    generator = (
        "79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"
        "483ada7726a3c4655da4fbfc0e1108a8fd17b448a68554199c47d08ffb10d4b8"
    )
    assert address_of_public_key(bytes.fromhex(generator)) == "0x7e5f4552091a69125d5dfcb7b8c2659029395bdf"


@pytest.mark.parametrize("text", ["", " ", "$", "1" * 33, "٣", "NaN", "Infinity", "one"])
def test_what_is_no_plain_number_grades_as_none(text: str) -> None:
    """Only finite ASCII numbers of bounded length are read."""
    assert parse_number(text) is None


@pytest.mark.parametrize(("text", "value"), [("1,234", 1234), (" $5 ", 5), ("-7", -7)])
def test_separators_and_dollars_are_left_out_of_a_number(text: str, value: int) -> None:
    """As reference answers have them."""
    assert parse_number(text) == value


@pytest.mark.parametrize("text", ["", "one word", "two words more"])
def test_texts_without_n_grams_are_alike_only_if_they_are_the_same(text: str) -> None:
    """Short texts are compared whole."""
    assert are_alike(sketch(text), sketch(text))
    assert not are_alike(sketch(text), sketch(text + " other"))


def test_a_body_beyond_the_limit_is_not_even_hashed() -> None:
    """Its size alone refuses it, whether or not the digest would be right."""
    with pytest.raises(Malformed) as refused:
        decode_rollouts(BODY, body_digest(BODY), len(BODY) - 1)
    assert refused.value.code == "size"
    with pytest.raises(Malformed) as other:
        decode_rollouts(BODY, SEED, len(BODY))
    assert other.value.code == "digest"


def test_a_game_without_words_of_its_own_strikes_nothing_out() -> None:
    """An empty word would match between any two characters."""
    assert quotable("plain text", ["", " "], 100) == "plain text"


@pytest.mark.parametrize(("room", "expected"), [(0, ""), (2, "ij"), (20, "abcdefghij"), (10, "abcdefghij")])
def test_a_text_is_cut_to_any_room(room: int, expected: str) -> None:
    """Where not even the ellipsis fits, the end stays: it says more."""
    assert cut("abcdefghij", room) == expected


def test_a_cut_text_keeps_its_beginning_and_its_end() -> None:
    """What is missing is marked."""
    text = "a" * 50 + "z" * 50
    found = cut(text, 40)
    assert len(found) == 40
    assert found.startswith("a")
    assert found.endswith("z")
    assert ELLIPSIS in found


@pytest.mark.parametrize(("stage", "final"), [(0, "the answer is 4"), (1, "")])
def test_an_answer_is_final_as_it_stands_and_a_critique_answers_nothing(stage: int, final: str) -> None:
    """What is measured as held-out accuracy."""
    assert game_named("debate").final(GameSpec(name="debate"), stage, "the answer is 4") == final


def test_the_rollouts_of_share_are_published_and_scored_whole() -> None:
    """Every group counts, and the score is the mean reward of a group."""
    score = game_named("share").score(PEER, [(4, 1.0)])
    assert (score.peer, score.groups, score.mean) == (PEER, 4, 0.25)


@pytest.mark.parametrize(("rewards", "teaches"), [([1.0, 1.0], False), ([0.0], False), ([0.0, 1.0], True)])
def test_a_group_whose_rewards_are_all_the_same_teaches_nothing(rewards: list[float], teaches: bool) -> None:
    """Its advantages are zero."""
    assert has_advantage(rewards) is teaches


@pytest.mark.parametrize(("count", "expected"), [(0, 0), (2, 2), (5, 5), (9, 5)])
def test_no_more_groups_are_sampled_than_there_are(count: int, expected: int) -> None:
    """Each at most once, the others' as well as the own."""
    sampled = sample_groups(GROUPS, count, random.Random(7))
    assert len(sampled) == expected == len({group.question for group in sampled})
