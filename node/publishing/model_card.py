"""The model card that is pushed with a model. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

import msgspec

HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
HOW_ADAPTERS_LOAD = (
    "These are LoRA adapters: with peft, `AutoModelForCausalLM.from_pretrained` of this repository loads them "
    "on their base model."
)
ROWS = 40
"""Most rows of the table of curves; a longer history is thinned out evenly."""


class CardFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The card's data. `rewards` and `accuracies` hold (round, mean in [0, 1]); counts are since the node's first
    start.

    `adapters` is True if these are pushed alone: peft loads them on their base, which then has a name on the hub.
    """

    base_model: str
    swarm: str
    data: str
    node: str
    round: int
    rounds_worked: int
    updates: int
    own_groups: int
    external_groups: int
    rewards: tuple[tuple[int, float], ...] = ()
    accuracies: tuple[tuple[int, float], ...] = ()
    version: str = ""
    adapters: bool = False


def model_card(facts: CardFacts) -> str:
    """Return README.md: metadata in YAML (hub documentation, "Model cards"), training facts, and curves."""
    return "\n".join([*_metadata(facts), "", *_text(facts), "", *_curves(facts)]) + "\n"


def _metadata(facts: CardFacts) -> list[str]:
    """Return the YAML metadata."""
    known = HUB_NAME.fullmatch(facts.base_model) is not None
    return [
        "---",
        f"library_name: {'peft' if facts.adapters else 'transformers'}",
        "pipeline_tag: text-generation",
        *([f"base_model: {_quoted(facts.base_model)}"] if known else []),
        *(["base_model_relation: adapter"] if facts.adapters else []),
        "tags:",
        *(f"- {_quoted(tag)}" for tag in ("grpo", "reinforcement-learning", "swarm-node", f"swarm:{facts.swarm}")),
        "---",
    ]


def _text(facts: CardFacts) -> list[str]:
    """Return title and facts."""
    rows = [
        ("Base model", facts.base_model),
        ("Swarm", facts.swarm),
        ("Questions", facts.data),
        ("Node", facts.node),
        ("Round", f"{facts.round} ({facts.rounds_worked} worked)"),
        ("Updates", str(facts.updates)),
        ("Groups trained on", f"{facts.own_groups} own, {facts.external_groups} from other peers"),
        ("Software", f"swarm-node {facts.version}".strip()),
    ]
    return [
        f"# {_plain(facts.swarm)}, round {facts.round}",
        "",
        "Trained with GRPO by one node of a peer-to-peer swarm, on its own rollouts and on rollouts of other peers.",
        *([HOW_ADAPTERS_LOAD] if facts.adapters else []),
        "",
        "| | |",
        "| --- | --- |",
        *(f"| {title} | {_plain(value)} |" for title, value in rows),
    ]


def _curves(facts: CardFacts) -> list[str]:
    rewards, accuracies = dict(facts.rewards), dict(facts.accuracies)
    rounds = thinned(sorted({*rewards, *accuracies}), ROWS)
    if not rounds:
        return ["No round has been measured yet."]
    return [
        "| Round | Mean reward of own rollouts | Held-out accuracy |",
        "| --- | --- | --- |",
        *(f"| {number} | {_number(rewards.get(number))} | {_number(accuracies.get(number))} |" for number in rounds),
    ]


def thinned(values: Sequence[int], most: int) -> list[int]:
    """Return at most `most` of the values, evenly spaced, including the first and the last."""
    if len(values) <= most:
        return list(values)
    return [values[place * (len(values) - 1) // (most - 1)] for place in range(most)]


def _quoted(text: str) -> str:
    """Return text as a JSON string, which is also valid YAML if every character is printable."""
    return json.dumps("".join(filter(str.isprintable, text)), ensure_ascii=False)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _plain(text: str) -> str:
    """Return text that can't break out of its table cell or become markup."""
    return re.sub(r"([\\`*_{}\[\]<>#|])", r"\\\1", " ".join(text.split()))
