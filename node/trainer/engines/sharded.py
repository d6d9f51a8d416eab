"""A causal model spread over ranks by FSDP2: each holds a share of every parameter, gradient and moment.

Updates are dealt out, part by part. Sampling is vLLM's (`node.trainer.engines.vllm_engine`), or done by all ranks
alike, blocks gathered one at a time: that goes as far as the memory, not faster than one rank.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from node.config import TrainerSettings
from node.trainer.engines.causal import CausalEngine
from node.trainer.engines.engine import Sample, TrainingGroup
from node.trainer.engines.process_group import SINGLE_PROCESS, ProcessGroup, full_tensor


class ShardedRoot(nn.Module):
    """The root that FSDP hooks: whatever runs inside has embedding and output layer at hand."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, work: Callable[[], Any]) -> Any:
        """Return what `work` returns."""
        return work()


class ShardedEngine(CausalEngine):
    """`CausalEngine` with its parameters spread over a gang."""

    _process_group = SINGLE_PROCESS

    def spread_over(self, process_group: ProcessGroup) -> None:
        """Spread rank 0's parameters; every rank calls this."""
        self._process_group = process_group
        for parameter in self._model.parameters():
            process_group.broadcast_tensor(parameter.data)
        self._agree = process_group.broadcast_tensor
        self._without_gradient = torch.no_grad  # what is gathered in inference mode could not be trained with
        mesh = init_device_mesh(self.device.type, (process_group.world_size,))
        for block in _blocks(self._model):
            fully_shard(block, mesh=mesh)
        self._whole = ShardedRoot(self._model)
        # Said, since a root stays whole by default from sampling to the next backward pass, where clipping misses it.
        fully_shard(self._whole, mesh=mesh, reshard_after_forward=True)

    def sample(
        self,
        questions: Sequence[str],
        group: int,
        rng: torch.Generator,
        cancelled: Callable[[], bool],
        *,
        greedy: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[list[Sample]]:
        """Sample on every rank alike."""

        def work() -> list[list[Sample]]:
            return CausalEngine.sample(self, questions, group, rng, cancelled, greedy=greedy, progress=progress)

        with torch.no_grad():
            made: list[list[Sample]] = self._whole(work)
        return made

    def completion_logps(self, groups: Sequence[TrainingGroup]) -> Tensor:
        """Return, with gradient, the log-probability of every completion token [tokens]."""
        made: Tensor = self._whole(lambda: CausalEngine.completion_logps(self, groups))
        return made

    def save(self, directory: Path) -> None:
        """Write the whole model on rank 0, which holds it in memory meanwhile; the others give it their shares."""
        kept: dict[str, Tensor] = {}
        for name, tensor in self._model.state_dict().items():
            whole = full_tensor(tensor.detach())
            if self._process_group.rank == 0 and name not in self._model.all_tied_weights_keys:
                kept[name] = whole.cpu()
        if self._process_group.rank:
            return
        directory.mkdir(parents=True, exist_ok=True)
        save_file(kept, directory / "model.safetensors", metadata={"format": "pt"})
        self._model.config.save_pretrained(str(directory))
        self._vocabulary.tokenizer.save_pretrained(str(directory))

    def _found(self, directory: Path) -> dict[str, Tensor]:
        known = self._model.state_dict()
        return self._process_group.scatter(
            super()._found(directory) if self._process_group.rank == 0 else {}, known.get
        )

    def use_float32(self) -> bool:
        """Return False: what is spread keeps its type."""
        return False


def _blocks(model: Any) -> Iterator[nn.Module]:
    """Return the model's blocks: the modules of its longest list."""
    lists = (module for module in model.modules() if isinstance(module, nn.ModuleList))
    longest: list[nn.Module] = max((list(each.children()) for each in lists), key=len)
    return iter(longest)


def refuse_what_is_not_spread(settings: TrainerSettings) -> None:
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
