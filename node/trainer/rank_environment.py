"""Several processes that train one model: who starts them, their rendezvous, which GPU each sees. Loads no torch."""

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


def start_rank_workers(world_size: int) -> str:
    """Start all ranks but rank 0 on this machine; return the rendezvous endpoint at which they wait for it."""
    endpoint = free_endpoint()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    for rank in range(1, world_size):
        environment = rank_worker_environment(rank, world_size, endpoint, visible)
        environment["SWARM_RANK_0"] = str(os.getpid())
        subprocess.Popen([sys.executable, "-m", "node.trainer.worker.rank_worker"], env=environment, stdout=sys.stderr)
    return endpoint


def free_endpoint() -> str:
    """Return a "host:port" of this machine at which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def rank_worker_environment(rank: int, world_size: int, rendezvous_endpoint: str, visible: str) -> dict[str, str]:
    """Return the environment of a rank worker on this machine: torchrun's variables, and a GPU of its own."""
    place = torchrun_variables(rank, world_size, rendezvous_endpoint)
    gpu = nth_gpu(rank, visible)
    return child_environment(os.environ, PASSED, CUDA_VISIBLE_DEVICES=gpu, **place)


def torchrun_variables(rank: int, world_size: int, rendezvous_endpoint: str) -> dict[str, str]:
    """Return the variables that torchrun sets. LOCAL_RANK is 0: the one GPU that a process sees is its first."""
    host, _, port = rendezvous_endpoint.rpartition(":")
    return {
        "RANK": str(rank), "LOCAL_RANK": "0", "WORLD_SIZE": str(world_size), "MASTER_ADDR": host, "MASTER_PORT": port
    }  # fmt: skip


def nth_gpu(number: int, visible: str) -> str:
    """Return the GPU, as CUDA names it, of the `number`-th process on a machine; `visible` is CUDA_VISIBLE_DEVICES."""
    gpus = visible.split(",") if visible else []
    return gpus[number % len(gpus)] if gpus else str(number)
