"""Several peers under one process, here small programs."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest
import trio

from node.app import fleet as module
from node.app.fleet import Fleet, FleetMember, plan_peers
from node.backoff import Backoff
from node.config import Config

pytestmark = pytest.mark.integration

WAIT = """
import signal, sys, time
signal.signal(signal.SIGUSR1, lambda *_: sys.exit(0))
open(sys.argv[1], 'a').write('x')
time.sleep(60)
"""
FAIL_ONCE = (
    "import sys; f = open(sys.argv[1], 'a'); f.write('x'); f.close(); sys.exit(len(open(sys.argv[1]).read()) < 2)"
)
REFUSE = "import os, sys; open(sys.argv[1], 'a').write('x' + os.environ['CUDA_VISIBLE_DEVICES']); sys.exit(3)"


async def fleet(programs: list[str], home: Path) -> Fleet:
    peers = plan_peers([str(number) for number in range(len(programs))], home, Config(), [])
    by_name = {peer.name: program for peer, program in zip(peers, programs, strict=True)}

    def command(peer: FleetMember) -> list[str]:
        return [sys.executable, "-c", by_name[peer.name], str(home / peer.name)]

    return Fleet(peers, command)


async def started(*files: Path) -> None:
    with trio.fail_after(20):
        for file in files:
            while not (file.exists() and file.read_text()):  # noqa: ASYNC110 - another process writes it
                await trio.sleep(0.02)


async def test_a_failed_peer_is_started_again_and_a_refusal_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exit code is that of the peer that declined; each saw its own GPU."""
    monkeypatch.setattr(module, "RESTART", Backoff(first=0.05, longest=0.05))
    with trio.fail_after(20):
        assert await (await fleet([FAIL_ONCE, REFUSE], tmp_path)).run() == 3
    assert (tmp_path / "gpu-0").read_text() == "xx"
    assert (tmp_path / "gpu-1").read_text() == "x1"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGUSR1, 0)])
async def test_signals_reach_every_peer(tmp_path: Path, number: signal.Signals, code: int) -> None:
    """Told to stop or to drain, all peers end, and none is started again."""
    running = await fleet([WAIT, WAIT], tmp_path)
    codes: list[int] = []

    async def run() -> None:
        codes.append(await running.run())

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            await started(tmp_path / "gpu-0", tmp_path / "gpu-1")
            await trio.sleep(0.1)
            os.kill(os.getpid(), number)
    assert codes == [code]
