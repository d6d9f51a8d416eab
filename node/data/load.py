"""Loads the questions that a manifest's data section names."""

from __future__ import annotations

from pathlib import Path

from node.data.arithmetic import ArithmeticQuestions
from node.data.columns import question_of
from node.data.questions import Questions
from node.data.recorded_questions import RecordedQuestions
from node.runtime.entry_points import DATA, load_plugin, plugin_names
from protocols.grading import gradable
from protocols.manifest import DataSpec

BUILTIN = "builtin:arithmetic"
JSONL = "jsonl:"
FILES = (JSONL, "parquet:")
SCHEMES = "builtin:arithmetic, hub:OWNER/NAME, jsonl:PATH, parquet:PATH, reasoning-gym:TASK"


def load_questions(spec: DataSpec, override: str = "", grader: str = "") -> Questions:
    """Return the questions that a manifest names.

    `override` is this node's own copy (a path, with or without "jsonl:" or "parquet:"): a file, or a directory in the
    hub's layout. With `grader`, every reference answer must be gradable by it. Raises ValueError in one line for an
    unknown source, a file that can't be read, a copy with another digest than the manifest's, a row that can't be used
    or graded; plug-ins may raise OSError.
    """
    questions = _open(spec, _path(override))
    if spec.digest and questions.digest.hex() != spec.digest.lower():
        raise ValueError(
            f"the questions have digest {questions.digest.hex()[:16]}, the manifest names {spec.digest[:16]}; "
            "get the copy that the swarm's organiser published"
        )
    for index in range(len(questions)) if grader else ():
        if not gradable(grader, questions[index].answer):
            raise ValueError(
                f"question {index} ({questions[index].text[:40]!r}): {grader} can't grade the answer "
                f"{questions[index].answer[-40:]!r}; set data.answer or game.grader"
            )
    return questions


def _path(override: str) -> str:
    for scheme in FILES:
        override = override.removeprefix(scheme)
    return override


def _open(spec: DataSpec, override: str) -> Questions:
    scheme, _, name = spec.source.partition(":")
    if spec.source == BUILTIN:
        if override not in ("", BUILTIN):
            raise ValueError(f"this swarm uses {BUILTIN}, which needs no file; remove trainer.data = {override!r}")
        return ArithmeticQuestions()
    if spec.source.startswith(FILES):
        from node.data.local_files import read_questions

        return read_questions(Path(override or name), spec)
    if scheme == "hub":
        from node.data.hub_dataset import hub_questions

        return hub_questions(name, spec, override)
    if scheme == "reasoning-gym":
        from node.data.gym import gym_questions

        return gym_questions(name, spec)
    return _from_plugin(scheme, name, spec, override)


def _from_plugin(scheme: str, name: str, spec: DataSpec, override: str) -> RecordedQuestions:
    if scheme not in plugin_names(DATA):
        raise ValueError(
            f"data.source {spec.source!r} is unknown; use one of {SCHEMES}, or an installed plug-in "
            f"(there are {', '.join(plugin_names(DATA)) or 'none'})"
        )
    pairs = load_plugin(DATA, scheme)(name, spec, override)
    columns = DataSpec(question="question", answer="answer")
    records = [
        question_of(f"{spec.source}:{number}", {"question": question, "answer": answer}, columns)
        for number, (question, answer) in enumerate(pairs, 1)
    ]
    return RecordedQuestions(spec.source, records)
