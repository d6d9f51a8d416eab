"""Manifest and data section of a demo with a real model and real questions."""

from __future__ import annotations

from pathlib import Path

from msgspec.structs import replace

from node.data.load import JSONL, load_questions
from node.localnet.demo_plan import DemoOptions, PlanError
from protocols.manifest import DataSpec, Manifest
from protocols.manifest_rules import parse_manifest

TEMPLATE = Path(__file__).parents[2] / "configs" / "swarms" / "mawps.toml"
"""A few-shot prompt, and a game that fits two small CPUs."""


def real_inputs(options: DemoOptions) -> tuple[Manifest | None, DataSpec | None]:
    """Return manifest template and questions of a swarm with a real model; (None, None) for the built-in one.

    Raises `PlanError` if the questions can't be read.
    """
    if not options.real:
        return None, None
    template = parse_manifest(TEMPLATE.read_bytes())
    return template, question_spec(Path(options.data), template.data) if options.data else DataSpec()


def question_spec(path: Path, like: DataSpec) -> DataSpec:
    """Return the data section for a JSONL file, or a directory of train.jsonl and test.jsonl, with its digest."""
    spec = replace(like, source=f"{JSONL}{path.name}", digest="")
    try:
        digest = load_questions(spec, str(path.absolute())).digest
    except (OSError, ValueError) as error:
        raise PlanError(f"--data {path}: {error}") from error
    return replace(spec, digest=digest.hex())
