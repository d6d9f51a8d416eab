"""The models and questions of a case."""

from __future__ import annotations

import random
from pathlib import Path
from string import ascii_lowercase

from node.data.arithmetic import ArithmeticQuestions
from protocols.manifest import GameSpec
from tools.bench_trl.cases import BenchCase, Shape

END, STOP = "<eos>", "<stop>"


def game_of(case: BenchCase) -> GameSpec:
    """Return the game a case plays."""
    if case.shape is None:
        return GameSpec(num_generations=case.num_generations, max_completion=case.completion)
    return GameSpec(
        prompt="{question}", stop=STOP, num_generations=case.num_generations, max_prompt=case.prompt,
        max_completion=case.completion,
    )  # fmt: skip


def questions_of(case: BenchCase, seed: int) -> tuple[tuple[str, str], ...]:
    """Return question and answer for every group of every update, in order."""
    rng, count = random.Random(seed), case.groups * case.updates
    if case.shape is None:
        data = ArithmeticQuestions()
        return tuple((data[each].text, data[each].answer) for each in rng.sample(range(len(data)), count))
    letters = ("".join(rng.choices(ascii_lowercase, k=case.prompt)) for _ in range(count))
    return tuple((text, "") for text in letters)


def make_model(case: BenchCase, directory: Path) -> Path:
    """Return the case's model, made in `directory` unless it is there."""
    if case.shape is None:
        from node.trainer.engines.builtin.builtin_model import read_shape
        from node.trainer.engines.builtin.sft_warmup import build_builtin_model

        target = directory / "builtin-0"
        if read_shape(target) is None:
            build_builtin_model(target, 0)
        return target
    target = directory / f"{case.name}-{case.shape.vocab_size}"
    if not (target / "model.safetensors").is_file():
        make_random(case.shape, target)
    return target


def make_random(shape: Shape, target: Path) -> None:
    """Write a model with random weights, and a tokenizer of one token per letter.

    The rest of the vocabulary is never met in a prompt. It is byte-level BPE, because transformers reads every
    tokenizer beside a Qwen2 as one of that kind.
    """
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

    special = [END, STOP]
    entries = [*special, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    entries += [f"unused{number}" for number in range(shape.vocab_size - len(entries))]
    rules = Tokenizer(models.BPE(vocab={text: number for number, text in enumerate(entries)}, merges=[]))
    rules.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    rules.decoder = decoders.ByteLevel()
    rules.add_special_tokens(special)
    tokenizer = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=rules, eos_token=END, pad_token=END, padding_side="left"
    )
    named = shape.config()
    config = AutoConfig.for_model(named.pop("kind"), **named, eos_token_id=0, pad_token_id=0, bos_token_id=None)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)  # type: ignore[no-untyped-call]
    model.save_pretrained(str(target))
    tokenizer.save_pretrained(str(target))
