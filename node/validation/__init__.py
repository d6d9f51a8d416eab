"""The check of rollouts that peers send: rules, recomputed rewards, copies."""
