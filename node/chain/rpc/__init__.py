"""JSON-RPC to an EVM node, and the blocks of one contract without gaps.

Pure: `blocks`, `failover`, `schemas`. I/O: `client` and `block_follower`.
"""
