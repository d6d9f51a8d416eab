"""Relaying: other nodes' signed messages, submitted in batches.

Pure: `signatures`, `batch_calls`, and the table of kinds in `batch_rules`. `batcher` and `relayer` ask the chain.
"""
