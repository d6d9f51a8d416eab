"""A rank that follows the trainer's child. The child starts those on its own machine; on another one the operator does,
by torchrun, which starts them again when the child comes back from a loss:

    torchrun --nproc-per-node 2 --max-restarts 1000 -m node.trainer.worker.rank_worker --first 2 --ranks 4 --meet
    10.0.0.1:29500

Without flags it takes RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT from the environment. Model and data lie under the
same paths everywhere. It does what rank 0 does, writes nothing, and ends with it.
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


def follow(rank: int, world: int, rendezvous: str) -> int:
    """Meet the others, then do what rank 0 says until it says `Bye`; raises torch's RuntimeError where it is gone."""
    import torch

    from node.trainer.engines.engine import Cancelled, NotFinite
    from node.trainer.engines.process_group import ProcessGroup
    from node.trainer.worker.session import Session, TaskContext

    gang = ProcessGroup.meet(rank, world, rendezvous)
    session: Session | None = None
    desk = TaskContext(gang.same_answer(lambda: False), lambda done, total: None)
    while True:
        match f.to_child.decode(gang.tell(b"")):
            case f.SetUp() as setup:
                torch.set_num_threads(setup.settings.threads)
                session = Session(setup, gang=gang)
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


def place_of(arguments: Sequence[str], environ: Mapping[str, str]) -> tuple[int, int, str]:
    """Return rank, number of ranks and rendezvous, from flags where they are given, else from torchrun's variables."""
    flags = argparse.ArgumentParser(prog="python -m node.trainer.worker.rank_worker")
    flags.add_argument("--first", type=int, metavar="N", help="rank of the first process that torchrun starts here")
    flags.add_argument("--ranks", type=int, metavar="N", help="all ranks, as trainer.ranks says")
    flags.add_argument("--meet", metavar="HOST:PORT", help="as trainer.rendezvous says")
    given = flags.parse_args(arguments)
    if given.first is None:
        there = f"{environ['MASTER_ADDR']}:{environ['MASTER_PORT']}"
        return int(environ["RANK"]), int(environ["WORLD_SIZE"]), there
    if not given.ranks or not given.meet:
        flags.error("--first, --ranks and --meet go together")
    return given.first + int(environ.get("LOCAL_RANK", "0")), given.ranks, given.meet


def main(arguments: Sequence[str]) -> int:
    """Follow as flags or environment say."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    rank, world, rendezvous = place_of(arguments, os.environ)
    if "SWARM_FOLLOWS" in os.environ:
        end_with(int(os.environ["SWARM_FOLLOWS"]))
    else:
        gpu = nth_gpu(int(os.environ.get("LOCAL_RANK", "0")), os.environ.get("CUDA_VISIBLE_DEVICES", ""))
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    # torchrun would have its own agent's store be the meeting place, where rank 0 is not.
    os.environ.pop("TORCHELASTIC_USE_AGENT_STORE", None)
    os.environ.update(torchrun_variables(rank, world, rendezvous))
    try:
        return follow(rank, world, rendezvous)
    except RuntimeError as error:  # torch for a line that broke, in the end: rank 0 is gone
        sys.stderr.write(f"rank {rank} ends: {describe(error)}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
