"""vLLM's options, what it takes and what it can't serve: decided without it."""

from __future__ import annotations

import msgspec
import pytest
import torch

from node.config import TrainerSettings
from node.trainer.engines.factory import PARALLEL_SAMPLERS, SAMPLERS, sampler_class
from node.trainer.engines.parallel_vllm_sampler import divides_heads
from node.trainer.engines.vllm_sampler import VllmSampler, options
from node.trainer.memory.memory_plan import MemoryPlan, MemoryRequest, ModelShape, plan_memory
from node.trainer.rank_environment import nth_gpu
from node.trainer.worker.rank_worker import rank_and_endpoint

GB = 10**9
SHAPE = ModelShape(
    parameters=7_600_000_000, matrices=6_500_000_000, edges=2_500_000, layers=28, hidden=3584, inner=18_944, heads=28,
    key_value_heads=4, head_width=128, vocabulary=152_064,
)  # fmt: skip


VLLM = VllmSampler.memory(torch.device("cuda"), torch.bfloat16, quantised=False)


def plan(world_size: int) -> MemoryPlan:
    return plan_memory(
        SHAPE, MemoryRequest(weights=2, arithmetic=2, sampler=VLLM, world_size=world_size, overhead=GB), 72 * GB
    )


def test_ranks_are_taken_as_vllm_s_own() -> None:
    """Tensor parallel over all of them, each scheduling alike with one seed; one rank is told nothing of it."""
    chosen = options(plan(4), 80 * GB, 4)
    assert (chosen["tensor_parallel_size"], chosen["distributed_executor_backend"]) == (4, "external_launcher")
    assert chosen["disable_custom_all_reduce"]
    assert chosen["seed"] == 0
    assert not {"tensor_parallel_size", "distributed_executor_backend", "seed"} & set(options(plan(1), 80 * GB, 1))


def test_only_a_gpu_s_engine_sleeps() -> None:
    """It may take what the plan gives it, never all; a CPU's neither sleeps nor compiles."""
    chosen = options(plan(1), 80 * GB, 1)
    expected = plan(1)
    assert chosen["enable_sleep_mode"]
    assert chosen["gpu_memory_utilization"] == pytest.approx((expected.sampler + expected.cache + GB) / (80 * GB))
    assert options(plan(1), 10 * GB, 1)["gpu_memory_utilization"] == 0.95
    on_cpu = options(plan(1), 0, 1)
    assert on_cpu["enforce_eager"]
    assert "enable_sleep_mode" not in on_cpu


def test_a_rank_holds_its_share_of_vllm_s_weights_and_cache() -> None:
    """A quarter of both on each of four; keys and values of 4 heads are on eight ranks twice."""
    one, four, eight = (plan(world_size) for world_size in (1, 4, 8))
    assert four.sampler == one.sampler // 4
    rows = {"max_num_seqs": 64}
    caches = [
        plan_memory(
            SHAPE, msgspec.structs.replace(MemoryRequest(arithmetic=2, sampler=VLLM, world_size=world_size), **rows), GB
        ).cache
        for world_size in (1, 4, 8)
    ]
    assert caches[1] == caches[2] < caches[0]
    assert eight.sampler == one.sampler // 8


def test_what_samples_is_a_class_by_name() -> None:
    """On a CPU "auto" decodes with the trained model; what vLLM can't serve is refused before anything is loaded."""
    for known in (SAMPLERS, PARALLEL_SAMPLERS):
        assert sampler_class(TrainerSettings(device="cpu"), known) is known["hf"]
    assert VllmSampler.unusable(TrainerSettings(quantise="nf4")) == (
        'vllm does not share 4-bit weights with the trainer: set it to "hf"'
    )
    with pytest.raises(ValueError, match=r"^trainer\.engine: vllm does not share 4-bit weights"):
        sampler_class(TrainerSettings(engine="vllm", quantise="nf4"), SAMPLERS)


@pytest.mark.parametrize(
    ("world_size", "heads", "key_value_heads", "can"),
    [(2, 14, 2, True), (4, 14, 2, False), (4, 28, 4, True), (8, 64, 8, True), (14, 14, 2, True), (3, 12, 2, False)],
)
def test_heads_are_shared_out_whole(world_size: int, heads: int, key_value_heads: int, can: bool) -> None:
    """Each rank has as many; fewer heads of keys and values than ranks are repeated, if evenly."""
    assert divides_heads(world_size, heads, key_value_heads) == can


def test_a_rank_worker_knows_its_rank_from_flags_or_from_torchrun() -> None:
    """Flags count from the first rank of a machine; without them torchrun's variables say all."""
    flags = ["--first-rank", "4", "--world-size", "8", "--rendezvous-endpoint", "10.0.0.1:29500"]
    variables = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_ADDR": "a", "MASTER_PORT": "1"}
    assert rank_and_endpoint(flags, variables) == (5, 8, "10.0.0.1:29500")
    assert rank_and_endpoint([], variables) == (1, 2, "a:1")
    with pytest.raises(SystemExit):
        rank_and_endpoint(flags[:2], variables)


def test_each_process_of_a_machine_has_a_gpu() -> None:
    """The visible ones in order, or by number where nothing is said."""
    assert [nth_gpu(number, "4,6") for number in (0, 1)] == ["4", "6"]
    assert nth_gpu(3, "") == "3"
