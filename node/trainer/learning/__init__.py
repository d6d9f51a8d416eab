"""GRPO updates: objective, off-policy filter, optimiser."""
