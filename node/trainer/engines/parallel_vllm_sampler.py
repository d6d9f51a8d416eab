"""Sampling by vLLM over several ranks: each runs it on a shard of every matrix, in step (tensor parallelism).

By its "external launcher" vLLM takes the ranks that train as its own, and all of them schedule the same requests.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from node.trainer.engines.sampler import ServedModel
from node.trainer.engines.vllm_sampler import ENVIRONMENT, VllmSampler
from node.trainer.rank_environment import torchrun_variables

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where the CPU build's ranks meet, no file of ours


class ParallelVllmSampler(VllmSampler):
    """`VllmSampler` over the ranks of the model's process group.

    Weights are handed over one at a time, gathered by all ranks; each rank's vLLM keeps its shard.
    """

    def __init__(self, model: ServedModel) -> None:
        """Serve a sharded model. Raises ValueError if vLLM can't share its heads out to so many ranks."""
        super().__init__(model)
        ranks, shape = model.process_group, model.shape
        os.environ.update(torchrun_variables(ranks.rank, ranks.world_size, ranks.rendezvous_endpoint))
        if not divides_heads(ranks.world_size, shape.heads, shape.key_value_heads):
            heads = f"{shape.heads} heads ({shape.key_value_heads} of keys and values)"
            raise ValueError(
                f"trainer.world_size: vLLM can't share {heads} out to {ranks.world_size} ranks: "
                'set trainer.engine = "hf", or another number of ranks'
            )

    def wake(self) -> None:
        """Make ready to sample. If that fails on one rank, raise on all of them, and start anew the next time."""
        fault: Exception | None = None
        try:
            super().wake()
        except Exception as error:  # noqa: BLE001 - a library's start, raised again once the others know
            fault = error
        if self._model.process_group.all_reduce(float(fault is not None)):
            self._llm = None
            raise fault or RuntimeError("vLLM did not start on another rank")

    def _start(self) -> Any:
        os.environ.update({key: value for key, value in ENVIRONMENT.items() if key not in os.environ})
        if self._model.device.type != "cpu":
            return super()._start()
        name = self._model.process_group.broadcast(os.urandom(8).hex().encode()).decode()
        _name_shared_memory(name)
        llm = super()._start()
        for mapped in SHARED_MEMORY.glob(f"{name}-*"):  # all ranks have mapped it: its name is not needed any more
            mapped.unlink(missing_ok=True)
        return llm


def divides_heads(world_size: int, heads: int, key_value_heads: int) -> bool:
    """Return True if vLLM can share so many heads out: each rank has equally many, those of keys and values or one."""
    return not heads % world_size and not (key_value_heads % world_size and world_size % key_value_heads)


def _name_shared_memory(name: str) -> None:
    """Have the CPU build's ranks share memory of this name, which no other process uses.

    All external launchers of a machine have one name otherwise: a second one, or what a killed one left, is in the way.
    """
    from vllm.v1.executor.uniproc_executor import ExecutorWithExternalLauncher

    ExecutorWithExternalLauncher._distributed_args = lambda _: (f"env://:{name}", int(os.environ["RANK"]), 0)
