"""vLLM over several ranks: each runs the engine on a share of every matrix, in step.

By its "external launcher" vLLM takes the ranks that train as its own, and all of them schedule the same requests.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from node.trainer.engines.process_group import ProcessGroup
from node.trainer.engines.sharded import ShardedEngine
from node.trainer.engines.vllm_engine import ENVIRONMENT, VllmEngine
from node.trainer.memory.placement import shape_of
from node.trainer.rank_environment import torchrun_variables

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where the CPU build's ranks meet, no file of ours


class ParallelVllmEngine(VllmEngine, ShardedEngine):
    """A spread model that vLLM samples from by tensor parallelism over the same ranks; updates are `ShardedEngine`'s.

    Weights are handed over one at a time, gathered by all ranks; each rank's vLLM keeps its share.
    """

    def spread_over(self, process_group: ProcessGroup) -> None:
        """Spread rank 0's parameters. Raises ValueError where vLLM can't deal out the heads but was asked for."""
        super().spread_over(process_group)
        shape = shape_of(self._model.config)
        self._world_size = process_group.world_size
        os.environ.update(
            torchrun_variables(process_group.rank, process_group.world_size, process_group.rendezvous_endpoint)
        )
        if not deals_out(process_group.world_size, shape.heads, shape.key_value_heads):
            heads = f"{shape.heads} heads ({shape.key_value_heads} of keys and values)"
            reason = f"vLLM can't deal out {heads} to {process_group.world_size} ranks"
            if not self.optional:
                raise ValueError(f'trainer.world_size: {reason}: set trainer.engine = "hf", or another number of ranks')
            self._do_without(reason)

    def _start_engine(self) -> Any:
        os.environ.update({key: value for key, value in ENVIRONMENT.items() if key not in os.environ})
        if self.device.type != "cpu":
            return super()._start_engine()
        word = self._process_group.broadcast(os.urandom(8).hex().encode()).decode()
        _name_shared_memory(word)
        llm = super()._start_engine()
        for mapped in SHARED_MEMORY.glob(f"{word}-*"):  # by all: its name is not needed any more
            mapped.unlink(missing_ok=True)
        return llm

    def _awake(self) -> Any:
        """Return the engine with the current weights; where one rank has none, raise on all."""
        fault: Exception | None = None
        try:
            super()._awake()
        except Exception as error:  # noqa: BLE001 - a library's start, raised again once the others know
            fault = error
        if self._process_group.all_reduce(float(fault is not None)):
            self._llm = None
            raise fault or RuntimeError("vLLM did not start on another rank")
        return self._llm


def deals_out(world_size: int, heads: int, key_value_heads: int) -> bool:
    """Tell whether vLLM can deal out so many heads: each rank has equally many, those of keys and values or one."""
    return not heads % world_size and not (key_value_heads % world_size and world_size % key_value_heads)


def _name_shared_memory(word: str) -> None:
    """Have the CPU build's ranks share memory of this name, a word of their own.

    All external launchers of a machine have one name otherwise: a second one, or what a killed one left, is in the way.
    """
    from vllm.v1.executor.uniproc_executor import ExecutorWithExternalLauncher

    ExecutorWithExternalLauncher._distributed_args = lambda _: (f"env://:{word}", int(os.environ["RANK"]), 0)
