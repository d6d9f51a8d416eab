"""Sampling by vLLM beside the model that is trained: in this process, asleep during updates, new weights in place.

Names of vLLM 0.32. On CUDA the engine sleeps (level 2: weights and cache are dropped) whenever it does not sample, and
takes the trained weights when it wakes. The CPU build ignores sleep; its reload leaves a prepacked copy of a tied
output layer stale, which is packed anew here.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from typing import Any

import structlog
import torch
from torch import Tensor

from node.trainer.engines.causal import CausalEngine
from node.trainer.engines.engine import Cancelled, NotFinite, Sample
from node.trainer.engines.process_group import full_tensor
from node.trainer.memory.memory_plan import MemoryPlan

log = structlog.get_logger()

SEEDS = 2**31
ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # one process: weights are handed over, not sent
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
}
GIBIBYTE = 1 << 30


def installed() -> bool:
    """Tell whether vLLM can be imported."""
    return find_spec("vllm") is not None


class VllmEngine(CausalEngine):
    """A causal LM that vLLM samples from; updates are `CausalEngine`'s."""

    name = "vllm"
    optional = False
    """Whether the built-in sampling takes over where vLLM does not start."""

    _llm: Any = None
    _stale = True
    _world_size = 1

    def weights_changed(self) -> None:
        """Forget the prefix's keys and values, and have vLLM take the weights before it samples again."""
        super().weights_changed()
        self._stale = True

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
        """Sample `group` completions for each question text; each completion has a seed of its own.

        Raises `Cancelled` between two tokens, `NotFinite`.
        """
        try:
            llm = self._awake()
        except Exception as error:  # a library's start: whatever it raises, there is another way to sample
            if not self.optional or self._llm is not None:
                raise
            self._do_without(" ".join(str(error).split())[:300])
            return self.sample(questions, group, rng, cancelled, greedy=greedy, progress=progress)
        seeds = torch.randint(SEEDS, (len(questions), group), generator=rng).tolist()
        prompts = [self._prefix + self._bounded(self.encode(text)) for text in questions]
        try:
            done = self._run(llm.llm_engine, prompts, seeds, cancelled, greedy, progress)
        finally:
            self._sleep()
        return [[self._sample_of(done[q, c]) for c in range(group)] for q in range(len(questions))]

    def _do_without(self, reason: str) -> None:
        log.warning("vllm.unusable", reason=reason)
        self.name, self.sample = "hf", super().sample  # type: ignore[method-assign]

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

        return SamplingParams(
            temperature=0.0 if greedy else self._game.temperature, max_tokens=self._game.max_completion, seed=seed,
            stop_token_ids=self._vocabulary.stops, logprobs=0, detokenize=False,
        )  # fmt: skip

    def _sample_of(self, output: Any) -> Sample:
        tokens = list(output.token_ids)
        logps = [float(each[token].logprob) for each, token in zip(output.logprobs, tokens, strict=True)]
        if not all(torch.tensor(logps).isfinite().tolist()):
            raise NotFinite("logits are not finite")
        return Sample(tokens, logps, self._vocabulary.shown(tokens), output.finish_reason == "stop")

    # --- life of the engine ---------------------------------------------------------------------------------------

    def _awake(self) -> Any:
        """Return the engine with the current weights."""
        if self._llm is None:
            self._llm = self._start_engine()
        elif self.device.type == "cuda":
            self._llm.wake_up(tags=["weights"])
            self._stale = True
        if self._stale:
            self._hand_over()
        if self.device.type == "cuda":
            self._llm.wake_up(tags=["kv_cache"])
        return self._llm

    def _start_engine(self) -> Any:
        """Start vLLM on the model's configuration alone; weights are handed over."""
        os.environ.update({key: value for key, value in ENVIRONMENT.items() if key not in os.environ})
        plan = self._plan
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", str(max(1, plan.cache // GIBIBYTE)))
        from vllm import LLM

        threads = torch.get_num_threads()
        total = torch.cuda.mem_get_info(self.device)[1] if self.device.type == "cuda" else 0
        log.info("vllm.starting", device=self.device.type, world_size=self._world_size)
        llm = LLM(
            model=self._base, tokenizer=self._base, dtype=_name(self._arithmetic_type()),
            max_model_len=len(self._prefix) + self._game.max_prompt + self._game.max_completion,
            max_num_seqs=self.max_num_seqs, **options(plan, total, self._world_size),
        )  # fmt: skip
        torch.set_num_threads(threads)
        return llm

    def _hand_over(self) -> None:
        """Give vLLM the trained weights, in place, and drop what it cached under the old ones."""
        llm = self._llm
        llm.collective_rpc("reload_weights", kwargs={"weights_iterator": self._weights()})
        if self.device.type == "cpu":
            llm.apply_model(_pack_output_layer)
        llm.reset_prefix_cache()
        self._stale = False

    @torch.no_grad()
    def _weights(self) -> Iterator[tuple[str, Tensor]]:
        """Yield the weights under their names on disk; adapters are added to their matrices, tied copies left out."""
        tied = set(self._model.all_tied_weights_keys)
        modules = dict(self._model.named_modules())
        kind = self._arithmetic_type()
        for name, weight in self._model.state_dict().items():
            if "lora_" in name or name in tied:
                continue
            place, _, leaf = name.rpartition(".")
            if place.endswith(".base_layer"):
                place = place.removesuffix(".base_layer")
                delta = modules[place].get_delta_weight(next(iter(modules[place].lora_A))) if leaf == "weight" else 0
                weight = weight + delta
            yield f"{place}.{leaf}", full_tensor(weight).to(kind, copy=True)

    def _arithmetic_type(self) -> torch.dtype:
        return self._placement.autocast or self._placement.weights

    def _sleep(self) -> None:
        if self.device.type == "cuda":
            self._llm.sleep(level=2)


def options(plan: MemoryPlan, total: int, world_size: int) -> dict[str, Any]:
    """Return what vLLM is told beside model and lengths; `total` is the GPU's memory in bytes, 0 on a CPU.

    Custom all-reduce is off: it looks for its neighbours among the GPUs that a process sees, and each sees one.
    """
    told: dict[str, Any] = {
        "load_format": "dummy", "logprobs_mode": "processed_logprobs", "disable_log_stats": True,
        "enforce_eager": not total,
    }  # fmt: skip
    if total:
        share = (plan.engine + plan.cache + plan.overhead) / total
        told |= {"enable_sleep_mode": True, "gpu_memory_utilization": min(0.95, share)}
    if world_size > 1:
        told |= {
            "tensor_parallel_size": world_size, "distributed_executor_backend": "external_launcher",
            "disable_custom_all_reduce": True, "seed": 0,
        }  # fmt: skip
    return told


def _name(kind: torch.dtype) -> str:
    return str(kind).removeprefix("torch.")


def _pack_output_layer(model: Any) -> None:
    """Pack the CPU build's output layer anew where it is tied to the embedding: a reload leaves its copy as it was."""
    from vllm.model_executor.layers.utils import dispatch_cpu_unquantized_gemm

    if getattr(model.config, "tie_word_embeddings", False):
        dispatch_cpu_unquantized_gemm(model.lm_head, remove_weight=False)
