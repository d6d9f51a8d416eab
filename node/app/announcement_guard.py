"""One announcement for each stage, over crashes and reorgs: the vote protection is asked before work and signature.

Two bodies for one stage under one seed are an equivocation, and cost the node its peers' votes. The machine remembers
its own bodies only as long as their rounds may count, and the journal may lose its end in a power cut.
"""

from __future__ import annotations

import math

import msgspec
import structlog
import trio

from node.machine.commands import GenerateRollouts, PublishRollouts, TrainerCommand
from node.machine.inputs import AnnouncedBefore
from node.ports.bodies import Bodies
from node.ports.service import Report
from node.ports.trainer import TrainerService
from node.ports.votes import AnnouncementRecord
from protocols.identifiers import Digest
from protocols.wire import NOTHING

log = structlog.get_logger()


class AnnouncementGuard:
    """Says what may be announced. `bodies` has what was announced before."""

    def __init__(self, record: AnnouncementRecord, bodies: Bodies) -> None:
        self._record, self._bodies = record, bodies

    def admit(self, command: PublishRollouts, known: Digest | None = None) -> PublishRollouts | None:
        """Return what may be signed for a stage: the command, recorded durably by then.

        Where another body was announced before, it is that one again, with the command's messages; None where that body
        is not kept any more. `known` is one that peers have under this node's signature: it counts as the first where
        the record has none. Raises `Refusal` if the record can't be made durable.
        """
        first = self._record.admit_announcement(command.round, command.stage, command.seed, known or command.body)
        if first == command.body:
            return command
        log.warning(
            "gossip.announced_before", round=command.round, stage=command.stage,
            body=command.body.hex()[:16], first=first.hex()[:16],
        )  # fmt: skip
        size = self._size(first)
        if first != NOTHING and not size:
            return None
        return msgspec.structs.replace(command, body=first, size=size)

    def announced_before(self, command: GenerateRollouts) -> AnnouncedBefore | None:
        """Return what was announced for the stage that is to be worked in; None where nothing was."""
        where = (command.round, command.stage, command.seed)
        body = self._record.announced(*where)
        return None if body is None else AnnouncedBefore(*where, body, self._size(body))

    def _size(self, digest: Digest) -> int:
        return 0 if digest == NOTHING else len(self._bodies.get(digest) or b"")


class GuardedTrainer:
    """`node.ports.trainer.TrainerService` that is not asked for rollouts of a stage that was announced before."""

    name = "trainer"

    def __init__(self, trainer: TrainerService, guard: AnnouncementGuard) -> None:
        self._trainer, self._guard = trainer, guard
        self._answers_in, self._answers_out = trio.open_memory_channel[AnnouncedBefore](math.inf)

    async def run(self, report: Report) -> None:
        """Run the trainer, and report what it was not asked for."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._answer, report)
            await self._trainer.run(report)
            nursery.cancel_scope.cancel()

    async def _answer(self, report: Report) -> None:
        async for answer in self._answers_out:
            await report(answer)

    async def execute(self, command: TrainerCommand) -> None:
        """Hand a command to the trainer, unless the stage was announced before."""
        before = self._guard.announced_before(command) if isinstance(command, GenerateRollouts) else None
        if before is None:
            await self._trainer.execute(command)
        else:
            self._answers_in.send_nowait(before)
