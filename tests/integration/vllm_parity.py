"""Run by the interpreter of an environment with vLLM: compares its sampling with the update's log-probabilities.

    [torchrun --nproc-per-node 2 -m] tests.integration.vllm_parity DIRECTORY

By torchrun the model is sharded over ranks. Rank 0's last line of stdout is JSON.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch.distributed.tensor import DTensor, distribute_tensor

from node.config import TrainerSettings
from node.trainer.engines.engine import Cancelled, Engine, TrainingGroup
from node.trainer.engines.factory import load_engine
from node.trainer.engines.parallel_vllm_sampler import ParallelVllmSampler
from node.trainer.engines.process_group import SINGLE_PROCESS, ProcessGroup
from node.trainer.engines.sampler import Sample
from node.trainer.engines.vllm_sampler import VllmSampler
from protocols.manifest import GameSpec

GAME = GameSpec(
    examples="one ab? c\n", prompt="{question}?", stop="\n", max_completion=12, max_prompt=8, temperature=0.8
)
QUESTIONS = ["how many?", "a?", "what is it?"]


def main(directory: str) -> None:
    """Print what was found."""
    process_group = met()
    settings = TrainerSettings(
        model=directory,
        device="cpu",
        engine="vllm",
        lora=4 * (process_group.world_size == 1),
        max_num_seqs=64,
        world_size=process_group.world_size,
    )
    engine = load_engine(settings, GAME, Path(directory), process_group)
    assert isinstance(engine.sampler, VllmSampler)
    assert isinstance(engine.sampler, ParallelVllmSampler) == (process_group.world_size > 1)
    first = sampled(engine, 1)
    found = {"kind": engine.sampler.name, "first": difference(engine, first), "again": same(first, sampled(engine, 1))}
    found["others"] = same(first, sampled(engine, 2))
    with torch.no_grad():
        for parameter in engine.parameters():
            noise = process_group.broadcast_tensor(torch.randn(parameter.shape))
            parameter.add_(0.3 * (distribute_tensor(noise, parameter.device_mesh, parameter.placements)
                                  if isinstance(parameter, DTensor) else noise))  # fmt: skip
    engine.weights_changed()
    second = sampled(engine, 1)
    found |= {"updated": difference(engine, second), "changed": not same(first, second)}
    asked = iter([False, False, False, *[True] * 9])
    try:
        engine.sample(QUESTIONS, 8, torch.Generator().manual_seed(3), lambda: next(asked))
    except Cancelled:
        found["cancelled"] = next(asked) and len(list(asked)) == 7
    found["after"] = difference(engine, sampled(engine, 4))
    found["ranks_agree"] = process_group.broadcast(said(second)) == said(second)
    if process_group.rank == 0:
        sys.stdout.write(json.dumps(found) + "\n")


def met() -> ProcessGroup:
    """The ranks that torchrun started, or this process alone."""
    if "LOCAL_RANK" not in os.environ:
        return SINGLE_PROCESS
    os.environ.pop("TORCHELASTIC_USE_AGENT_STORE")
    return ProcessGroup.join(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), sys.argv[2])


def said(made: Sequence[Sequence[Sample]]) -> bytes:
    return json.dumps([[s.tokens for s in some] for some in made]).encode()


def sampled(engine: Engine, seed: int) -> list[list[Sample]]:
    return engine.sample(QUESTIONS, 8, torch.Generator().manual_seed(seed), lambda: False)


def same(one: Sequence[Sequence[Sample]], other: Sequence[Sequence[Sample]]) -> bool:
    return [[s.tokens for s in some] for some in one] == [[s.tokens for s in some] for some in other]


def difference(engine: Engine, made: Sequence[Sequence[Sample]]) -> float:
    """The largest difference between a log-probability that vLLM reports and the update's."""
    groups = [
        TrainingGroup(engine.encode(text), [s.tokens for s in some], [[]] * 8, [0.0] * 8, False)
        for text, some in zip(QUESTIONS, made, strict=True)
    ]
    told = torch.tensor([logp for some in made for s in some for logp in s.logps])
    return float((engine.completion_logps(groups).detach() - told).abs().max())


if __name__ == "__main__":
    main(sys.argv[1])
