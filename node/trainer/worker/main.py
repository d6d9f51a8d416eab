"""The trainer's child process: `python -m node.trainer.worker.main FD`, started by
`node.trainer.service.worker_client` and nobody else.

The reader thread takes frames from the socket, so that `Cancel` overtakes work, and says every second that the child
lives. The main thread does one task after the other. Where the node is gone, so is the child.
"""

from __future__ import annotations

import os
import queue
import resource
import select
import socket
import sys
import threading
import time
from collections.abc import MutableMapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from node.child_process import end_with
from node.errors import describe
from node.frames import FrameReader
from node.trainer import messages as f
from node.trainer.memory.memory_plan import mps_watermarks
from node.trainer.rank_environment import start_rank_workers

if TYPE_CHECKING:
    from node.trainer.worker.session import Session, TaskContext

HEARTBEAT_SECONDS = 1.0
KEEP_ALIVE = 60.0
"""Seconds after which a silent rank 0 shows the other ranks that it lives."""

OOM_SCORE = 900
"""Where memory runs out, the kernel ends the child, not the node."""

REFUSED = 3
"""Exit code: data or model can't be had; the reason went to the node."""


class ParentConnection:
    """The socket to the node: frames in and out, and which tasks were given up."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._writing = threading.Lock()
        self._given_up = -1
        self._spoke = 0.0
        self.frames: queue.SimpleQueue[f.ToChild] = queue.SimpleQueue()

    def send(self, frame: f.FromChild) -> None:
        """Send a frame; callable from both threads."""
        data = f.frame_bytes(frame)
        with self._writing:
            self._socket.sendall(data)
            self._spoke = time.monotonic()

    def cancelled(self, task: int) -> bool:
        """Return True if the node gave up this task."""
        return task <= self._given_up

    def read_forever(self) -> None:
        """Take frames until the node is gone, then end the process at once: nobody waits for its work."""
        try:
            self._read_forever()
        except (OSError, EOFError, ValueError) as error:
            sys.stderr.write(f"the node's connection ended: {error}\n")
        os._exit(0)

    def _read_forever(self) -> None:
        reader = FrameReader(f.FRAME_LIMIT)
        while True:
            if select.select([self._socket], [], [], HEARTBEAT_SECONDS / 2)[0]:
                data = self._socket.recv(1 << 20)
                if not data:
                    return
                reader.feed(data)
                self._take_frames(reader)
            if time.monotonic() - self._spoke >= HEARTBEAT_SECONDS:
                self.send(f.Heartbeat())

    def _take_frames(self, reader: FrameReader) -> None:
        """Take every whole frame that has arrived."""
        for body in reader:
            frame = f.to_child.decode(body)
            if isinstance(frame, f.Cancel):
                self._given_up = max(self._given_up, frame.task)
            else:
                self.frames.put(frame)


class ProgressReporter:
    """Sends at most ten `Progress` frames a second."""

    def __init__(self, connection: ParentConnection, task: int) -> None:
        self._connection, self._task = connection, task
        self._sent = 0.0

    def __call__(self, done: int, total: int) -> None:
        """Send how far the task is."""
        now = time.monotonic()
        if now - self._sent >= 0.1 or done == total:
            self._sent = now
            self._connection.send(f.Progress(self._task, done, total))


def offer_to_kernel() -> None:
    """Have the kernel kill this process first if memory runs out."""
    try:
        Path("/proc/self/oom_score_adj").write_text(str(OOM_SCORE))
    except OSError as error:
        sys.stderr.write(f"oom_score_adj stays: {error}\n")


def limit_memory(mebibytes: int) -> None:
    """Limit the data of this process; more is refused with an error that a task survives."""
    if mebibytes:
        resource.setrlimit(resource.RLIMIT_DATA, (mebibytes << 20, mebibytes << 20))


def log_to(connection: ParentConnection) -> None:
    """Send what this process logs to the node, for its log."""
    import structlog

    def forward(_logger: object, level: str, event: MutableMapping[str, Any]) -> NoReturn:
        text = str(event.pop("event"))
        connection.send(f.Logged(level, text, {key: plain(value) for key, value in event.items()}))
        raise structlog.DropEvent

    structlog.configure(processors=[forward])


def plain(value: object) -> str | int | float | bool | None:
    """Return a value as a frame carries it."""
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def carry_out(session: Session, frame: f.ToChild, task: TaskContext) -> f.Generated | f.Trained | f.Evaluated | f.Saved:
    """Do what a frame asks for."""
    match frame:
        case f.Generate():
            return session.generate(frame, task)
        case f.Train():
            return session.train(frame, task)
        case f.Evaluate():
            return session.evaluate(frame, task)
        case f.Save():
            return session.save(frame)
    raise ValueError(f"a {type(frame).__name__} can't come here")


def answer(
    connection: ParentConnection, session: Session, frame: f.Generate | f.Train | f.Evaluate | f.Save
) -> f.FromChild:
    """Return the frame that ends a task, whatever happens to it."""
    from node.trainer.engines.engine import Cancelled, NotFinite
    from node.trainer.memory.oom import is_memory
    from node.trainer.worker.session import TaskContext

    process_group = session.process_group
    process_group.broadcast(f.encoded(frame))
    task = TaskContext(
        process_group.broadcast_answer(lambda: connection.cancelled(frame.task)),
        ProgressReporter(connection, frame.task),
    )
    if process_group.world_size == 1 and task.cancelled():
        return f.Failed(frame.task, "cancelled", "cancelled before it began")
    try:
        return carry_out(session, frame, task)
    except Cancelled as reason:
        return f.Failed(frame.task, "cancelled", f"cancelled {reason}")
    except NotFinite as reason:
        session.learner.not_finite()
        return f.Failed(frame.task, "nonfinite", str(reason))
    except Exception as error:  # noqa: BLE001 - the task boundary: the child lives on, the node learns why
        if (
            process_group.world_size > 1
        ):  # the ranks may be at different places now: all begin anew from their checkpoints
            connection.send(f.Failed(0, "error", describe(error)))
            os._exit(REFUSED)
        return f.Failed(frame.task, "memory" if is_memory(error) else "error", describe(error))


def set_up(connection: ParentConnection, setup: f.SetUp) -> Session | None:
    """Load data and model, or send the node the reason why that can't be done."""
    os.environ["OMP_NUM_THREADS"] = str(setup.settings.threads)  # read once, when torch is imported below
    os.environ.update(mps_watermarks(setup.settings.gpu_memory_utilization))
    limit_memory(setup.settings.memory_limit_mib)
    try:
        endpoint = rendezvous(setup)
        import torch

        from node.trainer.engines.process_group import SINGLE_PROCESS, ProcessGroup
        from node.trainer.worker.session import Session

        torch.set_num_threads(setup.settings.threads)
        process_group = ProcessGroup.join(0, setup.settings.world_size, endpoint) if endpoint else SINGLE_PROCESS
        process_group.broadcast(f.encoded(setup))
        session = Session(setup, process_group=process_group)
    except Exception as error:  # noqa: BLE001 - the task boundary: the child can't work, the node learns why
        connection.send(f.Failed(0, "error", describe(error)))
        return None
    engine = session.engine
    connection.send(f.Ready(engine.parameter_count, str(engine.device), engine.fingerprint, session.counters.round))
    return session


def next_frame(connection: ParentConnection, session: Session | None) -> f.ToChild:
    """Wait for a frame; meanwhile show the other ranks, by an empty `Cancel`, that this one lives."""
    while True:
        try:
            return connection.frames.get(
                timeout=KEEP_ALIVE if session is not None and session.process_group.world_size > 1 else None
            )
        except queue.Empty:
            assert session is not None
            session.process_group.broadcast(f.encoded(f.Cancel(-1)))


def rendezvous(setup: f.SetUp) -> str:
    """Return the endpoint at which the other ranks wait, empty if there are none. Start them, unless they are on other
    machines.

    They load their libraries while this rank loads its own.
    """
    world_size, endpoint = setup.settings.world_size, setup.settings.rendezvous_endpoint
    return (endpoint or start_rank_workers(world_size)) if world_size > 1 else ""


def main(descriptor: int, parent: int) -> int:
    """Serve the node until it says `Bye` or is gone."""
    end_with(parent)
    offer_to_kernel()
    connection = ParentConnection(socket.socket(fileno=descriptor))
    log_to(connection)
    connection.send(f.Hello(os.getpid()))
    threading.Thread(target=connection.read_forever, name="reader", daemon=True).start()
    session: Session | None = None
    while True:
        match next_frame(connection, session):
            case f.SetUp() as setup:
                session = set_up(connection, setup)
                if session is None:
                    return REFUSED
            case f.Bye() as bye:
                if session is not None:
                    session.process_group.broadcast(f.encoded(bye))
                return 0
            case f.Generate() | f.Train() | f.Evaluate() | f.Save() as frame if session is not None:
                connection.send(answer(connection, session, frame))
            case frame:
                raise ValueError(f"a {type(frame).__name__} came before SetUp")


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2])))
