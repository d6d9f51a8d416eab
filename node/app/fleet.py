"""One peer per GPU under one process: `swarm run --gpus all`.

Each peer is a whole node with a key, a directory and ports of its own; it shares the configuration and the manifest of
the directory above it. A peer that fails is restarted with back-off; the others go on.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec
import structlog
import trio

from node.child_process import SAFE_PATH
from node.config import FILE, Config
from node.exits import WORTH_A_RESTART, Exit, Refusal
from node.identity.secret import SECRET_VARIABLES
from node.runtime.supervisor import RESTART

log = structlog.get_logger()

VISIBLE = "CUDA_VISIBLE_DEVICES"
NOT_PASSED = frozenset({"SWARM_DATA_DIR", "SWARM_HTTP_PORT", *SECRET_VARIABLES})
"""Variables that a peer does not get."""

_TCP = re.compile(r"/(tcp|udp)/(\d+)")


class FleetMember(msgspec.Struct, frozen=True):
    """One peer: its directory, what it adds to the environment, the flags of its `swarm run`."""

    name: str
    directory: Path
    environment: dict[str, str]
    flags: tuple[str, ...]


# --- plan -------------------------------------------------------------------------------------------------------------


def count_gpus() -> int:
    """Return how many NVIDIA GPUs the driver lists; 0 where there is no driver."""
    try:
        listed = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return 0
    return sum(line.startswith("GPU ") for line in listed.stdout.splitlines())


def chosen_gpus(choice: str, count: int, visible: str) -> list[str]:
    """Return the GPUs, as CUDA names them, of "all" or of numbers such as "0,2".

    `visible` is what CUDA_VISIBLE_DEVICES says (empty: all `count`); numbers count among these. Raises `Refusal`.
    """
    known = [each.strip() for each in visible.split(",") if each.strip()] or [str(number) for number in range(count)]
    if not known:
        raise Refusal(Exit.USAGE, "--gpus: no NVIDIA GPU is found (nvidia-smi lists none); run without --gpus")
    if choice == "all":
        return known
    numbers = [part.strip() for part in choice.split(",")]
    if not all(part.isdecimal() and int(part) < len(known) for part in numbers) or len(set(numbers)) < len(numbers):
        raise Refusal(
            Exit.USAGE, f"--gpus {choice}: write all, or numbers from 0 to {len(known) - 1} with commas between them"
        )
    return [known[int(part)] for part in numbers]


def plan_peers(gpus: Sequence[str], home: Path, config: Config, flags: Sequence[str]) -> list[FleetMember]:
    """Return a peer for each GPU below `home`; ports count up from the configured ones (0 stays 0).

    `flags` are those that the operator gave. Raises `Refusal` where all peers would have one and the same key.
    """
    if Path(config.identity).is_absolute():
        raise Refusal(
            Exit.CONFIG, f"identity {config.identity} can't be the key of several peers; leave it away with --gpus"
        )
    return [
        FleetMember(
            name=f"gpu-{gpu}",
            directory=home / f"gpu-{gpu}",
            environment={VISIBLE: gpu},
            flags=(*flags, "--http-port", str(_port(config.http.port, number)), *_listening(config, number)),
        )
        for number, gpu in enumerate(gpus)
    ]


def _port(port: int, number: int) -> int:
    return port + number if port else 0


def _listening(config: Config, number: int) -> list[str]:
    def moved(found: re.Match[str]) -> str:
        return f"/{found[1]}/{_port(int(found[2]), number)}"

    return [part for address in config.gossip.listen for part in ("--listen", _TCP.sub(moved, address))]


def prepare(peer: FleetMember, home: Path, config: Config) -> None:
    """Make a peer's directory: configuration and manifest lead to those above, so that a change there reaches all."""
    peer.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name in (FILE, config.manifest):
        link = peer.directory / name
        if not link.exists() and not Path(name).is_absolute():
            link.unlink(missing_ok=True)
            link.symlink_to(Path(os.path.relpath(home / name, link.parent)))


# --- supervision ------------------------------------------------------------------------------------------------------


class Fleet:
    """Runs peers until all have ended by themselves or a signal says so."""

    def __init__(self, peers: Sequence[FleetMember], command: Callable[[FleetMember], Sequence[str]]) -> None:
        self._peers, self._command = peers, command
        self._running: dict[str, trio.Process] = {}
        self._codes: dict[str, int] = {}
        self._stopping = trio.Event()

    async def run(self) -> int:
        """Return 0 where every peer ended as asked, else the first exit code that says otherwise."""
        async with trio.open_nursery() as everything:
            everything.start_soon(self._pass_signals_on)
            async with trio.open_nursery() as peers:
                for peer in self._peers:
                    peers.start_soon(self._keep, peer)
            everything.cancel_scope.cancel()
        return next((code for peer in self._peers if (code := self._codes[peer.name])), int(Exit.OK))

    async def _pass_signals_on(self) -> None:
        """SIGTERM and SIGINT stop all peers; SIGUSR1 has them finish their stage. None is restarted after either."""
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGUSR1) as received:
            async for number in received:
                self._stopping.set()
                for process in self._running.values():
                    process.send_signal(signal.SIGTERM if number == signal.SIGINT else signal.Signals(number))

    async def _keep(self, peer: FleetMember) -> None:
        """Start a peer, and start it again where that may help: after a signal, and after some exit codes."""
        failures = 0
        while True:
            began = trio.current_time()
            code = await self._once(peer)
            asked = self._stopping.is_set() and code == -signal.SIGTERM
            self._codes[peer.name] = 0 if asked else code
            log.info("peer.ended", peer=peer.name, code=code)
            if self._stopping.is_set() or (code >= 0 and code not in WORTH_A_RESTART):
                return
            failures = RESTART.count(failures, trio.current_time() - began)
            pause = RESTART.pause(failures)
            log.warning("peer.failed", peer=peer.name, code=code, restart_in=pause)
            with trio.move_on_after(pause):
                await self._stopping.wait()
                return

    async def _once(self, peer: FleetMember) -> int:
        process = await trio.lowlevel.open_process(self._command(peer), env=environment_of(peer, os.environ))
        self._running[peer.name] = process
        log.info("peer.started", peer=peer.name, pid=process.pid, directory=str(peer.directory))
        if self._stopping.is_set():
            process.terminate()
        try:
            return await process.wait()
        finally:
            del self._running[peer.name]


def environment_of(peer: FleetMember, environ: Mapping[str, str]) -> dict[str, str]:
    """Return a peer's environment.

    A data directory or port that the environment names is not its own; the owner's secrets are no node's business.
    """
    kept = {key: value for key, value in environ.items() if key not in NOT_PASSED}
    return kept | SAFE_PATH | peer.environment
