"""The model card."""

import re

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from node.publishing.model_card import ROWS, CardFacts, model_card, thinned


def facts(**changed: object) -> CardFacts:
    values: dict[str, object] = {
        "base_model": "org/base-1B", "swarm": "sums", "data": "builtin:arithmetic", "node": "0x12", "round": 9,
        "rounds_worked": 7, "updates": 14, "own_groups": 100, "external_groups": 60, "rewards": ((8, 0.25), (9, 0.5)),
        "accuracies": ((9, 0.625),), "version": "1.0",
    }  # fmt: skip
    return CardFacts(**{**values, **changed})  # type: ignore[arg-type]


def metadata(card: str) -> dict[str, object]:
    _, block, _ = card.split("---\n", 2)
    found: dict[str, object] = yaml.safe_load(block)
    return found


def test_a_card_says_what_was_trained_and_how_it_went() -> None:
    """Metadata name base model, library and swarm; the tables hold counts and both curves by round."""
    card = model_card(facts())
    assert metadata(card)["base_model"] == "org/base-1B"
    assert metadata(card)["library_name"] == "transformers"
    assert "swarm:sums" in str(metadata(card)["tags"])
    assert "| Groups trained on | 100 own, 60 from other peers |" in card
    assert "| 8 | 0.250 |  |" in card
    assert "| 9 | 0.500 | 0.625 |" in card


def test_adapters_are_peft_s_and_say_so() -> None:
    """The hub shows them under their base; the text says how they are loaded."""
    card = model_card(facts(adapters=True))
    found = metadata(card)
    assert (found["library_name"], found["base_model_relation"]) == ("peft", "adapter")
    assert "loads them on their base model" in card
    assert "base_model_relation" not in model_card(facts())


def test_a_base_model_that_is_not_on_the_hub_is_told_in_the_text_alone() -> None:
    """The hub refuses a base_model in the metadata that is no OWNER/NAME."""
    card = model_card(facts(base_model="builtin"))
    assert "base_model" not in metadata(card)
    assert "| Base model | builtin |" in card


@settings(max_examples=30)
@given(swarm=st.text(max_size=40))
def test_no_name_of_a_swarm_breaks_the_card(swarm: str) -> None:
    """Names come from a manifest: metadata stay what they are, and the table keeps its rows."""
    card = model_card(facts(swarm=swarm, rewards=(), accuracies=()))
    tags = metadata(card)["tags"]
    assert isinstance(tags, list)
    assert tags[-1] == "swarm:" + "".join(filter(str.isprintable, swarm))
    assert len(re.findall(r"(?m)^\| Swarm \| .* \|$", card)) == 1
    assert card.endswith("No round has been measured yet.\n")


@given(st.lists(st.integers(0, 10_000), unique=True, max_size=300).map(sorted))
def test_a_long_history_is_thinned_to_its_ends_and_what_lies_between(rounds: list[int]) -> None:
    """Never more rows than the limit, always the first and the last round."""
    shown = thinned(rounds, ROWS)
    assert len(shown) == min(ROWS, len(rounds))
    assert shown == sorted(set(shown))
    assert shown[:1] + shown[-1:] == rounds[:1] + rounds[-1:]
