"""What TRL's `GRPOConfig` calls the settings that this program has too, for the generated reference.

Only settings of the same meaning are listed. Most keys have TRL's name already.
"""

from __future__ import annotations

TRL_NAMES = {
    "trainer.seed": "seed",
    "trainer.engine": "use_vllm",
    "trainer.learning_rate": "learning_rate",
    "trainer.warmup_steps": "warmup_steps",
    "trainer.optimizer": "optim",
    "trainer.loss": "loss_type (grpo is TRL's dapo, dr-grpo is dr_grpo)",
    "trainer.epsilon": "epsilon",
    "trainer.epsilon_high": "epsilon_high",
    "trainer.beta": "beta",
    "trainer.external": "vllm_importance_sampling_correction",
    "trainer.importance_cap": "vllm_importance_sampling_cap",
    "trainer.mask_truncated": "mask_truncated_completions",
    "trainer.max_grad_norm": "max_grad_norm",
    "trainer.gradient_checkpointing": "gradient_checkpointing",
    "trainer.micro_batch": "per_device_train_batch_size",
    "trainer.gpu_memory_utilization": "vllm_gpu_memory_utilization",
    "trainer.checkpoints": "save_total_limit",
    "game.num_generations": "num_generations",
    "game.max_completion": "max_completion_length",
    "game.temperature": "temperature",
}
"""TRL's name by the key of `swarm.toml` (section `trainer`) or of the manifest (section `game`)."""
