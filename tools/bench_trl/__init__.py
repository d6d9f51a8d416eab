"""Our GRPO step against TRL's GRPOTrainer: same model, data, completions per update, threads; turn and turn about.

    python -m tools.bench_trl --venv DIR [--case builtin --case smol ...] [--tiny]

TRL is installed into an environment of its own (`--venv`); the project and its lock know nothing of it.
"""
