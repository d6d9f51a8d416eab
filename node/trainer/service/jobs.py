"""What the worker client asks of the child, and what it reports to the machine: pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from typing import NamedTuple, TypeAlias

import msgspec

from node.machine import commands as c
from node.machine import inputs as i
from node.ports.bodies import Bodies
from node.trainer import messages as f
from node.validation.quoted_bodies import closure
from protocols.identifiers import Digest, body_digest
from protocols.wire import quoted_in, quoting_of

Work: TypeAlias = c.GenerateRollouts | c.TrainOnRollouts | c.EvaluateModel | c.SaveCheckpoint
Asked: TypeAlias = f.Generate | f.Train | f.Evaluate | f.Save
Answer: TypeAlias = f.Generated | f.Trained | f.Evaluated | f.Saved | f.Failed

FRAME_SHARE = f.FRAME_LIMIT * 3 // 4
"""Bytes of bodies that one frame carries."""

MAX_QUOTED_BODIES = 256
"""Bodies that those of one training may quote, directly or in turn."""

KINDS: dict[type[Work], str] = {
    c.GenerateRollouts: "generate",
    c.TrainOnRollouts: "train",
    c.EvaluateModel: "evaluate",
    c.SaveCheckpoint: "save",
}
"""The machine's names of the kinds of work, for `WorkFailed`."""


class QuotedBody(NamedTuple):
    """A body that is quoted: encoded, the stage that it is of, what it quotes in turn."""

    encoded: bytes
    stage: int
    quoted: tuple[Digest, ...]


class Job(msgspec.Struct, frozen=True):
    """A command in flight, and the frame that carries it."""

    command: Work
    frame: Asked

    @property
    def task(self) -> int:
        """The number under which the child answers."""
        return self.frame.task

    @property
    def round(self) -> int:
        """The command's round."""
        return self.command.round


def kind_of(command: Work) -> str:
    """Return the machine's name of a kind of work."""
    return KINDS[type(command)]


def refusal(command: Work, reason: str) -> i.WorkFailed:
    """Return the input that says nothing will come of a command."""
    stage = command.stage if isinstance(command, c.GenerateRollouts | c.TrainOnRollouts) else 0
    seed = command.seed if isinstance(command, c.GenerateRollouts) else b""
    return i.WorkFailed(kind_of(command), command.round, stage, reason, seed)


def job_for(task: int, command: Work, bodies: Bodies, limit: int) -> Job | str:
    """Return the job for a command, or why it can't be given. `limit` bounds a body, in bytes.

    An external body that is not kept any more is left out; so are the last ones if not all fit into a frame.
    """
    frame: Asked | str
    match command:
        case c.GenerateRollouts():
            frame = _to_generate(task, command, bodies)
        case c.TrainOnRollouts():
            frame = _to_train(task, command, bodies, limit)
        case c.EvaluateModel():
            frame = f.Evaluate(task, command.round)
        case c.SaveCheckpoint():
            frame = f.Save(task, command.round)
    return frame if isinstance(frame, str) else Job(command, frame)


def _to_generate(task: int, command: c.GenerateRollouts, bodies: Bodies) -> f.Generate | str:
    quoted_bodies = quotes_that_fit(command.quoted, bodies, FRAME_SHARE)
    if isinstance(quoted_bodies, str):
        return quoted_bodies
    quoted = tuple(digest for digest in command.quoted if digest in quoted_bodies)
    return f.Generate(
        task, command.round, command.stage, command.seed, command.groups, quoted, tuple(quoted_bodies.values())
    )  # fmt: skip


def _to_train(task: int, command: c.TrainOnRollouts, bodies: Bodies, limit: int) -> f.Train | str:
    own = bodies.get(command.own) if command.own else b""
    external = fitting([bodies.get(each) for each in command.external], FRAME_SHARE - limit)
    if not own and not external:
        return "no body to train on is kept any more"
    budget = FRAME_SHARE - len(own or b"") - sum(map(len, external))
    quoted_bodies, _ = bodies_quoted_by([each for body in (own or b"", *external) for each in quoted_in(body)], bodies)
    return f.Train(
        task, command.round, command.stage, own or b"", external, command.updates, command.seconds,
        fitting(list(quoted_bodies), budget),
    )  # fmt: skip


def bodies_quoted_by(quoted: Iterable[Digest], bodies: Bodies) -> tuple[tuple[bytes, ...], tuple[Digest, ...]]:
    """Return the quoted bodies with what they quote in turn, encoded, and the digests of those that are not kept."""
    found, missing = closure(quoted, bodies.get, quoted_in, MAX_QUOTED_BODIES)
    return tuple(found.values()), missing


def quotes_that_fit(quoted: Sequence[Digest], bodies: Bodies, budget: int) -> dict[Digest, bytes] | str:
    """Return what fits into a budget of bytes, of the quoted bodies and what they quote in turn; or why nothing can be
    quoted.

    Peers accept some of each stage, in the order of their draw: fewer of each are quoted where all would not fit.
    """
    found, missing = closure(
        quoted, lambda digest: quoted_body_of(bodies.get(digest)), lambda body: body.quoted, MAX_QUOTED_BODIES
    )
    if missing:
        return f"{len(missing)} bodies that are to be quoted are not kept any more"
    quoted_bodies: dict[Digest, QuotedBody] = {}
    for digest in by_turns(quoted, found):
        wider = quoted_bodies | closure([digest], found.get, lambda body: body.quoted, MAX_QUOTED_BODIES)[0]
        if sum(len(body.encoded) for body in wider.values()) <= budget:
            quoted_bodies = wider
    if {found[digest].stage for digest in quoted} - {
        quoted_bodies[digest].stage for digest in quoted if digest in quoted_bodies
    }:
        return "the bodies that are to be quoted are too large"
    return {digest: body.encoded for digest, body in quoted_bodies.items()}


def by_turns(quoted: Iterable[Digest], found: Mapping[Digest, QuotedBody]) -> list[Digest]:
    """Return the first body of every stage, then the second of every stage, and so on."""
    stages: dict[int, list[Digest]] = {}
    for digest in quoted:
        stages.setdefault(found[digest].stage, []).append(digest)
    return [digest for turn in zip_longest(*stages.values()) for digest in turn if digest is not None]


def quoted_body_of(body: bytes | None) -> QuotedBody | None:
    """Return a body with what it says of itself; None where there is none that can be read."""
    header = quoting_of(body) if body else None
    return QuotedBody(body, header.stage, header.quoted) if body and header else None


def fitting(bodies: list[bytes | None], budget: int) -> tuple[bytes, ...]:
    """Return the bodies that are there, as many from the front as fit into a budget of bytes."""
    kept: list[bytes] = []
    for body in bodies:
        if body is not None and len(body) <= budget:
            kept.append(body)
            budget -= len(body)
    return tuple(kept)


def input_of(job: Job, answer: Answer) -> i.AnyInput | None:
    """Return the input that reports an answer to the machine; None if it is no answer to this job."""
    match job.command, answer:
        case c.GenerateRollouts() as asked, f.Generated() as made:
            return i.RolloutsGenerated(
                asked.round, asked.stage, body_digest(made.body), len(made.body), made.groups, made.reward,
                made.seconds, made.right, asked.seed,
            )  # fmt: skip
        case c.TrainOnRollouts() as asked, f.Trained() as done:
            return i.TrainingFinished(
                asked.round, asked.stage, done.updates, done.own, done.external, done.loss, done.seconds,
                tuple(each for each in asked.external if each in done.off_policy),
            )  # fmt: skip
        case c.EvaluateModel() as asked, f.Evaluated() as measured:
            return i.EvaluationFinished(asked.round, measured.accuracy, measured.questions, measured.seconds)
        case c.SaveCheckpoint() as asked, f.Saved():
            return i.CheckpointSaved(asked.round)
        case asked, f.Failed() as failed:
            return refusal(asked, f"{failed.kind}: {failed.reason}")
    return None
