"""A rank other than 0. The trainer's child, rank 0, starts those on its own machine. On another machine the operator
starts them, by torchrun, which starts them again when the child was lost and comes back:

    torchrun --nproc-per-node 2 --max-restarts 1000 -m node.trainer.worker.rank_worker FLAGS

FLAGS are `--first-rank 2 --world-size 4 --rendezvous-endpoint 10.0.0.1:29500`. Without them it takes RANK, WORLD_SIZE,
MASTER_ADDR and MASTER_PORT from the environment. Model and data lie under the same paths everywhere. It does what rank
0 does, writes nothing, and ends with it.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Mapping, Sequence

from node.child_process import end_with
from node.errors import describe
from node.trainer import messages as f
from node.trainer.rank_environment import nth_gpu, torchrun_variables
from node.trainer.worker.main import carry_out


def run_rank(rank: int, world_size: int, rendezvous_endpoint: str) -> int:
    """Join the process group and do what rank 0 broadcasts until `Bye`. Raises RuntimeError if rank 0 is gone."""
    import torch

    from node.trainer.engines.engine import Cancelled, NotFinite
    from node.trainer.engines.process_group import ProcessGroup
    from node.trainer.worker.session import Session, TaskContext

    process_group = ProcessGroup.join(rank, world_size, rendezvous_endpoint)
    session: Session | None = None
    task = TaskContext(process_group.broadcast_answer(lambda: False), lambda done, total: None)
    while True:
        match f.to_child.decode(process_group.broadcast(b"")):
            case f.SetUp() as setup:
                torch.set_num_threads(setup.settings.threads)
                session = Session(setup, process_group=process_group)
            case f.Bye():
                return 0
            case f.Cancel():
                pass
            case frame if session is not None:
                try:
                    carry_out(session, frame, task)
                except Cancelled:
                    pass
                except NotFinite:
                    session.learner.not_finite()


def rank_and_endpoint(arguments: Sequence[str], environ: Mapping[str, str]) -> tuple[int, int, str]:
    """Return rank, world size and rendezvous endpoint: from flags if they are given, else from torchrun's variables."""
    flags = argparse.ArgumentParser(prog="python -m node.trainer.worker.rank_worker")
    flags.add_argument(
        "--first-rank", type=int, metavar="N", help="rank of the first process that torchrun starts here"
    )
    flags.add_argument("--world-size", type=int, metavar="N", help="number of all ranks: trainer.world_size")
    flags.add_argument("--rendezvous-endpoint", metavar="HOST:PORT", help="trainer.rendezvous_endpoint")
    given = flags.parse_args(arguments)
    if given.first_rank is None:
        endpoint = f"{environ['MASTER_ADDR']}:{environ['MASTER_PORT']}"
        return int(environ["RANK"]), int(environ["WORLD_SIZE"]), endpoint
    if not given.world_size or not given.rendezvous_endpoint:
        flags.error("--first-rank, --world-size and --rendezvous-endpoint go together")
    return given.first_rank + int(environ.get("LOCAL_RANK", "0")), given.world_size, given.rendezvous_endpoint


def main(arguments: Sequence[str]) -> int:
    """Run the rank that flags or environment name."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    rank, world_size, rendezvous_endpoint = rank_and_endpoint(arguments, os.environ)
    if "SWARM_RANK_0" in os.environ:
        end_with(int(os.environ["SWARM_RANK_0"]))
    else:
        gpu = nth_gpu(int(os.environ.get("LOCAL_RANK", "0")), os.environ.get("CUDA_VISIBLE_DEVICES", ""))
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    # By default the rendezvous would be the store of torchrun's agent, which rank 0 does not join.
    os.environ.pop("TORCHELASTIC_USE_AGENT_STORE", None)
    os.environ.update(torchrun_variables(rank, world_size, rendezvous_endpoint))
    try:
        return run_rank(rank, world_size, rendezvous_endpoint)
    except RuntimeError as error:  # torch for a line that broke, in the end: rank 0 is gone
        sys.stderr.write(f"rank {rank} ends: {describe(error)}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
