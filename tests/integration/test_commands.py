"""Commands as processes: what an operator and an init system see."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from node.exits import Exit

pytestmark = pytest.mark.integration

SECONDS = 30.0
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("SWARM_")}
BOOTNODE = ("bootnode", "--listen", "/ip4/127.0.0.1/tcp/0", "--log-format", "json")


def started(*args: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", "from node.cli import main; main()", *args]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)


def until(holds: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + SECONDS
    while not holds():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_bootnode_tells_its_addresses_and_ends_on_sigterm(tmp_path: Path) -> None:
    """bootnode.json names dialable addresses; a second one on the directory is refused; SIGTERM ends it with 0.

    Its log is one JSON object per line, and it keeps its peer id over a restart.
    """
    ids = set()
    for _ in range(2):
        process = started(*BOOTNODE, "--data-dir", str(tmp_path))
        try:
            until((tmp_path / "bootnode.json").exists, process)
            content = json.loads((tmp_path / "bootnode.json").read_text())
            second = started(*BOOTNODE, "--data-dir", str(tmp_path))
            output, errors = second.communicate(timeout=SECONDS)
            assert second.returncode == Exit.LOCKED
            assert errors.startswith("swarm: ")
            assert str(process.pid) in errors
            assert errors.count("\n") == 1
        finally:
            process.send_signal(signal.SIGTERM)
            output, errors = process.communicate(timeout=SECONDS)
        assert process.returncode == Exit.OK, errors
        assert content["pid"] == process.pid
        (address,) = content["addresses"]
        assert address.startswith("/ip4/127.0.0.1/tcp/")
        ids.add(address.rpartition("/p2p/")[2])
        assert "bootnode.started" in {json.loads(line)["event"] for line in output.splitlines()}
        assert not (tmp_path / "bootnode.json").exists()
    assert len(ids) == 1


def test_an_address_that_is_taken_ends_a_bootnode_in_one_line(tmp_path: Path) -> None:
    """With another program on its port, it says so and ends with the code for the network."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"/ip4/127.0.0.1/tcp/{other.getsockname()[1]}"
        process = started("bootnode", "--listen", address, "--data-dir", str(tmp_path))
        try:
            _, errors = process.communicate(timeout=SECONDS)
        finally:
            process.kill()
    assert (process.returncode, errors.count("\n")) == (Exit.NETWORK, 1), errors
    assert address in errors
