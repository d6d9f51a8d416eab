"""A causal model spread over ranks by FSDP2: each holds a shard of every parameter, gradient and moment.

Micro-batches of an update are sharded over the ranks. Sampling is vLLM's
(`node.trainer.engines.parallel_vllm_sampler`), or done by all ranks alike, blocks gathered one at a time: that goes as
far as the memory, not faster than one rank.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from node.config import TrainerSettings
from node.trainer.engines.causal import CausalEngine
from node.trainer.engines.engine import TrainingGroup
from node.trainer.engines.process_group import ProcessGroup, full_tensor

ResultT = TypeVar("ResultT")


class ShardedRoot(nn.Module):
    """The root that FSDP hooks: whatever runs inside has embedding and output layer at hand."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, work: Callable[[], Any]) -> Any:
        """Return what `work` returns."""
        return work()


class ShardedEngine(CausalEngine):
    """`CausalEngine` with its parameters sharded over a process group."""

    def shard_over(self, process_group: ProcessGroup) -> None:
        """Shard rank 0's parameters; every rank calls this."""
        self.process_group = process_group
        for parameter in self._model.parameters():
            process_group.broadcast_tensor(parameter.data)
        mesh = init_device_mesh(self.device.type, (process_group.world_size,))
        for block in _blocks(self._model):
            fully_shard(block, mesh=mesh)
        self._root = ShardedRoot(self._model)
        # By default a root stays whole from sampling to the next backward pass, where clipping misses it.
        fully_shard(self._root, mesh=mesh, reshard_after_forward=True)

    def decoding(self, work: Callable[[], ResultT]) -> ResultT:
        """Return what `work` returns, run without gradient inside the root; every rank calls this."""

        def prepared() -> ResultT:
            with self._arithmetic(), self._laid_out():
                return work()

        # Not in inference mode: what is gathered in it could not be trained with.
        with torch.no_grad():
            made: ResultT = self._root(prepared)
        return made

    def completion_logps(self, groups: Sequence[TrainingGroup]) -> Tensor:
        """Return, with gradient, the log-probability of every completion token [tokens]."""
        made: Tensor = self._root(lambda: CausalEngine.completion_logps(self, groups))
        return made

    def save(self, directory: Path) -> None:
        """Write the whole model on rank 0, which holds it in memory meanwhile; the others send it their shards."""
        kept: dict[str, Tensor] = {}
        for name, tensor in self._model.state_dict().items():
            whole = full_tensor(tensor.detach())
            if self.process_group.rank == 0 and name not in self._model.all_tied_weights_keys:
                kept[name] = whole.cpu()
        if self.process_group.rank:
            return
        directory.mkdir(parents=True, exist_ok=True)
        save_file(kept, directory / "model.safetensors", metadata={"format": "pt"})
        self._model.config.save_pretrained(str(directory))
        self._vocabulary.tokenizer.save_pretrained(str(directory))

    def _found(self, directory: Path) -> dict[str, Tensor]:
        known = self._model.state_dict()
        return self.process_group.scatter(super()._found(directory) if self.process_group.rank == 0 else {}, known.get)

    def use_float32(self) -> bool:
        """Return False: what is sharded keeps its type."""
        return False


def _blocks(model: Any) -> Iterator[nn.Module]:
    """Return the model's blocks: the modules of its longest list."""
    lists = (module for module in model.modules() if isinstance(module, nn.ModuleList))
    longest: list[nn.Module] = max((list(each.children()) for each in lists), key=len)
    return iter(longest)


def refuse_what_is_not_sharded(settings: TrainerSettings) -> None:
    """Raise ValueError for settings that several ranks do not know, naming what to change."""
    for wrong, key in (
        (settings.lora, "lora = 0"),
        (settings.quantise != "none", 'quantise = "none"'),
        (settings.beta, "beta = 0"),
        (settings.optimizer != "adam", 'optimizer = "adam"'),
        (settings.slowdown, "slowdown = 0"),
        (settings.dtype == "float16", 'dtype = "bfloat16"'),
    ):
        if wrong:
            raise ValueError(f"trainer.world_size: several ranks train whole weights only: set trainer.{key}")
