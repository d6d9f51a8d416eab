"""A rank that follows the trainer's child: `python -m node.trainer.follower`, with torchrun's variables.

    RANK=1 WORLD_SIZE=2 MASTER_ADDR=10.0.0.1 MASTER_PORT=29500 python -m node.trainer.follower

The child starts those on its own machine; on other machines the operator does. Model and data lie under the same paths
everywhere. It does what rank 0 does, writes its checkpoints beside rank 0's under its own name, and ends with it.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys

from node.trainer import frames as f
from node.trainer.worker import carry_out, die_with


def follow(rank: int, world: int, rendezvous: str) -> int:
    """Meet the others, then do what rank 0 says until it says `Bye`; where it is gone, torch's error ends this."""
    import torch

    from node.trainer.engine import Cancelled, NotFinite
    from node.trainer.gang import Gang
    from node.trainer.session import Desk, Session

    gang = Gang.meet(rank, world, rendezvous)
    session: Session | None = None
    desk = Desk(gang.same_answer(lambda: False), lambda done, total: None)
    while True:
        match f.to_child.decode(gang.tell(b"")):
            case f.SetUp() as setup:
                torch.set_num_threads(setup.settings.threads)
                own = f.SetUp(setup.settings, setup.manifest, setup.peer, f"{setup.directory}-rank-{rank}")
                session = Session(own, gang=gang)
            case f.Bye():
                return 0
            case f.Cancel():
                pass
            case frame if session is not None:
                try:
                    carry_out(session, frame, desk)
                except Cancelled:
                    pass
                except NotFinite:
                    session.learner.not_finite()


def start_followers(world: int) -> str:
    """Start all ranks but the first on this machine; return where they wait for it."""
    place = free_rendezvous()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    for rank in range(1, world):
        environment = follower_environment(rank, world, place, visible)
        environment["SWARM_FOLLOWS"] = str(os.getpid())
        subprocess.Popen([sys.executable, "-m", "node.trainer.follower"], env=environment, stdout=sys.stderr)
    return place


def free_rendezvous() -> str:
    """Return an address of this machine at which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def follower_environment(rank: int, world: int, rendezvous: str, visible: str) -> dict[str, str]:
    """Return the environment of a follower on this machine: torchrun's variables, and a GPU of its own."""
    host, _, port = rendezvous.rpartition(":")
    gpus = visible.split(",") if visible else [str(number) for number in range(world)]
    return {
        **os.environ, "RANK": str(rank), "WORLD_SIZE": str(world), "MASTER_ADDR": host, "MASTER_PORT": port,
        "CUDA_VISIBLE_DEVICES": gpus[rank % len(gpus)],
    }  # fmt: skip


def main() -> int:
    """Follow as the environment says."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if "SWARM_FOLLOWS" in os.environ:
        die_with(int(os.environ["SWARM_FOLLOWS"]))
    known = os.environ
    return follow(int(known["RANK"]), int(known["WORLD_SIZE"]), f"{known['MASTER_ADDR']}:{known['MASTER_PORT']}")


if __name__ == "__main__":
    sys.exit(main())
