"""Generation: the built-in model's own decoder against transformers' generate, on the same batch, in turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import torch

from node.trainer.engines.builtin.builtin_engine import BuiltinEngine
from node.trainer.engines.builtin.builtin_model import BuiltinShape, read_shape
from protocols.games.share import question_text
from protocols.manifest import GameSpec
from tools.bench_trl.cases import CASES
from tools.bench_trl.models import game_of, questions_of

ROUNDS = 7
PEAK_SIZE, PEAK_SECONDS = 1024, 0.5


class Speeds(msgspec.Struct, frozen=True, kw_only=True):
    """Completion tokens per second of both, what share of the machine's floating point ours reaches, and that peak."""

    ours: float
    generate: float
    share: float
    peak_gflops: float

    @property
    def times(self) -> float:
        """How many times faster we are."""
        return self.ours / self.generate


def measure(model: Path, threads: int, rounds: int = ROUNDS) -> Speeds:
    """Sample the same 32 questions, 8 completions each, by both, in turns."""
    torch.set_num_threads(threads)
    case = CASES["builtin"]
    game = game_of(case)
    questions = [text for text, _ in questions_of(case, 0)[: case.groups]]
    engine = BuiltinEngine.load(model, game, "cpu")
    shape = read_shape(model)
    assert shape
    ours, generate = own_sampling(engine, questions, game), transformers_sampling(model, questions, game)
    prompts = [len(engine.encode(question_text(game, question))) for question in questions]
    speeds: dict[str, list[float]] = {"ours": [], "generate": []}
    rates: list[float] = []
    for number in range(rounds + 1):
        for name, sample in (("ours", ours), ("generate", generate)):
            began = time.perf_counter()
            lengths = sample()
            spent = time.perf_counter() - began
            if number:
                speeds[name].append(sum(lengths) / spent)
                rates += [sampling_flops(shape, prompts, lengths) / spent] if name == "ours" else []
    peak = peak_flops()
    return Speeds(
        ours=statistics.median(speeds["ours"]),
        generate=statistics.median(speeds["generate"]),
        share=statistics.median(rates) / peak,
        peak_gflops=peak / 1e9,
    )


def own_sampling(engine: BuiltinEngine, questions: Sequence[str], game: GameSpec) -> Callable[[], list[int]]:
    """Return our sampler; it gives the length of every completion, in the order of questions."""
    texts = [question_text(game, question) for question in questions]
    rng = torch.Generator().manual_seed(0)

    def sample() -> list[int]:
        groups = engine.sample(texts, game.num_generations, rng, lambda: False)
        return [len(each.tokens) for group in groups for each in group]

    return sample


def transformers_sampling(model: Path, questions: Sequence[str], game: GameSpec) -> Callable[[], list[int]]:
    """Return the same by `generate`."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(str(model))
    loaded: Any = AutoModelForCausalLM.from_pretrained(str(model))
    texts = [question_text(game, question) for question in questions]
    batch = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
    end = tokenizer.eos_token_id

    def sample() -> list[int]:
        with torch.inference_mode():
            rows = loaded.generate(
                **batch, do_sample=True, temperature=game.temperature, top_k=0, top_p=1.0, eos_token_id=end,
                max_new_tokens=game.max_completion, num_return_sequences=game.num_generations,
                pad_token_id=tokenizer.pad_token_id,
            )  # fmt: skip
        made = rows[:, batch["input_ids"].shape[1] :].tolist()
        return [row.index(end) + 1 if end in row else len(row) for row in made]

    return sample


def sampling_flops(shape: BuiltinShape, prompts: Sequence[int], completions: Sequence[int]) -> float:
    """Return the floating point operations that sampling needs at least: every prompt once, no padding.

    A token costs two per weight it passes, its logits two per entry of the head, and attention four per head width and
    token seen; a prompt's own tokens need no logits but the last.
    """
    layer = shape.hidden_size * (2 * shape.hidden_size + 2 * shape.key_value_size + 3 * shape.intermediate_size)
    weights = shape.num_hidden_layers * layer
    head = shape.vocab_size * shape.hidden_size
    seen = 4 * shape.num_hidden_layers * shape.hidden_size
    group = len(completions) // len(prompts)
    total = 0.0
    for number, prompt in enumerate(prompts):
        total += 2 * weights * prompt + 2 * head + seen * prompt * (prompt + 1) / 2
        for length in completions[number * group : (number + 1) * group]:
            steps = length - 1
            total += steps * 2 * (weights + head) + seen * (steps * prompt + steps * (steps + 1) / 2)
    return total


def peak_flops() -> float:
    """Return the floating point operations per second of a large matrix product in fp32, on the threads set."""
    one, other = torch.rand(PEAK_SIZE, PEAK_SIZE), torch.rand(PEAK_SIZE, PEAK_SIZE)
    best, end = float("inf"), time.perf_counter() + PEAK_SECONDS
    while time.perf_counter() < end:
        began = time.perf_counter()
        torch.mm(one, other)
        best = min(best, time.perf_counter() - began)
    return 2 * PEAK_SIZE**3 / best
