"""The coordinator contract as the node sees it: RPC transport, follower of blocks, outbox of transactions, bindings."""
