"""Several processes that train one model: who starts them, where they meet, which GPU each sees. Loads no torch."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

from node.child_process import COMPUTE, DOWNLOAD, child_environment

PASSED = (*COMPUTE, *DOWNLOAD, "HF_TOKEN_PATH")
"""What the trainer's processes get of the environment.

Not HF_TOKEN: where a model needs a token, that of `hf auth login` is read from its file.
"""


def start_followers(world: int) -> str:
    """Start all ranks but the first on this machine; return where they wait for it."""
    place = free_rendezvous()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    for rank in range(1, world):
        environment = follower_environment(rank, world, place, visible)
        environment["SWARM_FOLLOWS"] = str(os.getpid())
        subprocess.Popen([sys.executable, "-m", "node.trainer.worker.rank_worker"], env=environment, stdout=sys.stderr)
    return place


def free_rendezvous() -> str:
    """Return an address of this machine at which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def follower_environment(rank: int, world: int, rendezvous: str, visible: str) -> dict[str, str]:
    """Return the environment of a follower on this machine: torchrun's variables, and a GPU of its own."""
    place = torchrun_variables(rank, world, rendezvous)
    gpu = nth_gpu(rank, visible)
    return child_environment(os.environ, PASSED, CUDA_VISIBLE_DEVICES=gpu, **place)


def torchrun_variables(rank: int, world: int, rendezvous: str) -> dict[str, str]:
    """Return what torchrun tells a process; the GPU it sees is its own, and so the first one."""
    host, _, port = rendezvous.rpartition(":")
    return {
        "RANK": str(rank), "LOCAL_RANK": "0", "WORLD_SIZE": str(world), "MASTER_ADDR": host, "MASTER_PORT": port
    }  # fmt: skip


def nth_gpu(number: int, visible: str) -> str:
    """Return the GPU, as CUDA names it, of the `number`-th process on a machine; `visible` is CUDA_VISIBLE_DEVICES."""
    gpus = visible.split(",") if visible else []
    return gpus[number % len(gpus)] if gpus else str(number)
