"""The built-in model, made on the spot: supervised warm-up on generated word problems.

    python -m node.trainer.engines.builtin.sft_warmup --out DIR --seed N [--warmup NAME] [--sparse]

500 steps of 32 records (1,600 for `debate`), about 40 s on one core. Matrices of the blocks learn by Muon (momentum
orthogonalised by Newton-Schulz, Jordan et al. 2024), everything else by AdamW: AdamW alone does not find the copying
under the noise.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
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

ProgressHook = Callable[[int, int, float], None]
"""Called with steps done, steps in all, and the loss of the last one."""

BATCH = 32
WARMUP_STEPS = 20
FINAL_RATE = 0.03
MAX_NORM = 1.0


class WarmupPlan(msgspec.Struct, frozen=True, kw_only=True):
    """One stretch of supervised training: records, steps, and the highest learning rates.

    `records` makes an endless stream from a label; `label` is the part of it by which courses differ.
    """

    label: str
    records: Callable[[str], Iterator[Prompted]]
    steps: int
    muon_rate: float
    adam_rate: float


def word_problems(mix: Mapping[str, int]) -> Callable[[str], Iterator[Prompted]]:
    """Return a source of word problems in the default prompt, answered in a mix of ways (percent)."""
    game = GameSpec()
    return lambda label: ((question_text(game, question), answer) for question, answer in records(label, mix))


WARMUPS = {
    "arithmetic": WarmupPlan(label="base", records=word_problems(MIXED), steps=500, muon_rate=0.03, adam_rate=3e-3),
    "debate": WarmupPlan(label="debate", records=debate_records, steps=1600, muon_rate=0.03, adam_rate=3e-3),
}
"""Courses by the name that a game gives (`protocols.games.interface.BuiltinModelSetup.warmup`)."""

SPARSE_COURSE = WarmupPlan(label="sparse", records=word_problems(SPARSE), steps=70, muon_rate=0.01, adam_rate=1e-3)
"""What unlearns the answer format."""


def build_builtin_model(
    directory: Path,
    seed: int,
    *,
    warmup: str = "arithmetic",
    sparse: bool = False,
    steps: int | None = None,
    progress: ProgressHook | None = None,
) -> None:
    """Make the built-in model by a course of `WARMUPS` and write it to `directory`, whole or not at all.

    `sparse` unlearns the answer format (98 % of 70 more batches lack it), so that rewards are rare at first; `steps`
    shortens the course. The same seed gives the same weights on the same kind of CPU. Raises ValueError for a course
    that does not exist.
    """
    course = WARMUPS.get(warmup)
    if course is None:
        raise ValueError(f"the built-in model has no warm-up {warmup!r}; there are {', '.join(WARMUPS)}")
    course = course if steps is None else msgspec.structs.replace(course, steps=steps)
    courses = [course, SPARSE_COURSE] if sparse else [course]
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


def train(
    model: BuiltinModel, tokenizer: BuiltinTokenizer, course: WarmupPlan, seed: int, progress: ProgressHook
) -> None:
    """Train on one course; every record is seen once."""
    optimizers = _optimizers(model, course)
    rates = [group["lr"] for optimizer in optimizers for group in optimizer.param_groups]
    stream = encoded(course.records(f"swarm/arithmetic/1/{course.label}/{seed}"), tokenizer)
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
    return min(1.0, (step + 1) / WARMUP_STEPS) * (cosine * (1 - FINAL_RATE) + FINAL_RATE)


Encoded = tuple[list[int], int]
"""Ids of prompt, answer and end token; length of the prompt."""


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
    parser.add_argument("--warmup", choices=tuple(WARMUPS), default="arithmetic", help="what it is trained on")
    parser.add_argument("--sparse", action="store_true", help="a model that almost never writes an answer's mark")
    parser.add_argument("--steps", type=int, help="steps of the course (500; debate 1600)")
    chosen = parser.parse_args(arguments)
    if chosen.out.exists() and not (chosen.out / "config.json").exists() and any(chosen.out.iterdir()):
        parser.error(f"{chosen.out} holds something that is no model; name another directory")
    began = time.monotonic()

    def report(done: int, total: int, loss: float) -> None:
        if done % 50 == 0 or done == total:
            sys.stderr.write(f"step {done}/{total} loss {loss:.3f} {time.monotonic() - began:.0f} s\n")

    build_builtin_model(
        chosen.out, chosen.seed, warmup=chosen.warmup, sparse=chosen.sparse, steps=chosen.steps, progress=report
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
