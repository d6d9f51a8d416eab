"""The node's side of the trainer: starts the child, passes frames, reports to the machine what came of them.

Nothing here imports torch. The child may hang, crash, be killed for memory or write garbage: each ends in `TrainerLost`
a pause that doubles from 1 s to 60 s, and a new child that resumes from the newest checkpoint.
"""

from __future__ import annotations

import math
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Never

import msgspec
import structlog
import trio

from node.backoff import Backoff
from node.child_process import child_environment
from node.config import TrainerSettings
from node.errors import leaves
from node.frames import FrameReader
from node.machine import commands as c
from node.machine import inputs as i
from node.ports.bodies import Bodies
from node.ports.service import Report
from node.trainer import messages as f
from node.trainer.rank_environment import PASSED
from node.trainer.service.in_flight import InFlightJobs, cancel_timeout
from node.trainer.service.jobs import input_of, job_for, kind_of, refusal
from protocols.identifiers import Address, body_digest
from protocols.manifest import Manifest

log = structlog.get_logger()

SILENCE_SECONDS = 15.0
"""A child that says nothing for so long is hung."""

LOADING_SECONDS = 300.0
"""The same while it imports and loads: both may hold the interpreter for long."""

RESTART = Backoff(first=1.0, longest=60.0, steady=120.0)
"""Before a child that was lost is followed by another; what counts as steady is how long it was ready."""

END_SECONDS = 2.0
"""How long a child may take to end when its line is closed, before it is killed."""

REFUSED = 3
"""Exit code of a child that could not get data or model, and has said why."""

LEVELS = ("debug", "info", "warning", "error")

STDERR_LINE = 500
"""Bytes of a line of the child's standard error that are kept."""


class WorkerLost(Exception):  # noqa: N818 - what happened to the child
    """The child can't be used any more."""


class WorkerClient:
    """`node.ports.trainer.TrainerService` on a child process."""

    name = "trainer"

    def __init__(
        self, settings: TrainerSettings, manifest: Manifest, peer: Address, directory: Path, bodies: Bodies
    ) -> None:
        self._settings, self._manifest, self._peer = settings, manifest, peer
        self._directory, self._bodies = directory, bodies
        self._reports_in, self._reports_out = trio.open_memory_channel[i.AnyInput](math.inf)
        self._child: WorkerProcess | None = None
        self._next_task = 1
        self._in_flight = InFlightJobs(cancel_timeout(manifest))
        self.progress: f.Progress | None = None

    # --- commands -----------------------------------------------------------------------------------------------

    async def execute(self, command: c.TrainerCommand) -> None:
        """Hand a command to the child. Where there is none, the machine learns that nothing will come of it."""
        if isinstance(command, c.AbortWork):
            self._abort(command)
            return
        if self._child is None or not self._child.ready:
            self._report(refusal(command, "trainer away"))
            return
        job = job_for(self._next_task, command, self._bodies, self._manifest.limits.body)
        if isinstance(job, str):
            self._report(refusal(command, job))
            return
        try:
            self._child.send(job.frame)
        except ValueError as error:  # it is larger than any frame: of whatever size bodies are in this swarm
            self._report(refusal(command, str(error)))
            return
        self._next_task += 1
        self._in_flight.add(job)

    def _abort(self, command: c.AbortWork) -> None:
        """Cancel every task given so far. The machine has given them up: no answer to them reaches it."""
        tasks = self._in_flight.abort(trio.current_time())
        if self._child is not None and tasks:
            log.info("trainer.abort", tasks=tasks, reason=command.reason)
            self._child.send(f.Cancel(max(tasks)))

    # --- life of the child --------------------------------------------------------------------------------------

    async def run(self, report: Report) -> None:
        """Keep a child alive until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._forward, report)
            failures = 0
            while True:
                lasted, lost = await self._live()
                failures = RESTART.count(failures, lasted)
                pause = RESTART.pause(failures)
                log.warning("trainer.child_lost", reason=lost.reason, shrink=lost.shrink, restart_in=pause)
                if lost.shrink:
                    self._settings = shrunk(self._settings)
                self._report(lost)
                await trio.sleep(pause)

    def _report(self, happened: i.AnyInput) -> None:
        self._reports_in.send_nowait(happened)

    async def _forward(self, report: Report) -> None:
        """Report in order; `execute` is called by the machine's own loop and must not wait for a full queue."""
        async for happened in self._reports_out:
            await report(happened)

    async def _live(self) -> tuple[float, i.TrainerLost]:
        """Run one child to its end; return for how many seconds it was ready, and the loss."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        kills = oom_kills()
        child = WorkerProcess(self._settings.threads, self._settings.python or sys.executable)
        reason = ""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(child.write)
                nursery.start_soon(child.log_errors)
                child.send(f.SetUp(self._settings, self._manifest, self._peer, str(self._directory)))
                self._child = child
                await self._listen(child)
        except* (WorkerLost, OSError) as group:
            reason = str(next(leaves(group)))
        finally:
            self._child = None
            self._in_flight = InFlightJobs(self._in_flight.timeout)
            self.progress = None
            with trio.CancelScope(shield=True):
                killed = await child.end()
        lasted = max(0.0, trio.current_time() - child.ready_since)
        if child.returncode not in (0, REFUSED):
            reason = child.last_error or reason
        return lasted, loss(reason, child.returncode, killed=killed, oom_kills=oom_kills() - kills)

    async def _listen(self, child: WorkerProcess) -> Never:
        """Take frames until the child is `WorkerLost`. Heartbeats come also from one whose work hangs."""
        while True:
            self._take(child, await child.receive())
            if self._in_flight.is_overdue(trio.current_time()):
                raise WorkerLost(f"it did not give up its task within {self._in_flight.timeout:.0f} s")

    def _take(self, child: WorkerProcess, frame: f.FromChild) -> None:
        """Take a frame, and report to the machine what it must know. Raises `WorkerLost` if the child can't go on."""
        match frame:
            case f.Ready():
                child.ready_since = trio.current_time()
                self._report(i.TrainerReady(frame.parameters, frame.device, frame.checkpoint_round))
            case f.Heartbeat():
                pass
            case f.Progress():
                self.progress = frame
            case f.Logged():
                getattr(log, frame.level if frame.level in LEVELS else "info")(frame.event, **frame.fields)
            case f.Failed(task=0):
                raise WorkerLost(frame.reason)
            case f.Hello():
                log.debug("trainer.child_started", pid=frame.pid)
            case _:
                self._finish(frame)

    def _finish(self, frame: f.Generated | f.Trained | f.Evaluated | f.Saved | f.Failed) -> None:
        try:
            job = self._in_flight.answered(frame.task)
        except KeyError:
            raise WorkerLost(f"it answered task {frame.task}, which it was not given") from None
        self.progress = None
        if job is None:
            log.debug("trainer.given_up", task=frame.task, answer=type(frame).__name__)
            return
        try:
            if isinstance(frame, f.Generated):
                self._bodies.put(body_digest(frame.body), frame.body, job.round)
        except OSError as error:
            self._report(refusal(job.command, f"the rollouts could not be kept: {error.strerror}"))
            return
        happened = input_of(job, frame)
        if happened is None:
            raise WorkerLost(f"it answered {kind_of(job.command)} with {type(frame).__name__}")
        self._report(happened)


class WorkerProcess:
    """One child process and the socket to it."""

    def __init__(self, threads: int, python: str) -> None:
        ours, theirs = socket.socketpair()
        environment = child_environment(
            os.environ, PASSED, python, OMP_NUM_THREADS=str(threads), HF_HUB_DISABLE_PROGRESS_BARS="1"
        )
        with theirs:
            # Not trio.run_process: it forks in a worker thread, and the child is killed (PR_SET_PDEATHSIG) when the
            # thread that forked it ends. A session of its own keeps the terminal's Ctrl-C for the node.
            self._process = subprocess.Popen(
                [python, "-m", "node.trainer.worker.main", str(theirs.fileno()), str(os.getpid())],
                pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE, env=environment, start_new_session=True,
            )  # fmt: skip
        assert self._process.stderr is not None
        self._errors = os.dup(self._process.stderr.fileno())
        self._process.stderr.close()
        self._error_rest = b""
        self.last_error = ""
        ours.setblocking(False)
        self._stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
        self._out_in, self._out = trio.open_memory_channel[bytes](math.inf)
        self._frames = FrameReader(f.FRAME_LIMIT)
        self.ready_since = math.inf

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    @property
    def ready(self) -> bool:
        """Whether it has loaded its model."""
        return self.ready_since < math.inf

    @property
    def returncode(self) -> int:
        """How the process ended; 0 while it runs."""
        return self._process.returncode or 0

    def send(self, frame: f.ToChild) -> None:
        """Queue a frame."""
        self._out_in.send_nowait(f.frame_bytes(frame))

    async def write(self) -> None:
        """Write queued frames until cancelled. A line that broke is seen where frames are received."""
        async for data in self._out:
            try:
                await self._stream.send_all(data)
            except trio.BrokenResourceError:
                return

    async def receive(self) -> f.FromChild:
        """Return the next frame. Raises `WorkerLost` where the child is gone, hung, or writes what is no frame."""
        timeout = SILENCE_SECONDS if self.ready else LOADING_SECONDS
        with trio.move_on_after(timeout):
            try:
                frame: f.FromChild = f.from_child.decode(await self._next_frame())
            except (ValueError, RecursionError) as error:
                raise WorkerLost(f"it wrote garbage: {error}") from error
            return frame
        raise WorkerLost(f"it said nothing for {timeout:.0f} s")

    async def _next_frame(self) -> bytes:
        while (body := self._frames.next()) is None:
            try:
                data = await self._stream.receive_some()
            except trio.BrokenResourceError:
                data = b""
            if not data:
                raise WorkerLost("its line ended")
            self._frames.feed(bytes(data))
        return body

    async def log_errors(self) -> None:
        """Pass on what the child writes to its standard error, until cancelled."""
        async with trio.lowlevel.FdStream(os.dup(self._errors)) as stream:
            async for data in stream:
                self._log_lines(bytes(data))

    def _log_lines(self, data: bytes) -> None:
        *lines, rest = (self._error_rest + data).split(b"\n")
        self._error_rest = rest[-STDERR_LINE:]
        for line in lines:
            self.last_error = line[:STDERR_LINE].decode(errors="replace").strip() or self.last_error
            if line.strip():
                log.info("trainer.stderr", line=self.last_error)

    async def end(self) -> bool:
        """See the process to its end; return whether it had to be killed."""
        with trio.move_on_after(END_SECONDS):
            await self._stream.aclose()
            # The stubs that libp2p brings along know an older trio.
            await trio.to_thread.run_sync(self._process.wait, abandon_on_cancel=True)  # type: ignore[call-arg]
        killed = self._process.poll() is None
        if killed:
            self._process.kill()
        await trio.to_thread.run_sync(self._process.wait)
        self._log_lines(_available(self._errors) + b"\n")
        os.close(self._errors)
        return killed


def _available(descriptor: int) -> bytes:
    """Return what can be read without waiting."""
    os.set_blocking(descriptor, False)
    try:
        return os.read(descriptor, 1 << 16)
    except BlockingIOError:
        return b""


def shrunk(settings: TrainerSettings) -> TrainerSettings:
    """Return settings that take less memory: half the completions at once, a plan for three quarters of the memory."""
    return msgspec.structs.replace(
        settings,
        micro_batch=max(1, settings.micro_batch // 2),
        gpu_memory_utilization=settings.gpu_memory_utilization * 0.75,
    )


def loss(reason: str, returncode: int, *, killed: bool, oom_kills: int) -> i.TrainerLost:
    """Return how a child was lost: for memory where it was killed, not by us, and the kernel counted `oom_kills`
    kills for memory meanwhile."""
    if killed or returncode in (0, REFUSED):
        return i.TrainerLost(reason)
    if returncode == -signal.SIGKILL:
        if oom_kills:
            return i.TrainerLost("the kernel killed it, out of memory", shrink=True)
        return i.TrainerLost("somebody killed it")
    how = f"signal {-returncode}" if returncode < 0 else f"exit code {returncode}"
    return i.TrainerLost(f"it ended with {how}: {reason}")


def oom_kills() -> int:
    """Return how many processes the kernel has killed for memory since boot; 0 if it doesn't say."""
    try:
        text = Path("/proc/vmstat").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in text.splitlines() if line.startswith("oom_kill ")), 0)
