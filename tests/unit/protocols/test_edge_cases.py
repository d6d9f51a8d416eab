"""What the protocol's functions do at their edges: empty sets, wrong lengths, texts without content."""

from __future__ import annotations

import pytest

from protocols.assignment import assigned_question
from protocols.games import game_named
from protocols.games.quoting import ELLIPSIS, cut, quotable
from protocols.grading import parse_number
from protocols.identifiers import address_of_public_key, body_digest
from protocols.likeness import are_alike, sketch
from protocols.manifest import GameSpec
from protocols.wire import Malformed, decode_rollouts

SEED = body_digest(b"seed")
PEER = f"0x{1:040x}"
BODY = b"not a body"


def test_no_question_is_assigned_from_an_empty_data_set() -> None:
    """The manifest's data must hold something."""
    with pytest.raises(ValueError, match="empty data set"):
        assigned_question(body_digest(b"data"), SEED, PEER, 0, 0, 0)


@pytest.mark.parametrize("length", [0, 63, 65])
def test_only_a_public_key_of_64_bytes_has_an_address(length: int) -> None:
    """A key with its prefix byte is a mistake of the caller, not another address."""
    with pytest.raises(ValueError, match=f"got {length}"):
        address_of_public_key(bytes(length))


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
