"""Pushes the model to the Hugging Face hub every few rounds: a supervised service beside the trainer.

It follows the bus, so nothing waits for it; the push itself is a child process. A failed push is a warning and is
retried with exponential back-off, with the model that is newest by then.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from pathlib import Path
from statistics import fmean

import msgspec
import structlog
import trio

from node.backoff import Backoff
from node.child_process import DOWNLOAD, child_environment
from node.config import HubSettings
from node.files.atomic import replace_file
from node.machine.inputs import CheckpointSaved
from node.machine.status import RewardPoint, Status
from node.ports.service import Report
from node.publishing.hub_push import PushRequest, PushResult, line_of, own_version
from node.publishing.model_card import HUB_NAME, CardFacts, model_card
from node.runtime.bus import Bus, Subscription
from node.trainer.file_names import ADAPTER_CONFIG, CURRENT
from protocols.manifest import Manifest

log = structlog.get_logger()

FILE = "hub.json"
"""In the trainer's directory: the last round whose model is on the hub."""

RETRY = Backoff(first=60.0, longest=3600.0)
"""After a failed push."""

PASSED = (*DOWNLOAD, "HF_TOKEN", "HF_TOKEN_PATH", "CREDENTIALS_DIRECTORY")
"""What the child gets of the environment; it looks the token up itself."""

PUSH_SECONDS = 4 * 3600.0
"""Time limit of a push in seconds."""


class PushMark(msgspec.Struct, frozen=True):
    """The hub's state: rounds up to and including `round` count as pushed to `repo`."""

    repo: str
    round: int


class PushError(Exception):
    """A push failed; the text is one line."""


def read_mark(path: Path, repo: str) -> PushMark | None:
    """Return the state of a repository, None if it is not known."""
    try:
        mark = msgspec.json.decode(path.read_bytes(), type=PushMark)
    except (OSError, msgspec.DecodeError):
        return None
    return mark if mark.repo == repo else None


def round_means(points: Iterable[RewardPoint]) -> Iterator[tuple[int, float]]:
    """Yield each round with the mean reward of its stages; points must be ordered by round."""
    for number, stages in groupby(points, lambda point: point.round):
        yield number, fmean(point.reward for point in stages)


def card_of(number: int, status: Status, manifest: Manifest, base_model: str, *, adapters: bool = False) -> str:
    """Return the card of the model after round `number`, from the node's status."""
    totals = status.totals
    facts = CardFacts(
        base_model=base_model,
        swarm=manifest.name,
        data=manifest.data.source,
        node=status.address,
        round=number,
        rounds_worked=totals.rounds_worked,
        updates=totals.updates,
        own_groups=totals.own_groups,
        external_groups=totals.external_groups,
        rewards=tuple(round_means(status.rewards)),
        accuracies=tuple((point.round, point.accuracy) for point in status.curve),
        version=own_version(),
        adapters=adapters,
    )
    return model_card(facts)


def public_name(model: str) -> str:
    """Return a model's name for publication: only the last part of a local directory."""
    place = Path(model).expanduser()
    return place.name if place.is_absolute() or place.is_dir() else model


class HubService:
    """`node.ports.service.Service` that pushes; takes no commands and reports nothing."""

    name = "hub"

    def __init__(
        self, settings: HubSettings, manifest: Manifest, base_model: str, trainer: Path, bus: Bus,
        status: Callable[[], Status],
    ) -> None:  # fmt: skip
        self._settings, self._manifest, self._trainer = settings, manifest, trainer
        self._base_model = public_name(base_model or manifest.model)
        self._bus, self._status = bus, status
        self._saved = -1
        self._mark: PushMark | None = None
        self._news = trio.Event()

    @property
    def wanted(self) -> bool:
        """Whether a repository is configured."""
        return bool(self._settings.repo)

    async def execute(self, command: object) -> None:
        """Raise TypeError: the service takes no commands."""
        raise TypeError(f"the hub service takes no commands, got {type(command).__name__}")

    async def run(self, report: Report) -> None:
        """Push until cancelled."""
        self._mark = read_mark(self._trainer / FILE, self._settings.repo)
        with self._bus.subscribe() as subscription:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._follow, subscription)
                failures = 0
                while True:
                    await self._due()
                    try:
                        await self._push()
                        failures = 0
                    except PushError as error:
                        failures += 1
                        pause = RETRY.pause(failures)
                        log.warning("hub.push_failed", repo=self._settings.repo, reason=str(error), retry_in=pause)
                        await trio.sleep(pause)

    async def _follow(self, subscription: Subscription) -> None:
        """Follow checkpoints; rounds are counted from the first one ever seen."""
        async for happening in subscription:
            if isinstance(happening.stamped.input, CheckpointSaved):
                self._saved = happening.stamped.input.round
                if self._mark is None:
                    self._note(self._saved - 1)
                self._news.set()

    async def _due(self) -> None:
        while self._mark is None or self._saved - self._mark.round < self._settings.every:
            await self._news.wait()
            self._news = trio.Event()

    def _note(self, number: int) -> None:
        """Record on disk that rounds up to this one are on the hub."""
        self._mark = PushMark(self._settings.repo, number)
        replace_file(self._trainer / FILE, msgspec.json.encode(self._mark), durable=False)

    async def _push(self) -> None:
        number = self._saved
        base = self._base_model if HUB_NAME.fullmatch(self._base_model) and not self._settings.merged else ""
        adapters = bool(base) and (self._trainer / CURRENT / ADAPTER_CONFIG).is_file()
        order = PushRequest(
            trainer=str(self._trainer),
            repo=self._settings.repo,
            private=self._settings.private,
            token_file=self._settings.token_file,
            base=base,
            card=card_of(number, self._status(), self._manifest, self._base_model, adapters=adapters),
            message=f"Round {number} of swarm {self._manifest.name}",
        )
        began = trio.current_time()
        pushed = await pushing(order)
        self._note(number)
        log.info("hub.pushed", repo=order.repo, of_round=number, url=pushed.url, seconds=trio.current_time() - began)


async def pushing(order: PushRequest) -> PushResult:
    """Have a child push. Raises `PushError`; the child is ended if this is cancelled or takes too long."""
    child = _start_push()
    try:
        return await _pushed_by(child, order)
    finally:
        child.kill()
        child.wait()


def _start_push() -> subprocess.Popen[bytes]:
    """Start the child. Not by trio.run_process, which does so in a thread: it would end with that (`end_with`)."""
    return subprocess.Popen(
        [sys.executable, "-m", "node.publishing.hub_push", str(os.getpid())],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        env=child_environment(os.environ, PASSED), start_new_session=True,
    )  # fmt: skip


async def _pushed_by(child: subprocess.Popen[bytes], order: PushRequest) -> PushResult:
    with trio.move_on_after(PUSH_SECONDS):
        # The stubs that libp2p installs are for an older trio.
        output, _ = await trio.to_thread.run_sync(
            child.communicate, msgspec.json.encode(order), abandon_on_cancel=True  # type: ignore[call-arg]
        )  # fmt: skip
        try:
            pushed = msgspec.json.decode(output, type=PushResult)
        except msgspec.DecodeError as error:
            raise PushError(f"the push ended with code {child.returncode} and said nothing") from error
        if pushed.error:
            raise PushError(line_of(Exception(pushed.error), ""))
        return pushed
    raise PushError(f"it took longer than {PUSH_SECONDS:.0f} s")
