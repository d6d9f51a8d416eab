"""The process group: several ranks that train one model together, and what they send each other.

Rank 0 is the trainer's child and is connected to the node; the others are rank workers
(`node.trainer.worker.rank_worker`). All run the same code on the same frames, so that collective operations meet.
Whatever could differ between them (was a task cancelled, what time is it, which token was sampled) is broadcast by
rank 0.
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

TIMEOUT = timedelta(minutes=5)
"""A rank that does not join a collective operation for so long is lost; rank 0 starts one more often than that."""


class ProcessGroup:
    """The ranks of one model. A group of one rank sends nothing."""

    def __init__(self, rank: int = 0, world_size: int = 1, rendezvous_endpoint: str = "") -> None:
        self.rank, self.world_size, self.rendezvous_endpoint = rank, world_size, rendezvous_endpoint

    @classmethod
    def join(cls, rank: int, world_size: int, rendezvous_endpoint: str) -> ProcessGroup:
        """Join the other ranks at rank 0's "host:port" (what torchrun calls MASTER_ADDR and MASTER_PORT)."""
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(
            backend, init_method=f"tcp://{rendezvous_endpoint}", rank=rank, world_size=world_size, timeout=TIMEOUT
        )
        return cls(rank, world_size, rendezvous_endpoint)

    def broadcast(self, message: bytes) -> bytes:
        """Return rank 0's message on every rank."""
        if self.world_size == 1:
            return message
        # As numbers, not by torch's object collectives: these unpickle what comes over the network.
        length = int(self.broadcast_scalar(float(len(message))))
        box = torch.frombuffer(bytearray(message), dtype=torch.uint8) if self.rank == 0 else _empty("uint8", [length])
        return self.broadcast_tensor(box).numpy().tobytes()

    def broadcast_scalar(self, value: float) -> float:
        """Return rank 0's value on every rank."""
        if self.world_size == 1:
            return value
        shared = torch.tensor([value], dtype=torch.float64)
        dist.broadcast(shared, 0)
        return float(shared.item())

    def broadcast_tensor(self, tensor: Tensor) -> Tensor:
        """Return rank 0's tensor on every rank; its shape is the same everywhere."""
        if self.world_size > 1:
            dist.broadcast(tensor, 0)
        return tensor

    def scatter(self, whole: Mapping[str, Tensor], like: Callable[[str], Tensor | None]) -> dict[str, Tensor]:
        """Return rank 0's tensors on every rank, each sharded as `like(name)` is, whole where that is not sharded.

        The other ranks pass nothing. They hold at most one whole tensor at a time.
        """
        layout = {name: (str(each.dtype).removeprefix("torch."), list(each.shape)) for name, each in whole.items()}
        encoded = self.broadcast(msgspec.json.encode(layout))
        layout = msgspec.json.decode(encoded, type=dict[str, tuple[str, list[int]]])
        return {name: self._shard_of(whole.get(name, _empty(*form)), like(name)) for name, form in layout.items()}

    def _shard_of(self, value: Tensor, like: Tensor | None) -> Tensor:
        if like is None or not hasattr(like, "full_tensor") or value.shape != like.shape:
            return self.broadcast_tensor(value)
        # Imported here: it takes 0.7 s of every start, and most nodes have one rank.
        from torch.distributed.tensor import DTensor, distribute_tensor

        assert isinstance(like, DTensor)
        return distribute_tensor(value.to(like.device), like.device_mesh, like.placements)

    def all_reduce(self, value: float) -> float:
        """Return the sum of all ranks' values on every rank."""
        if self.world_size == 1:
            return value
        shared = torch.tensor([value], dtype=torch.float64)
        dist.all_reduce(shared)
        return float(shared.item())

    def shard(self, parts: Sequence[PartT]) -> Iterator[tuple[Sequence[PartT], PartT, bool]]:
        """Share parts out, one to each rank at a time. Yield the parts of this turn, this rank's own, and whether it
        counts.

        Where parts run out, a rank repeats one that does not count: collective operations must meet.
        """
        for start in range(0, len(parts), self.world_size):
            turn = parts[start : start + self.world_size]
            yield turn, turn[min(self.rank, len(turn) - 1)], self.rank < len(turn)

    def broadcast_clock(self, clock: Callable[[], float]) -> Callable[[], float]:
        """Return a clock that shows rank 0's time on every rank."""
        return lambda: self.broadcast_scalar(clock())

    def broadcast_answer(self, question: Callable[[], bool]) -> Callable[[], bool]:
        """Return a question to which every rank gets rank 0's answer."""
        return lambda: bool(self.broadcast_scalar(float(question())))


SINGLE_PROCESS = ProcessGroup()


def full_tensor(value: Tensor) -> Tensor:
    """Return a tensor whole. Where it is sharded, every rank must call this."""
    whole: Callable[[], Tensor] | None = getattr(value, "full_tensor", None)
    return whole() if whole else value


def local_shard(value: Tensor) -> Tensor:
    """Return what this rank holds of a tensor."""
    local: Callable[[], Tensor] | None = getattr(value, "to_local", None)
    return local() if local else value


def _empty(kind: str, shape: list[int]) -> Tensor:
    return torch.empty(shape, dtype=getattr(torch, kind))
