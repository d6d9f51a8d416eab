"""Sampling by vLLM beside the trained model: in this process, asleep during updates, new weights taken in place.

Names are vLLM 0.32's. On CUDA vLLM sleeps (level 2: weights and cache are dropped) whenever it does not sample, and
takes the trained weights when it wakes. The CPU build ignores sleep. Its reload leaves a prepacked copy of a tied
output layer stale, which is packed anew here.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any

import structlog
import torch

from node.config import TrainerSettings
from node.trainer.engines.engine import Cancelled, NotFinite
from node.trainer.engines.sampler import Sample, ServedModel
from node.trainer.memory.memory_plan import MemoryPlan, SamplerMemory

log = structlog.get_logger()

SEEDS = 2**31
ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # one process: weights are handed over, not sent
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
}
GIBIBYTE = 1 << 30


def installed() -> bool:
    """Return True if vLLM can be imported."""
    return find_spec("vllm") is not None


class VllmSampler:
    """`node.trainer.engines.sampler.Sampler` on vLLM in this process."""

    name = "vllm"

    def __init__(self, model: ServedModel) -> None:
        self.max_num_seqs = model.memory_plan.max_num_seqs
        self._model = model
        self._llm: Any = None
        self._stale = True

    @classmethod
    def unusable(cls, settings: TrainerSettings) -> str:
        """Return why it can't be used with these settings, and what to do; empty if it can."""
        if settings.quantise != "none":
            return 'vllm does not share 4-bit weights with the trainer: set it to "hf"'
        if not installed():
            return "vllm is not installed: pip install 'swarm-node[gpu]', or set trainer.python"
        return ""

    @classmethod
    def memory(cls, device: torch.device, dtype: torch.dtype, *, quantised: bool) -> SamplerMemory:
        """Return a copy of the weights; over several ranks the cache is sharded by heads (tensor parallelism)."""
        return SamplerMemory(copies_weights=True, shards_cache=True)

    @property
    def started(self) -> bool:
        """Whether vLLM runs."""
        return self._llm is not None

    def update_weights(self) -> None:
        """Have vLLM take the trained weights before it samples again."""
        self._stale = True

    def wake(self) -> None:
        """Start vLLM if it does not run, and give it memory and the newest weights. Raises whatever vLLM raises."""
        if self._llm is None:
            self._llm = self._start()
        elif self._model.device.type == "cuda":
            self._llm.wake_up(tags=["weights"])
            self._stale = True
        if self._stale:
            self._reload_weights()
        if self._model.device.type == "cuda":
            self._llm.wake_up(tags=["kv_cache"])

    def sample(
        self,
        prompts: Sequence[list[int]],
        group: int,
        rng: torch.Generator,
        cancelled: Callable[[], bool],
        *,
        greedy: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[list[Sample]]:
        """Sample `group` completions for each prompt; each completion has a seed of its own, drawn from `rng`.

        Raises `Cancelled` between two tokens, `NotFinite`.
        """
        seeds = torch.randint(SEEDS, (len(prompts), group), generator=rng).tolist()
        whole = [self._model.prefix + prompt for prompt in prompts]
        done = self._run(self._llm.llm_engine, whole, seeds, cancelled, greedy, progress)
        return [[self._sample_of(done[q, c]) for c in range(group)] for q in range(len(prompts))]

    def sleep(self) -> None:
        """Have vLLM drop weights and cache on a GPU."""
        if self._model.device.type == "cuda":
            self._llm.sleep(level=2)

    def _run(
        self,
        engine: Any,
        prompts: list[list[int]],
        seeds: list[list[int]],
        cancelled: Callable[[], bool],
        greedy: bool,
        progress: Callable[[int, int], None] | None,
    ) -> dict[tuple[int, int], Any]:
        """Step the engine until every completion has ended; return them by question and place."""
        names: dict[str, tuple[int, int]] = {}
        for q, prompt in enumerate(prompts):
            for c, seed in enumerate(seeds[q]):
                name = f"{q}-{c}"
                names[name] = q, c
                engine.add_request(name, {"prompt_token_ids": prompt}, self._parameters(seed, greedy))
        done: dict[tuple[int, int], Any] = {}
        while engine.has_unfinished_requests():
            if cancelled():
                engine.abort_request(list(names))
                raise Cancelled("between two tokens")
            for output in engine.step():
                if output.finished:
                    done[names[output.request_id]] = output.outputs[0]
            if progress:
                progress(len(done) // max(1, len(seeds[0])), len(prompts))
        return done

    def _parameters(self, seed: int, greedy: bool) -> Any:
        from vllm import SamplingParams

        game = self._model.game
        return SamplingParams(
            temperature=0.0 if greedy else game.temperature, max_tokens=game.max_completion, seed=seed,
            stop_token_ids=self._model.stops.tolist(), logprobs=0, detokenize=False,
        )  # fmt: skip

    def _sample_of(self, output: Any) -> Sample:
        tokens = list(output.token_ids)
        logps = [float(each[token].logprob) for each, token in zip(output.logprobs, tokens, strict=True)]
        if not all(torch.tensor(logps).isfinite().tolist()):
            raise NotFinite("logits are not finite")
        return Sample(tokens, logps, self._model.shown(tokens), output.finish_reason == "stop")

    def _start(self) -> Any:
        """Start vLLM on the model's configuration alone; it gets the weights afterwards."""
        model, plan = self._model, self._model.memory_plan
        os.environ.update({key: value for key, value in ENVIRONMENT.items() if key not in os.environ})
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", str(max(1, plan.cache // GIBIBYTE)))
        from vllm import LLM

        threads = torch.get_num_threads()
        total = torch.cuda.mem_get_info(model.device)[1] if model.device.type == "cuda" else 0
        world_size = model.process_group.world_size
        log.info("vllm.starting", device=model.device.type, world_size=world_size)
        llm = LLM(
            model=model.source, tokenizer=model.source, dtype=str(model.dtype).removeprefix("torch."),
            max_model_len=len(model.prefix) + model.game.max_prompt + model.game.max_completion,
            max_num_seqs=self.max_num_seqs, **options(plan, total, world_size),
        )  # fmt: skip
        torch.set_num_threads(threads)
        return llm

    def _reload_weights(self) -> None:
        """Give vLLM the trained weights, in place, and drop what it cached under the old ones."""
        llm = self._llm
        llm.collective_rpc("reload_weights", kwargs={"weights_iterator": self._model.named_weights()})
        if self._model.device.type == "cpu":
            llm.apply_model(_pack_output_layer)
        llm.reset_prefix_cache()
        self._stale = False


def options(plan: MemoryPlan, total: int, world_size: int) -> dict[str, Any]:
    """Return vLLM's options beside model and lengths; `total` is the GPU's memory in bytes, 0 on a CPU.

    Custom all-reduce is off: it looks for its neighbours among the GPUs that a process sees, and each sees one.
    """
    chosen: dict[str, Any] = {
        "load_format": "dummy", "logprobs_mode": "processed_logprobs", "disable_log_stats": True,
        "enforce_eager": not total,
    }  # fmt: skip
    if total:
        share = (plan.sampler + plan.cache + plan.overhead) / total
        chosen |= {"enable_sleep_mode": True, "gpu_memory_utilization": min(0.95, share)}
    if world_size > 1:
        chosen |= {
            "tensor_parallel_size": world_size, "distributed_executor_backend": "external_launcher",
            "disable_custom_all_reduce": True, "seed": 0,
        }  # fmt: skip
    return chosen


def _pack_output_layer(model: Any) -> None:
    """Pack the CPU build's output layer anew where it is tied to the embedding: a reload leaves its copy as it was."""
    from vllm.model_executor.layers.utils import dispatch_cpu_unquantized_gemm

    if getattr(model.config, "tie_word_embeddings", False):
        dispatch_cpu_unquantized_gemm(model.lm_head, remove_weight=False)
