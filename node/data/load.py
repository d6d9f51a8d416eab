"""From a manifest's data section to questions."""

from __future__ import annotations

from pathlib import Path

from node.data.arithmetic import ArithmeticQuestions
from node.seams import Questions
from protocols.manifest import DataSpec

BUILTIN = "builtin:arithmetic"
JSONL = "jsonl:"


def load_questions(spec: DataSpec, override: str = "") -> Questions:
    """Return the questions that a manifest names.

    `override` is this node's own copy of a JSONL file (a path, with or without "jsonl:"). Raises ValueError for an
    unknown source and where the copy's digest is not the manifest's, OSError where the file can't be read.
    """
    questions = _open(spec, override)
    if spec.digest and questions.digest.hex() != spec.digest.lower():
        raise ValueError(
            f"the questions have digest {questions.digest.hex()[:16]}, the manifest names {spec.digest[:16]}; "
            "get the file that the swarm's organiser published"
        )
    return questions


def _open(spec: DataSpec, override: str) -> Questions:
    if spec.source == BUILTIN:
        if override not in ("", BUILTIN):
            raise ValueError(f"this swarm plays {BUILTIN}, which needs no file; remove trainer.data = {override!r}")
        return ArithmeticQuestions()
    if not spec.source.startswith(JSONL):
        raise ValueError(f"data.source {spec.source!r} is unknown; it is {BUILTIN!r} or 'jsonl:PATH'")
    from node.data.jsonl import JsonlQuestions

    return JsonlQuestions(Path((override or spec.source).removeprefix(JSONL)), spec)
