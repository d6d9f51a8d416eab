"""Signed messages that other nodes bring on chain, in batches."""
