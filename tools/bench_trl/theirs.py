"""The other contestant: TRL's GRPOTrainer, run by the Python of an environment that has it.

Its settings are those of our update: loss over all tokens (dapo), clip 0.2 and 0.28, advantages by the group's standard
deviation, no KL, AdamW with the same betas, no gradient checkpointing, one step per batch.
"""

from __future__ import annotations

import sys
import tempfile
import time
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from node.trainer.learning.grpo import Objective
from protocols.games.share import prompt_text, rewards
from tools.bench_trl.cases import BenchCase, BenchJob, Done, Turn, alternating
from tools.bench_trl.line import JsonLines, peak_bytes
from tools.bench_trl.models import game_of


def main() -> int:
    """Train; each step waits for its turn."""
    line = JsonLines()
    job = line.job
    torch.set_num_threads(job.threads)
    with tempfile.TemporaryDirectory() as place:
        watch = StepTimes(line, job.case)
        trainer = trainer_for(job, place, watch)
        watch.follow(trainer)
        trainer.train()
        if job.out:
            trainer.model.save_pretrained(job.out)
    line.send(Done(peak=peak_bytes()))
    return 0


class StepTimes(TrainerCallback):
    """Waits before each step, measures it, and grades what is generated in it."""

    def __init__(self, line: JsonLines, case: BenchCase) -> None:
        self._line, self._case, self._game = line, case, game_of(case)
        self._began = self._spent = self._generating = self._reward = 0.0
        self._tokens = 0
        self.__name__ = "reward"

    def follow(self, trainer: Any) -> None:
        """Measure the part of a step in which TRL generates."""
        generate = trainer._generate_single_turn

        def timed(*args: Any, **named: Any) -> Any:
            began = time.perf_counter()
            ids, logps = generate(*args, **named)
            self._generating = time.perf_counter() - began
            self._tokens = sum(map(len, ids))
            return ids, logps

        trainer._generate_single_turn = timed

    def grade(self, completions: list[str], answer: list[str], **_: Any) -> list[float]:
        """Return the reward of each completion (TRL's reward function)."""
        if self._case.shape is not None:
            found = alternating(len(completions))
        else:
            texts = [text.removesuffix(self._game.stop) for text in completions]
            found = [rewards(self._game, [text], gold)[0] for text, gold in zip(texts, answer, strict=True)]
        self._reward = sum(found) / len(found)
        return found

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """Wait for the turn; the whole of a step, generation and all, follows."""
        self._line.wait()
        self._began, self._spent = time.perf_counter(), time.process_time()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Report what the step took."""
        seconds, cpu = time.perf_counter() - self._began, time.process_time() - self._spent
        turn = Turn(seconds=seconds, generating=self._generating, cpu=cpu, reward=self._reward, tokens=self._tokens)
        self._line.send(turn)


def trainer_for(job: BenchJob, place: str, watch: StepTimes) -> Any:
    """Return TRL's trainer on the job's model and questions."""
    case, game = job.case, game_of(job.case)
    model = AutoModelForCausalLM.from_pretrained(job.model, dtype=getattr(torch, case.dtype))
    data = [{"prompt": prompt_text(game, question), "answer": answer} for question, answer in job.questions]
    config = GRPOConfig(
        output_dir=place, seed=job.seed, use_cpu=True, bf16=False, fp16=False, gradient_checkpointing=False,
        per_device_train_batch_size=case.groups * case.num_generations, gradient_accumulation_steps=1,
        num_generations=case.num_generations, max_completion_length=case.completion, shuffle_dataset=False,
        max_steps=case.updates, temperature=game.temperature, top_k=0, top_p=1.0, beta=0.0, loss_type="dapo",
        scale_rewards="group", epsilon=Objective().epsilon, epsilon_high=Objective().epsilon_high,
        learning_rate=case.rate,
        lr_scheduler_type="constant_with_warmup", warmup_steps=5, adam_beta1=0.9, adam_beta2=0.95, weight_decay=0.0,
        max_grad_norm=1.0, report_to=[], save_strategy="no", logging_steps=1, disable_tqdm=True,
    )  # fmt: skip

    def reward(completions: list[str], answer: list[str], **named: Any) -> list[float]:
        return watch.grade(completions, answer, **named)

    return GRPOTrainer(
        model=model, reward_funcs=reward, args=config, train_dataset=Dataset.from_list(data),
        processing_class=AutoTokenizer.from_pretrained(job.model), callbacks=[watch],
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
