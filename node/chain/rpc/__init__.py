"""JSON-RPC to an EVM node, and the blocks of one contract without gaps."""
