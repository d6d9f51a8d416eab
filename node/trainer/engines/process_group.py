"""Several processes that train one model together: what they tell each other.

Rank 0 is the trainer's child and has the line to the node; the others follow (`node.trainer.worker.rank_worker`).
All run the same code on the same frames, so that collective operations meet; whatever could differ between them (was
a task given up, what time is it, which token was drawn) is rank 0's word.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import TypeVar

import msgspec
import torch
import torch.distributed as dist
from torch import Tensor

PartT = TypeVar("PartT")

PATIENCE = timedelta(minutes=5)
"""A rank that does not meet the others for so long is lost; rank 0 speaks more often than that."""


class ProcessGroup:
    """The ranks. A gang of one talks to nobody."""

    def __init__(self, rank: int = 0, world: int = 1, rendezvous: str = "") -> None:
        self.rank, self.world, self.rendezvous = rank, world, rendezvous

    @classmethod
    def meet(cls, rank: int, world: int, rendezvous: str) -> ProcessGroup:
        """Meet the other ranks at rank 0's "host:port" (what torchrun calls MASTER_ADDR and MASTER_PORT)."""
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(
            backend, init_method=f"tcp://{rendezvous}", rank=rank, world_size=world, timeout=PATIENCE
        )
        return cls(rank, world, rendezvous)

    def tell(self, message: bytes) -> bytes:
        """Return rank 0's message on every rank."""
        if self.world == 1:
            return message
        # As numbers, not by torch's object collectives: these unpickle what comes over the network.
        length = int(self.agreed(float(len(message))))
        box = torch.frombuffer(bytearray(message), dtype=torch.uint8) if self.rank == 0 else _empty("uint8", [length])
        return self.agreed_on(box).numpy().tobytes()

    def agreed(self, value: float) -> float:
        """Return rank 0's value on every rank."""
        if self.world == 1:
            return value
        shared = torch.tensor([value], dtype=torch.float64)
        dist.broadcast(shared, 0)
        return float(shared.item())

    def agreed_on(self, tensor: Tensor) -> Tensor:
        """Return rank 0's tensor, of a shape that is the same everywhere, on every rank."""
        if self.world > 1:
            dist.broadcast(tensor, 0)
        return tensor

    def dealt(self, whole: Mapping[str, Tensor], like: Callable[[str], Tensor | None]) -> dict[str, Tensor]:
        """Return rank 0's tensors on every rank, each spread as `like(name)` is, whole where that is not spread.

        The other ranks give nothing, and hold one of them whole at a time.
        """
        layout = {name: (str(each.dtype).removeprefix("torch."), list(each.shape)) for name, each in whole.items()}
        told = msgspec.json.decode(self.tell(msgspec.json.encode(layout)), type=dict[str, tuple[str, list[int]]])
        return {name: self._share(whole.get(name, _empty(*form)), like(name)) for name, form in told.items()}

    def _share(self, value: Tensor, like: Tensor | None) -> Tensor:
        if like is None or not hasattr(like, "full_tensor") or value.shape != like.shape:
            return self.agreed_on(value)
        # Imported here: it takes 0.7 s of every start, and most nodes have one rank.
        from torch.distributed.tensor import DTensor, distribute_tensor

        assert isinstance(like, DTensor)
        return distribute_tensor(value.to(like.device), like.device_mesh, like.placements)

    def total(self, value: float) -> float:
        """Return the sum of all ranks' values on every rank."""
        if self.world == 1:
            return value
        shared = torch.tensor([value], dtype=torch.float64)
        dist.all_reduce(shared)
        return float(shared.item())

    def rows(self, parts: Sequence[PartT]) -> Iterator[tuple[Sequence[PartT], PartT, bool]]:
        """Deal parts to ranks, as many at a time as there are ranks: yield what all do now, what this one does, and
        whether that counts (where parts run out, a rank repeats one for nothing: collective operations must meet)."""
        for start in range(0, len(parts), self.world):
            row = parts[start : start + self.world]
            yield row, row[min(self.rank, len(row) - 1)], self.rank < len(row)

    def same_time(self, clock: Callable[[], float]) -> Callable[[], float]:
        """Return a clock that shows rank 0's time."""
        return lambda: self.agreed(clock())

    def same_answer(self, question: Callable[[], bool]) -> Callable[[], bool]:
        """Return a question that all answer as rank 0 does."""
        return lambda: bool(self.agreed(float(question())))


SINGLE_PROCESS = ProcessGroup()


def full(value: Tensor) -> Tensor:
    """Return a tensor whole; every rank must ask where it is spread."""
    whole: Callable[[], Tensor] | None = getattr(value, "full_tensor", None)
    return whole() if whole else value


def own(value: Tensor) -> Tensor:
    """Return what this rank holds of a tensor."""
    local: Callable[[], Tensor] | None = getattr(value, "to_local", None)
    return local() if local else value


def _empty(kind: str, shape: list[int]) -> Tensor:
    return torch.empty(shape, dtype=getattr(torch, kind))
