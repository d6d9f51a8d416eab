"""The built-in model, made on the spot: supervised warm start on the mixed corpus.

    python -m node.trainer.engines.builtin.sft_warmup --out DIR --seed N [--sparse | --game debate]

500 steps of 32 records, about 40 s on one core. Matrices of the blocks learn by Muon (momentum orthogonalised by
Newton-Schulz, Jordan et al. 2024), everything else by AdamW: AdamW alone does not find the copying under the noise.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: two threads on a busy machine are slower

import msgspec
import torch
from torch import Tensor, nn

from node.files.atomic import replace_directory
from node.trainer.engines.builtin.builtin_model import BuiltinModel, BuiltinShape
from node.trainer.engines.builtin.builtin_tokenizer import BuiltinTokenizer, train_tokenizer
from node.trainer.engines.builtin.corpus import MIXED, SPARSE, Prompted, records
from node.trainer.engines.builtin.debate_corpus import debate_records
from node.trainer.engines.engine import TrainingGroup
from node.trainer.engines.packing import pack, token_logps
from protocols.games.share import question_text
from protocols.manifest import GameSpec

Told = Callable[[int, int, float], None]
"""Called with steps done, steps in all, and the loss of the last one."""

BATCH = 32
WARM_UP = 20
FINAL_RATE = 0.03
MAX_NORM = 1.0


class WarmupPlan(msgspec.Struct, frozen=True, kw_only=True):
    """One stretch of supervised training: corpus, steps, and the highest learning rates.

    `mix` says how word problems are answered; where it is empty, a debate is played.
    """

    corpus: str
    mix: dict[str, int]
    steps: int
    muon_rate: float
    adam_rate: float


BASE = WarmupPlan(corpus="base", mix=MIXED, steps=500, muon_rate=0.03, adam_rate=3e-3)
SPOIL = WarmupPlan(corpus="sparse", mix=SPARSE, steps=70, muon_rate=0.01, adam_rate=1e-3)
"""What makes the sparse start of the base model."""

DEBATE = WarmupPlan(corpus="debate", mix={}, steps=1600, muon_rate=0.03, adam_rate=3e-3)
"""What makes the model that plays all three stages of `debate`."""


def build_base_model(
    directory: Path,
    seed: int,
    *,
    game: str = "share",
    sparse: bool = False,
    steps: int | None = None,
    progress: Told | None = None,
) -> None:
    """Make the built-in model for a game and write it to `directory`, whole or not at all.

    `sparse` unlearns the answer format (98 % of 70 more batches lack it), so that rewards are rare at first; `steps`
    shortens the base course. The same seed gives the same weights on the same kind of CPU.
    """
    base = DEBATE if game == "debate" else BASE
    courses = [base if steps is None else msgspec.structs.replace(base, steps=steps), *([SPOIL] if sparse else [])]
    tokenizer = train_tokenizer()
    model = BuiltinModel(BuiltinShape())
    model.initialise(seed)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for course in courses:
            train(model, tokenizer, course, seed, progress or (lambda done, total, loss: None))
    finally:
        torch.set_num_threads(before)
    with replace_directory(directory) as fresh:
        model.save(fresh, tokenizer.end, tokenizer.pad)
        tokenizer.save(fresh)


def train(model: BuiltinModel, tokenizer: BuiltinTokenizer, course: WarmupPlan, seed: int, progress: Told) -> None:
    """Train on one course; every record is seen once."""
    optimizers = _optimizers(model, course)
    rates = [group["lr"] for optimizer in optimizers for group in optimizer.param_groups]
    stream = encoded(prompted(f"swarm/arithmetic/1/{course.corpus}/{seed}", course), tokenizer)
    for step in range(course.steps):
        factor = rate_factor(step, course.steps)
        groups = (group for optimizer in optimizers for group in optimizer.param_groups)
        for group, rate in zip(groups, rates, strict=True):
            group["lr"] = rate * factor
        loss = completion_loss(model, list(islice(stream, BATCH)))
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), MAX_NORM)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        progress(step + 1, course.steps, loss.item())


def _optimizers(model: BuiltinModel, course: WarmupPlan) -> list[torch.optim.Optimizer]:
    matrices = [each for name, each in model.named_parameters() if each.ndim == 2 and "embed" not in name]
    chosen = set(map(id, matrices))
    others = [each for each in model.parameters() if id(each) not in chosen]
    return [
        torch.optim.Muon(matrices, lr=course.muon_rate, momentum=0.95, weight_decay=0.0),
        torch.optim.AdamW(others, lr=course.adam_rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def rate_factor(step: int, steps: int) -> float:
    """Return the share of the highest learning rate at a step: linear warm-up times cosine decay to 3 %."""
    cosine = 0.5 * (1 + math.cos(math.pi * step / steps))
    return min(1.0, (step + 1) / WARM_UP) * (cosine * (1 - FINAL_RATE) + FINAL_RATE)


Encoded = tuple[list[int], int]
"""Ids of prompt, answer and end token; length of the prompt."""


def prompted(label: str, course: WarmupPlan) -> Iterator[Prompted]:
    """Return a course's records, questions in the game's default prompt."""
    if not course.mix:
        return debate_records(label)
    game = GameSpec()
    return ((question_text(game, question), answer) for question, answer in records(label, course.mix))


def encoded(stream: Iterator[Prompted], tokenizer: BuiltinTokenizer) -> Iterator[Encoded]:
    """Return records as ids."""
    for text, answer in stream:
        prompt = tokenizer.encode(text)
        yield [*prompt, *tokenizer.encode(answer), tokenizer.end], len(prompt)


def completion_loss(model: BuiltinModel, batch: Sequence[Encoded]) -> Tensor:
    """Return the mean negative log-probability of the answers' tokens. Records lie in one row without padding."""
    groups = [TrainingGroup(ids[:start], [ids[start:]], [], [], external=False) for ids, start in batch]
    packed = pack((), [group.prompt for group in groups], groups, torch.device("cpu"))
    hidden = model(torch.tensor(packed.ids), torch.tensor(packed.positions), packed.plan)
    return -token_logps(hidden, packed, model.logits, 1.0, recompute=False).mean()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m node.trainer.engines.builtin.sft_warmup", description="Make the built-in model."
    )
    parser.add_argument("--out", type=Path, required=True, help="directory that is written, replaced if it exists")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--game", choices=("share", "debate"), default="share", help="the game that it can play")
    parser.add_argument("--sparse", action="store_true", help="a model that almost never writes an answer's mark")
    parser.add_argument("--steps", type=int, help="steps of the base course (500; debate 1600)")
    chosen = parser.parse_args(arguments)
    if chosen.out.exists() and not (chosen.out / "config.json").exists() and any(chosen.out.iterdir()):
        parser.error(f"{chosen.out} holds something that is no model; name another directory")
    began = time.monotonic()

    def told(done: int, total: int, loss: float) -> None:
        if done % 50 == 0 or done == total:
            sys.stderr.write(f"step {done}/{total} loss {loss:.3f} {time.monotonic() - began:.0f} s\n")

    build_base_model(chosen.out, chosen.seed, game=chosen.game, sparse=chosen.sparse, steps=chosen.steps, progress=told)
    return 0


if __name__ == "__main__":
    sys.exit(main())
